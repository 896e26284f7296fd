"""The truth about what ran, in MLflow: one parent run for a workflow, one child run for each stage that had work.

The only module that imports MLflow, and only once a stage has work. Only the driver writes: points are buffered and
sent in batches. Every open run carries a lease (host, pid, heartbeat), and the next start closes runs whose process is
gone.
"""

import contextlib
import fcntl
import io
import logging
import os
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from workflows.config import TrackingSpec, UsageError
from workflows.processes import HEARTBEAT_EVERY_S, lives, this_process

DATABASE = "mlflow.db"  # in the root
FLUSH_EVERY_S = 3.0
SYSTEM_METRICS_EVERY_S = 5.0
MAX_POINTS, MAX_PARAM_CHARS = 1000, 6000  # in one request
ENVIRONMENT = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "GIT_PYTHON_REFRESH": "quiet"}


def tracking_uri(spec: TrackingSpec, root: Path) -> str:
    """The tracking server's URI, or the database under the root."""
    return spec.uri or f"sqlite:///{root / DATABASE}"


class StageRun:
    """One run in MLflow while it is open: buffered metrics, artifacts, inputs, notes."""

    def __init__(self, tracker: "Tracker", run_id: str):
        self._tracker, self.id = tracker, run_id
        self._points: list[tuple[str, float, int, int]] = []
        self._guard = threading.Lock()

    def metrics(self, values: dict[str, float], step: int = 0) -> None:
        """Points of one step; sent with the next batch."""
        now_ms = int(time.time() * 1000)
        with self._guard:
            self._points += [(name, float(value), now_ms, step) for name, value in values.items()]

    def flush(self) -> None:
        """Sends what is buffered; what could not be sent stays in the buffer."""
        from mlflow.entities import Metric

        with self._guard:
            points, self._points = self._points, []
        try:
            while points:
                self._tracker.client.log_batch(self.id, metrics=[Metric(*p) for p in points[:MAX_POINTS]])
                del points[:MAX_POINTS]
        finally:
            with self._guard:
                self._points = points + self._points

    def params(self, values: dict[str, Any]) -> None:
        from mlflow.entities import Param

        texts = [Param(name, str(value)[:MAX_PARAM_CHARS]) for name, value in values.items()]
        for first in range(0, len(texts), 100):
            self._tracker.client.log_batch(self.id, params=texts[first : first + 100])

    def tags(self, values: dict[str, Any]) -> None:
        for name, value in values.items():
            self._tracker.client.set_tag(self.id, name, str(value))

    def note(self, markdown: str) -> None:
        """What the run's page says first."""
        self.tags({"mlflow.note.content": markdown})

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """A file or a folder of files."""
        send = self._tracker.client.log_artifacts if path.is_dir() else self._tracker.client.log_artifact
        send(self.id, str(path), folder)

    def dataset(self, frame, name: str, source: str, digest: str, context: str) -> None:
        """The data that the run read: a table of its shards, never pixels; the whole digest goes into a tag."""
        import mlflow.data
        from mlflow.entities import DatasetInput, InputTag

        with warnings.catch_warnings():  # hints on integer columns and on the kind of source
            warnings.simplefilter("ignore")
            data = mlflow.data.from_pandas(frame, source=source, name=name, digest=digest[:36])._to_mlflow_entity()
        tags = [InputTag("mlflow.data.context", context), InputTag("manifest_sha256", digest)]
        self._tracker.client.log_inputs(self.id, datasets=[DatasetInput(data, tags)])

    def model(self, net, example, name: str, alias: str, files: list[Path], metadata: dict[str, str]) -> str:
        """Logs and registers a torch model with signature and input example, and points the alias at it.

        The files go along, so that whoever has the registered model has them too (see `registered_files`).

        Returns:
            The model's URI.
        """
        import mlflow.pytorch
        from mlflow.models import infer_signature

        signature = infer_signature(example, net(_as_tensor(example)).detach().numpy())
        with self._tracker.fluent(self.id), contextlib.redirect_stderr(io.StringIO()):  # "already exists", …
            info = mlflow.pytorch.log_model(
                net,
                name=alias,
                signature=signature,
                input_example=example,
                registered_model_name=name,
                serialization_format="pt2",  # never pickle
                pip_requirements=["torch"],
                extra_files=[str(path) for path in files],
                metadata=metadata,
            )
        self._tracker.client.set_registered_model_alias(name, alias, info.registered_model_version)
        return info.model_uri


