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
from workflows.plan import Planned, plan
from workflows.stage import Context, Output, Stage, output_of, write_atomically
from workflows.tracking import lineage_note, tracker

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
    try:
        for step in planned:
            if step.stage.name in only:
                workflow.advance(step, force=step.stage.name in force)
        workflow.remember()
        status = "FINISHED"
    except (KeyboardInterrupt, SystemExit):
        status = "KILLED"
        raise
    finally:
        workflow.close(status)
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
        self.tracker = tracker(config.tracking, root)
        self.rows: list[Row] = []
        self._began, self._stages_s = began, 0.0
        self._remembered = False

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
        try:
            if self.tracker.parent is not None:
                rows = [vars(row) for row in self.rows]
                self.tracker.parent.note(lineage_note(rows, self.tracker.experiment_id))
                self._report_overhead()
            self.tracker.end_workflow(status)
        finally:
            self.compute.close()

    def _report_overhead(self) -> None:
        """What the workflow itself took, besides its stages' work (in which Ray starts)."""
        whole_s = time.perf_counter() - self._began
        overhead_s = whole_s - self._stages_s
        self.tracker.parent.metrics({"workflow_s": whole_s, "overhead_s": overhead_s})
        self.console.say(f"{overhead_s:.1f} s of {whole_s:.1f} s went into planning, locks, tracking and imports")

    def _row(self, record: dict[str, Any], state: str) -> None:
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
        self.tracker.begin_workflow(f"{self.config.recipe}-{started[:19]}", {"alexnet.recipe": self.config.recipe})
        output = self._emptied(output_of(stage.name, step.output.key, self.config, self.root))
        self.remember()
        output.folder.mkdir(parents=True, exist_ok=True)
        self.console.say(f"{stage.name}  {output.key}")
        commit = code_commit()
        tags = {"alexnet.stage": stage.name, "alexnet.key": output.key, "alexnet.commit": commit}
        with self.tracker.stage(stage.name, {**tags, "alexnet.recipe": self.config.recipe}) as mlrun:
            mlrun.params(step.ingredients)
            mlrun.tags({f"version.{name}": version for name, version in versions().items()})
            context = Context(self.config, self.root, output, inputs, self.compute, mlrun, self.console)
            module, work_began = stage.load(), time.perf_counter()
            try:
                summary = module.run(context)
            finally:
                self._stages_s += time.perf_counter() - work_began
            mlrun.metrics({name: v for name, v in summary["metrics"].items() if isinstance(v, int | float)})
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
