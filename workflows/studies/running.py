"""Runs what a comparison lacks, run by run, and keeps its results up to date; what fails does not end the others."""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from workflows import failures
from workflows.compute import devices
from workflows.compute.workers import Compute, OnDeath, OnReport, Resources, WorkerPlan
from workflows.config import RunConfig, digest
from workflows.console import Console
from workflows.engine import run as running
from workflows.engine.plan import Planned
from workflows.studies import page, parallel, results, stored, tracked
from workflows.studies.comparison import SHARED, Comparison, Member, Plans, require_different
from workflows.studies.parallel import Order
from workflows.studies.results import Result
from workflows.studies.summary import SUMMARY, summarise
from workflows.workflow import STAGES

SHOWN = "shown.json"  # which summary the page and MLflow show


class Joined(Compute, Protocol):
    """Something to run on that other processes may join."""

    def join(self) -> str: ...


Check = Callable[[dict[Member, dict[str, Planned]]], None]


@dataclass(frozen=True)
class How:
    """How the runs are made.

    Attributes:
        compute: What work is run on, for a configuration; it is started once for all runs.
        check: Refuses what is planned, before anything runs, with a UsageError.
        command: The command line that goes on with the comparison, for who looks at it later.
        jobs: How many runs may be made at once, where there is room for so many trainings.
        also: Keeps what else is made of a summary; MLflow gets those files with it.
    """

    console: Console
    compute: Callable[[RunConfig, Console], Joined]
    check: Check = lambda planned: None
    take_lock: bool = False
    command: str = ""
    jobs: int = 1
    debug: bool = False
    also: Callable[[dict[str, Any]], list[Path]] = lambda summary: []


def compare(comparison: Comparison, root: Path, how: How) -> dict[str, Any]:
    """Runs what is missing and returns the summary; all of it lies in `<root>/compare/NAME/` then.

    Raises:
        UsageError: A run cannot be what it is asked to be; nothing has run.
    """
    compute = how.compute(comparison.base, how.console)
    with closing(compute):
        study = _Study(comparison, root, how, compute)
        study.make_shared()
        study.make_runs()
        return study.conclude()


class _Lent:
    """Something to run on that outlives the run that closes it."""

    def __init__(self, compute: Compute):
        self._compute = compute

    def resources(self) -> Resources:
        return self._compute.resources()

    def map(
        self, function: Callable, items: Iterable, num_gpus: int = 0, num_cpus: int = 1, keep_processes: bool = False
    ) -> Iterator:
        return self._compute.map(function, items, num_gpus, num_cpus, keep_processes)

    def train(
        self, loop: Any, job: Any, plan: WorkerPlan, on_report: OnReport, on_death: OnDeath = lambda who: None
    ) -> Any:
        return self._compute.train(loop, job, plan, on_report, on_death)

    def close(self) -> None:
        pass


