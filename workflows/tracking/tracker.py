"""The truth about what ran, in MLflow: one parent run for a workflow, one child run for each stage that had work.

Only the driver writes. What a run is told goes into its outbox and is sent from there; where MLflow is away it waits,
and the work goes on.
"""

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from workflows.config import TrackingSpec
from workflows.processes import HEARTBEAT_EVERY_S
from workflows.tracking.ending import afterwards
from workflows.tracking.outbox import END, Outbox
from workflows.tracking.server import Server, system_sampler

FLUSH_EVERY_S = 3.0
SYSTEM_METRICS_EVERY_S = 5.0


class StageRun:
    """One run in MLflow while it is open: metrics, parameters, tags, artifacts, inputs, models, notes."""

    def __init__(self, server: Server, root: Path, run_id: str):
        self._server, self._root, self.id = server, root, run_id
        self._outbox = Outbox(root, run_id, server.id)
        self._points: list[list] = []
        self._guard = threading.Lock()
        self._closed = False

    def metrics(self, values: dict[str, float], step: int = 0) -> None:
        """Points of one step; sent with the next batch."""
        points = _points(values, step)
        with self._guard:
            self._points += points

    def flush(self, renew: bool = False) -> None:
        """Sends all that was said so far, or keeps it in a file; perhaps with a fresh heartbeat."""
        with self._guard:
            if self._closed:
                return
            self._put_points()
            if renew:
                self._outbox.put({"do": "tags", "values": {"lease.heartbeat": f"{time.time():.3f}"}})
        self._server.deliver(self.id, self._outbox)

    def params(self, values: dict[str, Any]) -> None:
        self._tell("params", values={name: str(value) for name, value in values.items()})

    def tags(self, values: dict[str, Any]) -> None:
        self._tell("tags", values={name: str(value) for name, value in values.items()})

    def note(self, markdown: str) -> None:
        """What the run's page says first."""
        self.tags({"mlflow.note.content": markdown})

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """A file or a folder of files."""
        self._tell("artifact", path=self._place(path), folder=folder)

    def dataset(self, rows: list[dict], name: str, source: str, digest: str, context: str) -> None:
        """The data that the run read: a table of its shards, never pixels; the whole digest goes into a tag."""
        self._tell("dataset", rows=rows, name=name, source=source, digest=digest, context=context)

    def model(self, folder: Path, name: str, alias: str, metadata: dict[str, str]) -> None:
        """Registers an exported network under a name, with its files (see `registered_files`), and gives it the alias.

        `best` moves only to a lower validation error on the same manifest, which the metadata name.
        """
        self._tell("model", folder=self._place(folder), name=name, alias=alias, metadata=metadata)

    def judged(self, errors: dict[str, float], by: str, name: str, dataset: str, digest: str) -> None:
        """Errors of the model that the run `by` registered under the alias `name`, on a data set."""
        self._tell("judged", points=_points(errors, 0), by=by, name=name, dataset=dataset, digest=digest)

    def close(self, status: str) -> None:
        """Sends the rest and the status; nothing is told any more."""
        with self._guard:
            self._closed = True
            self._put_points()
            self._outbox.put({"do": END, "status": status, "ms": int(time.time() * 1000)})
        self._server.deliver(self.id, self._outbox)

    def _put_points(self) -> None:
        points, self._points = self._points, []
        if points:
            self._outbox.put({"do": "points", "points": points})

    def _tell(self, verb: str, **arguments: Any) -> None:
        self._outbox.put({"do": verb, **arguments})
        self._server.deliver(self.id, self._outbox)

    def _place(self, path: Path) -> str:
        return str(path.relative_to(self._root) if path.is_relative_to(self._root) else path.absolute())


def _points(values: dict[str, float], step: int) -> list[list]:
    now_ms = int(time.time() * 1000)
    return [[name, float(value), now_ms, step] for name, value in values.items()]


