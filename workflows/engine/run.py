"""Runs the stages whose output is not there: locked, tracked, recorded; and says how to go on where one fails."""

import contextlib
import time
import uuid
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipelines.storage import Folder
from workflows import config as configuration
from workflows.compute.on_ray import OnRay
from workflows.compute.workers import Compute
from workflows.config import LAST, RunConfig, UsageError, select
from workflows.console import Console
from workflows.engine import lock
from workflows.engine.outputs import Output, Places, is_beside, places, take_place
from workflows.engine.plan import Planned, plan
from workflows.engine.provenance import code_commit, code_digest, versions
from workflows.engine.stage import Context, Stage, digests, require_as_made
from workflows.tracking.ending import afterwards
from workflows.tracking.headline import errors_of, main_params, provenance, text_tags
from workflows.tracking.notes import lineage_note
from workflows.tracking.tracker import tracker


@dataclass(frozen=True)
class Row:
    """What became of a stage in this run."""

    stage: str
    state: str  # ran, cached
    key: str
    seconds: float
    result: str
    folder: Folder
    mlflow_run_id: str


def run(
    stages: tuple[Stage, ...],
    config: RunConfig,
    root: Path,
    *,
    only: Collection[str],
    redo: Collection[str] = (),
    take_lock: bool = False,
    console: Console | None = None,
    compute: Callable[[RunConfig, Console], Compute] = lambda config, console: OnRay(config.ray, console.say),
    check: Callable[[list[Planned]], None] = lambda planned: None,
    command: Callable[[str], str] = lambda verb: f"alexnet {verb}",
    remembered: RunConfig | None = None,
) -> list[Row]:
    """Run the stages named by `only`, each unless its output is there, and from those named by `redo` on anyway.

    Args:
        redo: Stages whose output is made again, beside the one that is there until it is finished.
        take_lock: Take the locks of processes elsewhere that seem to live.
        check: Refuses what is planned, before anything runs, with a UsageError.
        command: This program's command line with another verb, for messages.
        remembered: What later commands go on with, where that is not this configuration.

    Raises:
        UsageError: A stage outside `only` is needed and has no finished output.
    """
    began = time.perf_counter()
    console = console or Console()
    config = configuration.with_absolute_paths(config, Path.cwd())
    where = places(config, root)
    computing = compute(config, console)
    with contextlib.ExitStack() as unless_it_begins:
        unless_it_begins.callback(computing.close)
        planned = plan(stages, config, where, anew=stages[0].name in only, redo=redo, in_tasks=computing.map)
        _check_inputs(planned, only, command)
        check(planned)
        unless_it_begins.pop_all()
    workflow = _Workflow(config, where, console, computing, take_lock, began, remembered or config)
    status = "FAILED"
    with afterwards(lambda: workflow.close(status)):
        try:
            for step in planned:
                if step.stage.name in only:
                    workflow.advance(step)
            workflow.remember()
            status = "FINISHED"
        except (KeyboardInterrupt, SystemExit):
            status = "KILLED"
            raise
    return workflow.rows


def _check_inputs(planned: list[Planned], only: Collection[str], command: Callable[[str], str]) -> None:
    states = {step.stage.name: step.state for step in planned}
    for step in planned:
        for name in step.stage.needs if step.stage.name in only else ():
            if name not in only and states[name] != "CACHED":
                raise UsageError(
                    f"stage {step.stage.name} needs the output of {name}, which is {states[name]} for this "
                    f"configuration: run `{command(name)}` first, or `{command('run')}` for all"
                )