def _as_tensor(example):
    import torch

    return torch.from_numpy(example)


class Tracker:
    """Opens and closes runs. Nothing is written before `workflow` is entered."""

    def __init__(self, spec: TrackingSpec, root: Path):
        self._spec, self._root = spec, root
        self._open: list[StageRun] = []
        self.client = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._parent: StageRun | None = None

    @property
    def parent(self) -> StageRun | None:
        """The workflow's run, once a stage had work."""
        return self._parent

    def begin_workflow(self, name: str, tags: dict[str, str]) -> StageRun:
        """Opens the parent run (once), after closing the runs that dead processes left open."""
        if self._parent is None:
            self._connect()
            self._reconcile()
            self._parent = self._create(name, {"alexnet.kind": "workflow", **tags})
            self._thread = threading.Thread(target=self._beat, name="mlflow-heartbeat", daemon=True)
            self._thread.start()
        return self._parent

    @contextlib.contextmanager
    def stage(self, name: str, tags: dict[str, str]) -> Iterator[StageRun]:
        """A child run of the workflow's, closed with the status that is true: FINISHED, FAILED or KILLED."""
        assert self._parent is not None, "begin_workflow comes first"
        run = self._create(name, {"mlflow.parentRunId": self._parent.id, "alexnet.kind": "stage", **tags})
        monitor = self._system_metrics(run.id)
        status = "FAILED"
        try:
            yield run
            status = "FINISHED"
        except (KeyboardInterrupt, SystemExit):
            status = "KILLED"
            raise
        finally:
            monitor.finish()
            self._close(run, status)

    def end_workflow(self, status: str) -> None:
        """Closes the parent run; nothing where none was opened."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if self._parent is not None:
            self._close(self._parent, status)
            self._parent = None

    @contextlib.contextmanager
    def fluent(self, run_id: str) -> Iterator[None]:
        """Inside, MLflow's module-level functions write to this run, and leave it open."""
        import mlflow

        with mlflow.start_run(run_id=run_id, log_system_metrics=False):
            yield
        self.client.update_run(run_id, status="RUNNING")  # start_run closed it; it goes on

    def _connect(self) -> None:
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        import mlflow

        for name in ("mlflow", "mlflow.store.db.utils", "mlflow.system_metrics", "alembic"):
            logging.getLogger(name).setLevel(logging.ERROR)
        uri = tracking_uri(self._spec, self._root)
        self._root.mkdir(parents=True, exist_ok=True)
        with _locked(self._root / ".mlflow.lock"):  # two processes that make the same database at once destroy it
            mlflow.set_tracking_uri(uri)
            mlflow.set_registry_uri(uri)
            try:
                self.client = mlflow.MlflowClient(uri, uri)
                self.experiment_id = self._experiment()
            except Exception as error:  # each kind of store has errors of its own: MLflow's, SQLAlchemy's, a driver's
                reason = str(error).strip().partition("\n")[0]
                raise UsageError(f"tracking.uri={uri} does not answer as MLflow does: {reason}") from error

    def _experiment(self) -> str:
        known = self.client.get_experiment_by_name(self._spec.experiment)
        if known is not None:
            return known.experiment_id
        place = None if self._spec.uri else (self._root / "mlartifacts").as_uri()
        kind = {
            "mlflow.experimentKind": "custom_model_development"
        }  # else the UI takes runs for evaluations of prompts
        return self.client.create_experiment(self._spec.experiment, artifact_location=place, tags=kind)

    def _create(self, name: str, tags: dict[str, str]) -> StageRun:
        lease = {f"lease.{key}": str(value) for key, value in this_process().items()}
        lease |= {"lease.heartbeat": f"{time.time():.0f}", "lease.root": str(self._root)}
        created = self.client.create_run(self.experiment_id, run_name=name, tags={**tags, **lease})
        run = StageRun(self, created.info.run_id)
        self._open.append(run)
        return run

    def _close(self, run: StageRun, status: str) -> None:
        self._open.remove(run)
        run.flush()
        self.client.set_terminated(run.id, status)

    def _beat(self) -> None:
        last = time.monotonic()
        while not self._stop.wait(FLUSH_EVERY_S):
            beat = time.monotonic() - last >= HEARTBEAT_EVERY_S
            last = time.monotonic() if beat else last
            for run in list(self._open):
                with contextlib.suppress(
                    Exception
                ):  # a server that is away for a moment; close() reports a lasting one
                    run.flush()
                    if beat:
                        self.client.set_tag(run.id, "lease.heartbeat", f"{time.time():.0f}")

    def _reconcile(self) -> None:
        """Runs that say RUNNING although their process is gone are KILLED."""
        for run in self.client.search_runs([self.experiment_id], "attributes.status = 'RUNNING'", max_results=1000):
            tags = run.data.tags
            if "lease.host" in tags and not _lease_holds(tags):
                self.client.set_terminated(run.info.run_id, "KILLED")

    def _system_metrics(self, run_id: str):
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        monitor = SystemMetricsMonitor(run_id, sampling_interval=SYSTEM_METRICS_EVERY_S, samples_before_logging=1)
        monitor.start()
        return monitor


