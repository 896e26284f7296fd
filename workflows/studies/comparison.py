"""A comparison as a value: arms, seeds and the configuration that they share; each arm and seed is an ordinary run.

An arm is a network, trained and evaluated, or a baseline, whose one stage does both.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from pipelines.storage import Folder
from workflows import config as configuration
from workflows.config import RunConfig, UsageError
from workflows.engine import plan as planning
from workflows.engine.outputs import Output, Places, places
from workflows.engine.plan import Planned
from workflows.engine.stage import Seen, Stage
from workflows.studies.arms import Arm
from workflows.workflow import NAMES, STAGES, needed_by

COMPARE = "compare"  # folder in the root
UNTIL_EVALUATE = NAMES[: NAMES.index("evaluate") + 1]
SHARED = ("ingest", "stats")  # what arms share unless they vary the data


@dataclass(frozen=True)
class Member:
    """One run of a comparison, and the stages that it is made of."""

    arm: Arm
    seed: int
    config: RunConfig
    stages: tuple[str, ...] = UNTIL_EVALUATE

    @property
    def title(self) -> str:
        return f"{self.arm.name}, seed {self.seed}"

    @property
    def trained_by(self) -> str:
        """The stage that learns."""
        return self.arm.baseline or "train"

    @property
    def evaluated_by(self) -> str:
        """The stage with the errors and the predictions."""
        return self.arm.baseline or "evaluate"


@dataclass(frozen=True)
class Comparison:
    """Arms over a base configuration, each with the same seeds. All paths of the base are absolute.

    Attributes:
        also: Optional stages that each network's run makes too.
    """

    name: str
    base: RunConfig
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    also: tuple[str, ...] = ()

    def stages(self, arm: Arm) -> tuple[str, ...]:
        """Of each of its runs, in the workflow's order."""
        last = (arm.baseline,) if arm.baseline else ("evaluate", *self.also)
        wanted = {*last}.union(*map(needed_by, last))
        return tuple(name for name in NAMES if name in wanted)

    @cached_property
    def members(self) -> tuple[Member, ...]:
        """All runs, seed by seed, so that the first seed of every arm is there first.

        Raises:
            UsageError: An arm's keys or values do not fit, or two arms are the same.
        """
        base = self._base()
        found = tuple(
            Member(arm, seed, arm.config(base, seed), self.stages(arm)) for seed in self.seeds for arm in self.arms
        )
        found = tuple(replace(m, config=configuration.with_absolute_paths(m.config, Path.cwd())) for m in found)
        known: dict[tuple[RunConfig, str], Arm] = {}
        for member in found[: len(self.arms)]:
            if other := known.setdefault((member.config, member.arm.baseline), member.arm):
                _require_other(other, member.arm, "are the same configuration")
            if member.config.evaluate.models:
                raise UsageError("evaluate.models averages the trained model with others: compare models alone")
        return found

    def _base(self) -> RunConfig:
        """The models of the arms have a name of their own in the registry, unless one was given."""
        given = self.base.tracking.model_name or f"alexnet-{self.name}"
        return replace(self.base, tracking=replace(self.base.tracking, model_name=given))

    def folder(self, root: Path) -> Folder:
        return folder(root, self.name)


def folder(root: Path, name: str) -> Folder:
    """Where a comparison's results lie."""
    return Folder.at(root / COMPARE / name)


def _require_other(one: Arm, other: Arm, what: str) -> None:
    if one != other:
        raise UsageError(f"the arms {one.name} and {other.name} {what}: there is nothing to compare")


class Plans:
    """The plans of members; a source is looked at once for all that read it alike."""

    def __init__(self, root: Path, in_tasks: Callable = map):
        self.root, self._in_tasks = root, in_tasks
        self._seen: dict[object, Seen] = {}
        self._stages = tuple(replace(stage, see=self._once(stage)) for stage in STAGES)

    def of(self, member: Member) -> dict[str, Planned]:
        where = self.places(member)
        stages = tuple(stage for stage in self._stages if stage.name in member.stages)
        steps = planning.plan(stages, member.config, where, in_tasks=self._in_tasks)
        return {step.stage.name: step for step in steps}

    def places(self, member: Member) -> Places:
        return places(member.config, self.root, may_write=False)

    def _once(self, stage: Stage) -> Callable | None:
        if stage.name != "ingest" or stage.see is None:
            return stage.see
        look = stage.see

        def see(config: RunConfig, where: Places, anew: bool, in_tasks: Callable) -> Seen:
            if config.ingest not in self._seen:
                self._seen[config.ingest] = look(config, where, anew, in_tasks)
            return self._seen[config.ingest]

        return see


def require_different(planned: dict[Member, dict[str, Planned]]) -> None:
    """UsageError where two arms are one run, since what they set changes no result."""
    known: dict[tuple[str, str], Member] = {}
    for member, steps in planned.items():
        key = steps[member.evaluated_by].output.key
        other = known.setdefault((key, str(member.seed)), member)
        _require_other(other.arm, member.arm, "differ in nothing that results depend on")


def is_done(steps: dict[str, Planned]) -> bool:
    return all(step.state == "CACHED" for step in steps.values())


def outputs(steps: dict[str, Planned]) -> dict[str, Output]:
    return {name: step.output for name, step in steps.items()}