class _Study:
    """A comparison while it is made: what is known of each run so far."""

    def __init__(self, comparison: Comparison, root: Path, how: How, compute: Joined):
        self.comparison, self.root, self.how, self.compute = comparison, root, how, compute
        self.folder = comparison.folder(root)
        self.failures: dict[Member, str] = {}
        self.results: dict[Member, Result] = {}
        plans = Plans(root, compute.map)
        planned = {member: plans.of(member) for member in comparison.members}
        require_different(planned)
        how.check(planned)
        self._tell_of_another()

    def _tell_of_another(self) -> None:
        """That a comparison of this name had other arms; its runs stay, and may be compared under another name."""
        root, name = self.root, self.comparison.name
        before = stored.summary(root, name)["arms"] if name in stored.names(root) else []
        mine = {arm.name: arm.settings for arm in self.comparison.arms}
        if before and {arm["name"]: arm["settings"] for arm in before} != mine:
            self.how.console.say(f"comparison {name} had other arms: these take its place; --name keeps both")

    def make_shared(self) -> None:
        """Ingest and stats, once for all that share them: an error here would be every run's, and is raised."""
        networks_last = sorted(self.comparison.members, key=lambda member: "stats" in member.stages)
        for member in {member.config.ingest: member for member in networks_last}.values():
            self._run(member, tuple(name for name in SHARED if name in member.stages))
        self._look_again(*self.comparison.members)

    def make_runs(self) -> None:
        """Each of those that are not done; the results are kept whenever another one is."""
        self._keep()
        due = [member for member, found in self.results.items() if not found.is_done]
        at_once = self._at_once(due)
        for member, reason in self._several(due, at_once) if at_once > 1 else self._each(due):
            if reason:
                self.failures[member] = reason
                self.how.console.say(f"  failed: {member.title}: {reason}")
            self._look_again(member)
            self._keep()

    def _at_once(self, due: list[Member]) -> int:
        wanted = min(self.how.jobs, len(due))
        if wanted < 2:
            return 1
        at_once = min(wanted, parallel.room(due, self.compute.resources(), devices.torch_cuda()))
        if at_once < wanted:
            room = "for one training: one after the other" if at_once == 1 else f"for {at_once} trainings at once"
            self.how.console.say(f"there is room {room}")
        return at_once

    def _each(self, due: list[Member]) -> Iterator[tuple[Member, str]]:
        """Each when it is done, one after the other, with the reason where it failed."""
        for number, member in enumerate(due, 1):
            self.how.console.say(f"run {number} of {len(due)}: {member.title}")
            reason = ""
            try:
                self._run(member, _of_its_own(member))
            except Exception as error:  # whatever it was: the other runs know nothing of it
                reason = failures.line(error)
                for line in failures.keep_trace(error, self.root):
                    self.how.console.say(f"  {line}")
            yield member, reason

    def _several(self, due: list[Member], at_once: int) -> Iterator[tuple[Member, str]]:
        self.how.console.say(f"{len(due)} runs, {at_once} at once")
        address = self.compute.join()
        orders = [(member, self._order(member, address, at_once)) for member in due]
        return parallel.run_all(orders, self.how.console.say)

    def _order(self, member: Member, address: str, at_once: int) -> Order:
        config = replace(member.config, ray=replace(member.config.ray, address=address))
        return Order(
            config, self.root, _of_its_own(member), self.comparison.base, self.how.take_lock, at_once, self.how.debug
        )

    def conclude(self) -> dict[str, Any]:
        """The page, and the comparison's run in MLflow, unless they show these results already."""
        found, summary = list(self.results.values()), self._summary()
        files = self.how.also(summary)
        now = json.dumps({"summary": digest({**summary, "command": ""})})
        if self.folder.size(SHOWN) is None or self.folder.read(SHOWN).decode() != now:
            page.write(self.comparison, found, summary, self.folder)
            if any(one.is_done for one in found):
                tracked.track(self.comparison, found, summary, self.root, self.how.console.say, files)
            self.folder.write(SHOWN, now)
        return summary

    def _run(self, member: Member, stages: tuple[str, ...]) -> None:
        running.run(
            STAGES,
            member.config,
            self.root,
            only=stages,
            take_lock=self.how.take_lock,
            console=self.how.console,
            compute=lambda config, console: _Lent(self.compute),
            remembered=self.comparison.base,
        )

    def _look_again(self, *members: Member) -> None:
        self.results |= results.look(members, self.root, self.failures, self.compute.map)

    def _summary(self) -> dict[str, Any]:
        return summarise(self.comparison, list(self.results.values())) | {"command": self.how.command}

    def _keep(self) -> None:
        """The table and the summary, as far as they go."""
        text = _as_text(self._summary())
        if self.folder.size(SUMMARY) is None or self.folder.read(SUMMARY).decode() != text:
            results.write(self.results.values(), self.folder)
            self.folder.write(SUMMARY, text)


def _of_its_own(member: Member) -> tuple[str, ...]:
    """The stages that its run makes."""
    return tuple(stage for stage in member.stages if stage not in SHARED)


def _as_text(summary: dict[str, Any]) -> str:
    return json.dumps(summary, indent=1, ensure_ascii=False) + "\n"