class _Workflow:
    """The run in progress: its tracker and compute, opened when the first stage has work."""

    def __init__(
        self,
        config: RunConfig,
        where: Places,
        console: Console,
        compute: Compute,
        take_lock: bool,
        began: float,
        remembered: RunConfig,
    ):
        self.config, self.places, self.root = config, where, where.root
        self.console, self.compute, self.take_lock = console, compute, take_lock
        self.tracker = tracker(config.tracking, where.root, console.say)
        self.rows: list[Row] = []
        self._began, self._stages_s = began, 0.0
        self._to_remember, self._remembered = remembered, False
        self._errors: dict[str, float] = {}  # of the network, as far as this workflow knows them

    def advance(self, step: Planned) -> None:
        """One stage: from what is stored, or run while its output is locked."""
        output = step.output
        if step.state == "CACHED" and not is_beside(output):
            self._saw(step)
            self._row(step.last, output, "cached")
            return
        with lock.held(output, uses=step.input_keys, take=self.take_lock, say=self.console.say):
            if done := self._finished_meanwhile(step):
                self._row(done.require_record(), done, "cached")
            else:
                output = self._make(step)
                self._row(output.require_record(), output, "ran")

    def _finished_meanwhile(self, step: Planned) -> Output | None:
        """The output, if another process has made it while this one waited, or if only its move was left to do."""
        output = self.places.output(step.stage.name, step.output.key)
        record = output.record
        if record is None or step.outdated and record.get("made", "") == step.last.get("made", ""):
            return None
        return self._in_place(output)

    def _in_place(self, output: Output) -> Output:
        """What was made beside takes the old one's place, unless that is being read."""
        if not is_beside(output):
            return output
        if (output.stage, output.key) in lock.in_use(self.places, by_others=True):
            self.console.say(f"the old {output.stage} {output.key} is being read: the next run puts the new one there")
            return output
        return take_place(output)

    def _make(self, step: Planned) -> Output:
        """Runs the stage: where its output belongs, or beside one that cannot be used any more."""
        belongs = self.places.at_home(step.stage.name, step.output.key)
        old = self._in_place(step.output) if step.outdated else None
        if old and is_beside(old):
            raise UsageError(f"{old.stage} {old.key} is being read: wait for the run that reads it, or stop it")
        target = belongs.beside if old and belongs.exists else belongs if old else step.output
        if old and target.begun and target.begun.get("inputs_made", {}) != _making_of(self._inputs(step)):
            target.delete()
        self._execute(step, target)
        if old and old.folder != belongs.folder:
            old.delete()
        return self._in_place(target)

    def _inputs(self, step: Planned) -> dict[str, Output]:
        return {name: self.places.output(name, key) for name, key in step.input_keys.items()}

    def _saw(self, step: Planned) -> None:
        if step.stage.saw:
            with contextlib.suppress(OSError):  # a root that is only read
                step.stage.saw(self.config, self.places, step.seen)

    def remember(self) -> None:
        """The configuration becomes the one that a later command need not be told; not that of a refused run."""
        text = configuration.dump(self._to_remember)
        path = self.root / LAST
        if not self._remembered and not (path.is_file() and path.read_text() == text):
            Folder.at(self.root).write(LAST, text)
        self._remembered = True

    def close(self, status: str) -> None:
        """Every step, whatever the others do."""
        with afterwards(self._sum_up, lambda: self.tracker.end_workflow(status), self.compute.close):
            pass

    def _sum_up(self) -> None:
        """The parent's run: the lineage, the errors, and what the workflow took besides its stages' work."""
        if self.tracker.parent is None:
            return
        whole_s = time.perf_counter() - self._began
        overhead_s = whole_s - self._stages_s  # Ray starts within a stage's work
        self.tracker.parent.metrics(self._errors)
        self.tracker.parent.tags({"workflow_s": round(whole_s, 1), "overhead_s": round(overhead_s, 1)})
        self.tracker.parent.note(lineage_note([vars(row) for row in self.rows], self.tracker.experiment_id))
        self.console.say(f"{overhead_s:.1f} s of {whole_s:.1f} s went into planning, locks, tracking and imports")

    def _row(self, record: dict[str, Any], output: Output, state: str) -> None:
        self._errors |= errors_of(record)
        names = ("stage", "key", "seconds", "result", "mlflow_run_id")
        self.rows.append(Row(**{name: record[name] for name in names}, state=state, folder=output.folder))

    def _execute(self, step: Planned, output: Output) -> None:
        stage, inputs = step.stage, self._inputs(step)
        require_as_made(inputs)
        started, began = _now(), time.perf_counter()
        commit, installed = code_commit(), versions()
        shared = {"alexnet.recipe": self.config.recipe, **provenance(commit)}
        self.tracker.begin_workflow(f"{self.config.recipe}-{started[:19]}", shared, main_params(self.config))
        self.remember()
        self.places.remember(output)
        ignored = configuration.without_secrets(select(self.config, stage.not_in_key))
        facts = output.begin(
            {
                "stage": stage.name,
                "key": output.key,
                "ingredients": step.ingredients,
                "inputs": step.input_keys,
                "inputs_made": _making_of(inputs),
                "facts": step.seen.facts,
                "made": f"{started}-{uuid.uuid4().hex[:8]}",
            },
            {
                "started": started,
                "commit": commit,
                "code": code_digest(),
                "ignored": ignored,
                "recipe": self.config.recipe,
            },
        )
        self._saw(step)
        self.console.say(f"{stage.name}  {output.key}")
        tags = {"alexnet.stage": stage.name, "alexnet.key": output.key, **shared}
        with self.tracker.stage(stage.name, tags) as mlrun:
            mlrun.params(step.ingredients)
            mlrun.tags({f"version.{name}": version for name, version in installed.items()})
            context = Context(
                self.config, self.root, output, step.ingredients, inputs, self.compute, mlrun, self.console
            )
            module, work_began = stage.load(), time.perf_counter()
            try:
                summary = module.run(context)
            except UsageError:
                output.withdraw()
                raise
            finally:
                self._stages_s += time.perf_counter() - work_began
            mlrun.tags(text_tags(summary))
            mlrun.note(self._note(output, inputs, summary))
            mlrun.flush()
            output.finish(
                {
                    **facts,
                    "result": summary["result"],
                    "metrics": summary["metrics"],
                    "units": summary["units"],
                    "made_with": summary.get("made_with", {}),
                    "files": digests(output.folder, summary.get("files", ())),
                    "other_files": digests(output.folder, summary.get("other_files", ())),
                    "seconds": round(time.perf_counter() - began, 3),
                    "finished": _now(),
                    "versions": installed,
                    "mlflow_run_id": mlrun.id,
                }
            )

    def _note(self, output: Output, inputs: dict[str, Output], summary: dict[str, Any]) -> str:
        rows = [
            {
                "stage": name,
                "state": "input",
                **{k: (output.record or {}).get(k, "") for k in ("key", "result", "mlflow_run_id")},
            }
            for name, output in inputs.items()
        ]
        used = lineage_note(rows, self.tracker.experiment_id) if rows else "It reads no other stage."
        return f"**{output.stage}**: {summary['result']}\n\nOutput: `{output.folder.where()}`\n\n{used}"


def _making_of(inputs: dict[str, Output]) -> dict[str, str]:
    """Which making each input is."""
    return {name: (output.record or {}).get("made", "") for name, output in inputs.items()}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