class Tracker:
    """Opens and closes runs. Nothing is written before `begin_workflow`."""

    def __init__(self, spec: TrackingSpec, root: Path, say: Callable[[str], None] = lambda text: None):
        self._spec, self._root, self._say = spec, root, say
        self._open: list[StageRun] = []
        self.server: Server  # once a stage had work
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.parent: StageRun | None = None  # the workflow's run, once a stage had work

    @property
    def experiment_id(self) -> str:
        return self.server.experiment_id

    def begin_workflow(self, name: str, tags: dict[str, str], params: dict[str, Any] | None = None) -> StageRun:
        """Opens the parent run (once), after closing the runs that dead processes left open."""
        if self.parent is None:
            self.server = Server(self._spec, self._root, self._say)
            self.parent = self._create(name, {"alexnet.kind": "workflow", **tags})
            self.parent.params(params or {})
            self._thread = threading.Thread(target=self._beat, name="mlflow-heartbeat", daemon=True)
            self._thread.start()
        return self.parent

    @contextlib.contextmanager
    def stage(self, name: str, tags: dict[str, str]) -> Iterator[StageRun]:
        """A child run of the workflow's, closed with the status that is true: FINISHED, FAILED or KILLED."""
        assert self.parent is not None, "begin_workflow comes first"
        run = self._create(name, {"mlflow.parentRunId": self.parent.id, "alexnet.kind": "stage", **tags})
        status = "FAILED"
        with afterwards(lambda: self._close(run, status)):
            try:
                yield run
                status = "FINISHED"
            except (KeyboardInterrupt, SystemExit):
                status = "KILLED"
                raise

    def closed(self, run_id: str) -> StageRun:
        """A run that was closed before, to be told more of."""
        return StageRun(self.server, self._root, run_id)

    def end_workflow(self, status: str) -> None:
        """Closes the parent run; nothing where none was opened."""
        with afterwards(self._stop_beating, lambda: self._end_parent(status)):
            pass

    def _stop_beating(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _end_parent(self, status: str) -> None:
        parent, self.parent = self.parent, None
        if parent is not None:
            self._close(parent, status)

    def _create(self, name: str, tags: dict[str, str]) -> StageRun:
        run = StageRun(self.server, self._root, self.server.create(name, tags))
        self._open.append(run)
        return run

    def _close(self, run: StageRun, status: str) -> None:
        self._open.remove(run)
        run.close(status)

    def _beat(self) -> None:
        """Sends what is buffered, renews the leases, and takes the load of this machine for the stage at work."""
        sample, beat_at, sample_at = system_sampler(), time.monotonic() + HEARTBEAT_EVERY_S, 0.0
        steps = itertools.count(1)  # MLflow takes what a run has at step 0 for the model's own
        while not self._stop.wait(FLUSH_EVERY_S):
            now, runs = time.monotonic(), list(self._open)
            if now >= sample_at:
                sample_at = now + SYSTEM_METRICS_EVERY_S
                with contextlib.suppress(Exception):  # whatever psutil or a driver has to say: no work depends on it
                    values, step = sample(), next(steps)
                    for run in runs[1:]:
                        run.metrics(values, step)
            for run in runs:
                run.flush(renew=now >= beat_at)
            if now >= beat_at:
                beat_at = now + HEARTBEAT_EVERY_S


class Untracked:
    """No tracking at all, for `tracking.uri=off`: the same verbs, and nothing is written."""

    id, parent, experiment_id = "", None, ""

    def begin_workflow(self, name: str, tags: dict[str, str], params: dict[str, Any] | None = None) -> "Untracked":
        return self

    @contextlib.contextmanager
    def stage(self, name: str, tags: dict[str, str]) -> Iterator["Untracked"]:
        yield self

    def closed(self, run_id: str) -> "Untracked":
        return self

    def end_workflow(self, status: str) -> None: ...
    def metrics(self, values: dict[str, float], step: int = 0) -> None: ...
    def flush(self) -> None: ...
    def params(self, values: dict[str, Any]) -> None: ...
    def tags(self, values: dict[str, Any]) -> None: ...
    def note(self, markdown: str) -> None: ...
    def artifact(self, path: Path, folder: str | None = None) -> None: ...
    def dataset(self, rows: list[dict], name: str, source: str, digest: str, context: str) -> None: ...
    def model(self, folder: Path, name: str, alias: str, metadata: dict[str, str]) -> None: ...
    def judged(self, errors: dict[str, float], by: str, name: str, dataset: str, digest: str) -> None: ...


def tracker(spec: TrackingSpec, root: Path, say: Callable[[str], None]) -> "Tracker | Untracked":
    """The tracker that the configuration asks for."""
    return Untracked() if spec.uri == "off" else Tracker(spec, root, say)
