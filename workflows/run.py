"""Runs the stages whose output is not there: locked, tracked, recorded; and says how to go on where one fails."""

import platform
import subprocess
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from workflows import config as configuration
from workflows import lock
from workflows.compute import Compute, OnRay
from workflows.config import RunConfig, UsageError
from workflows.console import Console
from workflows.ending import afterwards
from workflows.headline import errors_of, main_params, provenance, text_tags
from workflows.notes import lineage_note
from workflows.plan import Planned, plan
from workflows.stage import Context, Output, Stage, output_of, write_atomically
from workflows.tracker import tracker

LAST = "config.toml"  # in the root: the resolved configuration of the last run
VERSIONS_OF = ("torch", "nvidia-dali-cuda130", "ray", "mlflow", "pyarrow", "pandas", "numpy", "simplejpeg")


@dataclass(frozen=True)
class Row:
    """What became of a stage in this run."""

    stage: str
    state: str  # ran, cached
    key: str
    seconds: float
    result: str
    path: Path
    mlflow_run_id: str


def run(
    stages: tuple[Stage, ...],
    config: RunConfig,
    root: Path,
    *,
    only: Collection[str],
    force: Collection[str] = (),
    console: Console | None = None,
    compute: Callable[[RunConfig, Console], Compute] = lambda config, console: OnRay(config.ray, console.say),
    check: Callable[[list[Planned]], None] = lambda planned: None,
    command: Callable[[str], str] = lambda verb: f"alexnet {verb}",
) -> list[Row]:
    """Run the stages named by `only`, each unless its output is there or it is forced.

    Args:
        check: Refuses what is planned, before anything runs, with a UsageError.
        command: This program's command line with another verb, for messages.

    Raises:
        UsageError: A stage outside `only` is needed and has no finished output; or a lock is held.
    """
    began = time.perf_counter()
    console = console or Console()
    planned = plan(stages, config, root)
    check(planned)
    _check_inputs(planned, only, command)
    workflow = _Workflow(config, root, console, compute(config, console), began)
    status = "FAILED"
    with afterwards(lambda: workflow.close(status)):
        try:
            for step in planned:
                if step.stage.name in only:
                    workflow.advance(step, force=step.stage.name in force)
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

    def __init__(self, config: RunConfig, root: Path, console: Console, compute: Compute, began: float):
        self.config, self.root, self.console, self.compute = config, root, console, compute
        self.tracker = tracker(config.tracking, root, console.say)
        self.rows: list[Row] = []
        self._began, self._stages_s = began, 0.0
        self._remembered = False
        self._errors: dict[str, float] = {}  # of the network, as far as this workflow knows them

    def advance(self, step: Planned, force: bool) -> None:
        """One stage: from what is stored, or run under its lock. Forced, a finished output is made again."""
        name, key = step.stage.name, step.output.key
        record = step.output.record
        if record is None or force:
            with lock.held(self.root / name / ".lock", force, uses=_input_keys(step)):
                record = output_of(name, key, self.config, self.root).record  # finished by another while we waited?
                if record is None or force:
                    self._row(self._execute(step), "ran")
                    return
        self._row(record, "cached")

    def remember(self) -> None:
        """The configuration becomes the one that a later command need not be told; not that of a refused run."""
        if not self._remembered:
            write_atomically(self.root / LAST, configuration.dump(self.config))
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

    def _row(self, record: dict[str, Any], state: str) -> None:
        self._errors |= errors_of(record)
        self.rows.append(
            Row(
                record["stage"],
                state,
                record["key"],
                record["seconds"],
                record["result"],
                self.root / record["stage"] / record["key"],
                record["mlflow_run_id"],
            )
        )

    def _execute(self, step: Planned) -> dict[str, Any]:
        stage, keys = step.stage, _input_keys(step)
        inputs = {name: output_of(name, key, self.config, self.root) for name, key in keys.items()}
        started, began = _now(), time.perf_counter()
        commit = code_commit()
        shared = {"alexnet.recipe": self.config.recipe, **provenance(commit)}
        self.tracker.begin_workflow(f"{self.config.recipe}-{started[:19]}", shared, main_params(self.config))
        output = self._emptied(output_of(stage.name, step.output.key, self.config, self.root))
        self.remember()
        output.folder.mkdir(parents=True, exist_ok=True)
        self.console.say(f"{stage.name}  {output.key}")
        tags = {"alexnet.stage": stage.name, "alexnet.key": output.key, **shared}
        with self.tracker.stage(stage.name, tags) as mlrun:
            mlrun.params(step.ingredients)
            mlrun.tags({f"version.{name}": version for name, version in versions().items()})
            context = Context(self.config, self.root, output, inputs, self.compute, mlrun, self.console)
            module, work_began = stage.load(), time.perf_counter()
            try:
                summary = module.run(context)
            finally:
                self._stages_s += time.perf_counter() - work_began
            mlrun.tags(text_tags(summary))
            mlrun.note(self._note(output, inputs, summary))
            record = {
                "stage": stage.name,
                "key": output.key,
                "ingredients": step.ingredients,
                "inputs": keys,
                "result": summary["result"],
                "metrics": summary["metrics"],
                "units": summary["units"],
                "seconds": round(time.perf_counter() - began, 3),
                "started": started,
                "finished": _now(),
                "commit": commit,
                "versions": versions(),
                "mlflow_run_id": mlrun.id,
            }
            mlrun.flush()
            output.finish(record)
        return record

    def _emptied(self, output: Output) -> Output:
        """Where to make the output: what is begun there is kept, what is finished is made again."""
        if output.record is None:
            return output
        if (output.stage, output.key) in lock.in_use(self.root):
            raise UsageError(f"a stage that is being run reads {output.stage} {output.key}: wait for it, or stop it")
        output.delete()
        return output_of(output.stage, output.key, self.config, self.root)

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
        return f"**{output.stage}**: {summary['result']}\n\nOutput: `{output.folder}`\n\n{used}"


def _input_keys(step: Planned) -> dict[str, str]:
    return {name: step.ingredients[f"input.{name}"] for name in step.stage.needs}


def versions() -> dict[str, str]:
    """Versions of Python and of what the results come from."""
    found = {"python": platform.python_version()}
    for name in VERSIONS_OF:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


def code_commit() -> str:
    """The commit of this code, `+changes` where files differ from it; `unknown` outside a checkout."""
    here = Path(__file__).parent
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True)
        changed = subprocess.run(
            ["git", "status", "--porcelain", "-uno"], cwd=here, capture_output=True, text=True, check=True
        )
    except (subprocess.CalledProcessError, FileNotFoundError):
        return "unknown"
    return head.stdout.strip() + ("+changes" if changed.stdout.strip() else "")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
