"""MLflow's edge: opens runs, performs the operations that runs are told, and closes what dead processes left open.

The only module that imports MLflow, and only once a stage has work. Every open run carries a lease (who made it, and a
heartbeat); what a process could not send any more is sent here at the next start.
"""

import contextlib
import io
import logging
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipelines.storage import redacted
from workflows.config import TrackingSpec, UsageError, digest
from workflows.processes import lives, this_process
from workflows.tracking import database
from workflows.tracking.headline import VIEW, view_of_the_runs
from workflows.tracking.outbox import Away, Operation, Outbox, left_behind

MAX_POINTS, MAX_PARAMS, MAX_CHARS = 1000, 100, 5000  # in one request, of one value
RETRY_EVERY_S = 15.0  # while MLflow is away
BEST = "best"  # the alias that a version must earn
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
AT_FIRST, LATER = 0, 1
PATIENCE = {"MLFLOW_HTTP_REQUEST_TIMEOUT": ("3", "20"), "MLFLOW_HTTP_REQUEST_MAX_RETRIES": ("0", "1")}
CHOSEN = {name: os.environ[name] for name in PATIENCE if name in os.environ}  # by the user
PASSING = {"INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "DEADLINE_EXCEEDED", "ABORTED"}
NEEDED_BY_A_MODEL = ("torch", "numpy")


def tracking_uri(spec: TrackingSpec, root: Path) -> str:
    """The tracking server's URI, or the database under the root."""
    return spec.uri or database.url(root)


class Server:
    """The tracking server, or the database, of one root."""

    def __init__(self, spec: TrackingSpec, root: Path, say: Callable[[str], None]):
        self._spec, self._root, self._say = spec, root, say
        self.id = digest(spec.uri)  # which server a file of unsent operations is for; an address may hold a password
        self._again_at: float | None = None  # when to try again, while it is away
        self._refused: set[str] = set()  # runs of which this was said
        with database.strays_removed(root):
            self._connect()

    def create(self, name: str, tags: dict[str, str]) -> str:
        """A new run, with this process's lease; returns its id.

        Raises:
            UsageError: MLflow is away.
        """
        lease = {f"lease.{key}": str(value) for key, value in this_process().items()}
        lease |= {"lease.heartbeat": f"{time.time():.3f}", "lease.root": str(self._root)}
        try:
            made = self.client.create_run(self.experiment_id, run_name=name, tags={**tags, **lease})
        except Exception as error:
            raise self._silent(error) from error
        return made.info.run_id

    def deliver(self, run_id: str, outbox: Outbox) -> None:
        """Everything in the outbox; while MLflow is away it is kept there, and that is said once."""
        with contextlib.suppress(Away):
            outbox.send(lambda operation: self._try(run_id, operation))

    def settle(self) -> None:
        """Sends what earlier processes could not, and closes the runs of dead ones at their last heartbeat."""
        for letters in left_behind(self._root, self.id):
            try:
                for operation in letters.operations:
                    self._perform(letters.run_id, operation)
            except Away:
                return  # the next start tries again
            letters.forget()
        for run in self.client.search_runs([self.experiment_id], "attributes.status = 'RUNNING'", max_results=1000):
            lease = {name[6:]: value for name, value in run.data.tags.items() if name.startswith("lease.")}
            if lease and not lives(lease):
                ended_ms = int(float(lease["heartbeat"]) * 1000)
                self.client.set_terminated(run.info.run_id, "KILLED", max(ended_ms, run.info.start_time))

    def _connect(self) -> None:
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        _be_patient(AT_FIRST)
        import mlflow

        for name in ("mlflow", "mlflow.store.db.utils", "mlflow.system_metrics", "alembic"):
            logging.getLogger(name).setLevel(logging.ERROR)
        from mlflow.store.db import utils

        utils.MAX_RETRY_COUNT = 4  # 10 would take 100 s to say no
        uri = tracking_uri(self._spec, self._root)
        self._root.mkdir(parents=True, exist_ok=True)
        with database.locked(self._root):
            mlflow.set_tracking_uri(uri)
            mlflow.set_registry_uri(uri)
            try:
                if not self._spec.uri:
                    database.follow(self._root)
                self.client = mlflow.MlflowClient(uri, uri)
                self.experiment_id = self._experiment()
                mlflow.set_experiment(experiment_id=self.experiment_id)  # where models are logged
                _be_patient(LATER)
                if not self._spec.uri:
                    self.client.search_registered_models(max_results=1)  # opens what else would be opened later
                self.settle()
            except Exception as error:  # each kind of store has errors of its own: MLflow's, SQLAlchemy's, a driver's
                raise self._silent(error) from error

    def _silent(self, error: Exception) -> UsageError:
        reason = str(error).strip().partition("\n")[0]
        where = f"tracking.uri={self._spec.uri or self._root}"
        return UsageError(redacted(f"{where} does not answer as MLflow does: {reason}"))

    def _experiment(self) -> str:
        kind = {"mlflow.experimentKind": "custom_model_development"}  # else the UI takes runs for tests of prompts
        tags = kind | {f"mlflow.sharedViewState.{VIEW}": view_of_the_runs()}
        known = self.client.get_experiment_by_name(self._spec.experiment)
        if known is None:
            place = None if self._spec.uri else (self._root / database.ARTIFACTS).as_uri()
            return self.client.create_experiment(self._spec.experiment, artifact_location=place, tags=tags)
        for name, value in tags.items():
            if known.tags.get(name) != value:
                self.client.set_experiment_tag(known.experiment_id, name, value)
        return known.experiment_id

    def _try(self, run_id: str, operation: Operation) -> None:
        if self._again_at is not None and time.monotonic() < self._again_at:
            raise Away
        try:
            self._perform(run_id, operation)
        except Away as error:
            if self._again_at is None:
                self._say(f"  MLflow is away ({error}): the work goes on, what it is to be told waits in {self._root}")
            self._again_at = time.monotonic() + RETRY_EVERY_S
            raise
        if self._again_at is not None:
            self._again_at = None
            self._say("  MLflow is back")

    def _perform(self, run_id: str, operation: Operation) -> None:
        """Away where it may succeed later; what never will is passed over and said: no work ends because of MLflow."""
        from mlflow.exceptions import MlflowException

        arguments = {name: value for name, value in operation.items() if name != "do"}
        try:
            getattr(self, f"_{operation['do']}")(run_id, **arguments)
        except Exception as error:
            passing = isinstance(error, OSError) and not isinstance(error, FileNotFoundError)
            reason = str(error).strip().partition("\n")[0]
            if passing or isinstance(error, MlflowException) and error.error_code in PASSING:
                raise Away(reason) from error
            if run_id not in self._refused:
                self._say(f"  MLflow does not take {operation['do']} of run {run_id[:8]}: {reason}")
            self._refused.add(run_id)

    def _points(self, run_id: str, points: list[list]) -> None:
        """Name, value, time in ms and step of each."""
        from mlflow.entities import Metric

        for first in range(0, len(points), MAX_POINTS):
            self.client.log_batch(run_id, metrics=[Metric(*point) for point in points[first : first + MAX_POINTS]])

    def _params(self, run_id: str, values: dict[str, str]) -> None:
        from mlflow.entities import Param

        params = [Param(name, _short(value)) for name, value in values.items()]
        for first in range(0, len(params), MAX_PARAMS):
            self.client.log_batch(run_id, params=params[first : first + MAX_PARAMS])

    def _tags(self, run_id: str, values: dict[str, str]) -> None:
        from mlflow.entities import RunTag

        tags = [RunTag(name, _short(value)) for name, value in values.items()]
        for first in range(0, len(tags), MAX_PARAMS):
            self.client.log_batch(run_id, tags=tags[first : first + MAX_PARAMS])

    def _artifact(self, run_id: str, path: str, folder: str | None) -> None:
        """A path under the root is said from there, for a root may be moved."""
        whole = self._root / path
        send = self.client.log_artifacts if whole.is_dir() else self.client.log_artifact
        send(run_id, str(whole), folder)

    def _dataset(self, run_id: str, rows: list[dict], name: str, source: str, digest: str, context: str) -> None:
        import pandas as pd
        from mlflow.data.pandas_dataset import from_pandas
        from mlflow.entities import DatasetInput, InputTag

        with warnings.catch_warnings():  # hints on integer columns and on the kind of source
            warnings.simplefilter("ignore")
            made = from_pandas(pd.DataFrame(rows), source=source, name=name, digest=digest[:36])
            data = made._to_mlflow_entity()
        tags = [InputTag("mlflow.data.context", context), InputTag("manifest_sha256", digest)]
        self.client.log_inputs(run_id, datasets=[DatasetInput(data, tags)])

    def _model(self, run_id: str, folder: str, name: str, alias: str, metadata: dict[str, str]) -> None:
        """Logs and registers an exported network, its files along with it, and gives its version the alias."""
        from mlflow.models import Model

        from model.export import CARD, WEIGHTS, load_exported
        from model.portable import portable

        place = self._root / folder
        exported = load_exported(place, metadata.get("net.kind", ""))
        example, signature = _described(exported.net)
        facts = metadata | {k: str(v) for k, v in exported.provenance.items() if k.startswith("val_")}
        with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():  # "already exists", …
            warnings.simplefilter("ignore")
            info = Model.log(
                artifact_path=None,
                flavor=_PyTorchWithoutExample,
                flavor_name="pytorch",
                name=alias,
                run_id=run_id,
                registered_model_name=name,
                pytorch_model=portable(exported.net),
                signature=signature,
                input_example=example,
                serialization_format="pt2",  # never pickle; needs torch alone
                pip_requirements=_requirements(),
                extra_files=[(place / part).as_uri() for part in (WEIGHTS, CARD)],
                metadata=facts,
            )
        version = str(info.registered_model_version)
        for key, value in facts.items():
            self.client.set_model_version_tag(name, version, key, value)
        self._award(name, alias, version, facts)

    def _award(self, name: str, alias: str, version: str, facts: dict[str, str]) -> None:
        """The alias goes to this version; `best` only from none, or from a worse one on the same images."""
        of_these = f"{BEST}-{facts.get('manifest', '')[:8]}"
        for one in (of_these, BEST) if alias == BEST else ():
            holder = self._holder(name, one)
            if holder is None or _is_better(facts, holder):
                self.client.set_registered_model_alias(name, one, version)
            elif holder.get("manifest") != facts.get("manifest"):
                self._say(f"  models:/{name}@{BEST} stays with another data set's model; this one's is @{of_these}")
        if alias != BEST:
            self.client.set_registered_model_alias(name, alias, version)

    def _holder(self, name: str, alias: str) -> dict[str, str] | None:
        """The tags of the version that has the alias."""
        if alias not in self.client.get_registered_model(name).aliases:
            return None
        return self.client.get_model_version_by_alias(name, alias).tags

    def _judged(self, run_id: str, by: str, name: str, points: list[list], dataset: str, digest: str) -> None:
        """Errors of the model that the run `by` logged under this name, on a data set."""
        from mlflow.entities import LoggedModelInput, Metric

        made = self.client.search_logged_models([self.experiment_id], f"source_run_id = '{by}' and name = '{name}'")
        link: dict[str, Any] = {"dataset_name": dataset, "dataset_digest": digest[:36]}
        if made:
            link |= {"model_id": made[0].model_id, "run_id": run_id}
            self.client.log_inputs(run_id, models=[LoggedModelInput(made[0].model_id)])
        self.client.log_batch(run_id, metrics=[Metric(*point, **link) for point in points])

    def _end(self, run_id: str, status: str, ms: int) -> None:
        self.client.set_terminated(run_id, status, ms)


def _be_patient(when: int) -> None:
    """How long MLflow waits for an answer: little until there was one, unless the user has said."""
    os.environ.update({name: seconds[when] for name, seconds in PATIENCE.items()} | CHOSEN)


def _short(text: str) -> str:
    """As long as MLflow takes; what is cut says so."""
    return text if len(text) <= MAX_CHARS else f"{text[: MAX_CHARS - 100]}… ({len(text)} characters, {digest(text)})"


def _described(net) -> tuple[Any, Any]:
    """Two gray images to trace the network with, float32 B,C,H,W on 0..255; the signature, for any number of them."""
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    spec = net.spec
    inputs = Schema([TensorSpec(np.dtype(np.float32), (-1, 3, spec.input_px, spec.input_px))])
    outputs = Schema([TensorSpec(np.dtype(np.float32), (-1, spec.num_classes))])
    return np.full((2, 3, spec.input_px, spec.input_px), 128, np.float32), ModelSignature(inputs, outputs)


class _PyTorchWithoutExample:
    """MLflow's PyTorch flavour; the example that traces the network is not stored, twice, as megabytes of JSON."""

    @staticmethod
    def save_model(path: str, mlflow_model, **options) -> None:
        import mlflow.pytorch

        mlflow.pytorch.save_model(path=path, mlflow_model=mlflow_model, **options)
        example = mlflow_model.saved_input_example_info
        for name in (example["artifact_path"], example["serving_input_path"]):
            (Path(path) / name).unlink()
        mlflow_model.saved_input_example_info = None
        mlflow_model.save(str(Path(path) / "MLmodel"))


def _requirements() -> list[str]:
    """What loads the model, as it is here; of a build such as 2.13.0+cpu the version."""
    from importlib.metadata import version

    return [f"{name}=={version(name).partition('+')[0]}" for name in NEEDED_BY_A_MODEL]


def _is_better(facts: dict[str, str], than: dict[str, str]) -> bool:
    """Lower error on the same images; where nothing measures one, the newer."""
    mine, other = (float(one.get("val_top1_error", "inf")) for one in (facts, than))
    same = facts.get("manifest") == than.get("manifest")
    return same and (mine < other or mine == other == float("inf"))


def system_sampler() -> Callable[[], dict[str, float]]:
    """Takes the load of this machine, as MLflow names it: CPU, memory, disk, network, GPUs."""
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    monitors = SystemMetricsMonitor("").monitors  # its own thread would end at the first request that fails

    def sample() -> dict[str, float]:
        found: dict[str, float] = {}
        for monitor in monitors:
            monitor.collect_metrics()
            found |= {f"system/{name}": value for name, value in monitor.aggregate_metrics().items()}
            monitor.clear_metrics()
        return found

    return sample


def registered_files(spec: TrackingSpec, root: Path, uri: str) -> Path:
    """The folder of the files that were logged with a registered model, models:/NAME@ALIAS or models:/NAME/VERSION.

    Raises:
        UsageError: No such model.
    """
    if not spec.uri and not (root / database.DATABASE).exists():
        raise UsageError(f"no model {uri}: {root} holds no MLflow database; name the --root of a run, or a folder")
    _be_patient(AT_FIRST)
    with contextlib.nullcontext(root) if spec.uri else database.to_look_at(root) as place:
        try:
            return _downloaded(tracking_uri(spec, place), place, uri)
        except Exception as error:  # as in `Server._connect`
            reason = str(error).strip().partition("\n")[0]
            where = f"no model {uri} at {spec.uri or root}"
            raise UsageError(redacted(f"{where}: {reason}; `alexnet ui` shows them")) from error


def _downloaded(tracked: str, root: Path, uri: str) -> Path:
    import mlflow

    with database.strays_removed(root):
        mlflow.set_tracking_uri(tracked)
        mlflow.set_registry_uri(tracked)
        return Path(mlflow.artifacts.download_artifacts(f"{uri.rstrip('/')}/extra_files"))