def _lease_holds(tags: dict[str, str]) -> bool:
    return lives({name.removeprefix("lease."): value for name, value in tags.items() if name.startswith("lease.")})


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def registered_files(spec: TrackingSpec, root: Path, uri: str) -> Path:
    """The folder of the files that were logged with a registered model, models:/NAME@ALIAS or models:/NAME/VERSION.

    Raises:
        UsageError: No such model.
    """
    if not spec.uri and not (root / DATABASE).exists():
        raise UsageError(f"no model {uri}: {root} holds no MLflow database; name the --root of a run, or a folder")
    import mlflow

    mlflow.set_tracking_uri(tracking_uri(spec, root))
    try:
        return Path(mlflow.artifacts.download_artifacts(f"{uri.rstrip('/')}/extra_files"))
    except (mlflow.exceptions.MlflowException, OSError) as error:
        raise UsageError(f"no model {uri} at {tracking_uri(spec, root)}: {error}; `alexnet ui` shows them") from error


def run_link(experiment_id: str, run_id: str) -> str:
    """A run's address inside the MLflow UI."""
    return f"#/experiments/{experiment_id}/runs/{run_id}"


def lineage_note(rows: list[dict[str, Any]], experiment_id: str) -> str:
    """The lineage of a workflow as a table in markdown, cached stages with the run that made them."""
    lines = ["| stage | state | key | result | made by |", "| --- | --- | --- | --- | --- |"]
    for row in rows:
        run_id = row.get("mlflow_run_id") or ""
        link = f"[{run_id[:8]}]({run_link(experiment_id, run_id)})" if run_id else ""
        lines.append(f"| {row['stage']} | {row['state']} | {row['key']} | {row.get('result', '')} | {link} |")
    return "\n".join(lines)


class Untracked:
    """No tracking at all, for `tracking.uri=off`: the same verbs, and nothing is written."""

    id, parent, experiment_id = "", None, ""

    def begin_workflow(self, name: str, tags: dict[str, str]) -> "Untracked":
        return self

    @contextlib.contextmanager
    def stage(self, name: str, tags: dict[str, str]) -> Iterator["Untracked"]:
        yield self

    def end_workflow(self, status: str) -> None: ...
    def metrics(self, values: dict[str, float], step: int = 0) -> None: ...
    def params(self, values: dict[str, Any]) -> None: ...
    def tags(self, values: dict[str, Any]) -> None: ...
    def note(self, markdown: str) -> None: ...
    def artifact(self, path: Path, folder: str | None = None) -> None: ...
    def dataset(self, frame, name: str, source: str, digest: str, context: str) -> None: ...

    def model(self, net, example, name: str, alias: str, files: list[Path], metadata: dict[str, str]) -> str:
        return ""


def tracker(spec: TrackingSpec, root: Path) -> "Tracker | Untracked":
    """The tracker that the configuration asks for."""
    return Untracked() if spec.uri == "off" else Tracker(spec, root)
