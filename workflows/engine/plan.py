"""What would run, and why: each stage's key, whether its output is there, and what differs from the one before.

Nothing runs here, and nothing heavy is imported: a fully cached workflow ends with this.
"""

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from workflows.config import RunConfig, keys
from workflows.engine.outputs import Output, Places
from workflows.engine.stage import Seen, Stage, key_of

_MEANING = {"version": " (of the stage: its files or results are others now)"}
if TYPE_CHECKING:
    from pipelines.sources.cache import InTasks

State = Literal["CACHED", "STALE", "PARTIAL", "MISSING"]


@dataclass(frozen=True)
class Planned:
    """A stage, where its output is or belongs, and whether it is there.

    Attributes:
        state: CACHED: finished. PARTIAL: begun. STALE: finished for other ingredients, or from inputs that were made
            again since. MISSING: never run.
        reasons: For PARTIAL that it was begun (`predict.left` counts), for STALE what differs, old and new.
        last: The record of the newest finished output of this stage, this one's if it is CACHED; {} where none is.
        outdated: There is an output of this key that cannot be used: it is made again, beside the old one.
        inputs_made: Which making of each input it reads; None for one that is still to be made.
    """

    stage: Stage
    output: Output
    ingredients: dict[str, Any]
    seen: Seen
    state: State
    reasons: tuple[str, ...]
    last: dict[str, Any]
    outdated: bool = False
    inputs_made: dict[str, str | None] | None = None

    @property
    def input_keys(self) -> dict[str, str]:
        return {name: self.ingredients[f"input.{name}"] for name in self.stage.needs}

    @property
    def made(self) -> str | None:
        """Which making its output is, or will be if what is begun is finished; None where it is made anew."""
        if self.state == "CACHED":
            return self.last.get("made", "")
        return None if self.state != "PARTIAL" or self.outdated else self.output.begun.get("made")


def plan(
    stages: tuple[Stage, ...],
    config: RunConfig,
    places: Places,
    *,
    anew: bool = False,
    redo: Collection[str] = (),
    in_tasks: "InTasks" = map,
) -> list[Planned]:
    """The stages in order, with their keys and states.

    Args:
        anew: Whether to look at the source as it is now, not as it was last ingested.
        in_tasks: Maps over archives that are long work to look at.
        redo: Stages to make again whatever is there.

    Raises:
        UsageError: What the workflow starts from, such as the source, cannot be identified.
    """
    planned: dict[str, Planned] = {}
    for stage in stages:
        seen = stage.see(config, places, anew, in_tasks) if stage.see else Seen()
        inputs = [planned[name] for name in stage.needs]
        ingredients = stage.ingredients(config, seen.identity, {step.stage.name: step.output.key for step in inputs})
        output, ingredients = _find(stage, ingredients, places)
        planned[stage.name] = _planned(stage, output, ingredients, seen, inputs, stage.name in redo, places)
    return list(planned.values())


def _find(stage: Stage, ingredients: dict[str, Any], places: Places) -> tuple[Output, dict[str, Any]]:
    """The output of these ingredients; also one of a time when some configuration key did not exist yet."""
    output = places.output(stage.name, key_of(stage, ingredients))
    if output.exists:
        return output, ingredients
    for facts in places.begun(stage.name):
        if _are_same(facts["ingredients"], ingredients):
            return places.output(stage.name, facts["key"]), facts["ingredients"]
    return output, ingredients


def _are_same(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Whether they differ at most in keys that the old ones lack and that have their default now."""
    known = keys()
    added = {name: known[name].default for name in new.keys() - old.keys() if name in known}
    return {**_as_json(added), **old} == new


def _planned(
    stage: Stage,
    output: Output,
    ingredients: dict[str, Any],
    seen: Seen,
    inputs: list[Planned],
    redo: bool,
    places: Places,
) -> Planned:
    made = {step.stage.name: step.made for step in inputs}
    record, exists = output.record, output.exists
    again = ("asked for",) if redo else _made_again(record or output.begun, made)
    outdated = bool(exists and again)
    common = (stage, output, ingredients, seen)
    if record:
        return Planned(*common, "STALE" if outdated else "CACHED", again if outdated else (), record, outdated, made)
    before = next((record for _, record in places.finished(stage.name)), {})
    if exists:
        reasons = again or (output.damage or "begun, not finished",)
        return Planned(*common, "STALE" if outdated else "PARTIAL", reasons, before, outdated, made)
    if before:
        return Planned(*common, "STALE", differences(before["ingredients"], ingredients), before, False, made)
    return Planned(*common, "MISSING", (), before, False, made)


def _made_again(facts: dict[str, Any], made: dict[str, str | None]) -> tuple[str, ...]:
    """The inputs that are other makings, of the same keys, than those that an output was made from."""
    was = facts.get("inputs_made", {})
    return tuple(
        f"{name} {'is to be' if now is None else 'was'} made again"
        for name, now in made.items()
        if facts and was.get(name, "") != now
    )


def differences(old: dict[str, Any], new: dict[str, Any]) -> tuple[str, ...]:
    """The ingredients that differ, as `key: old -> new`; of networks of two kinds, not what one kind alone has."""
    kinds = {of.get("net.kind", "alexnet").partition(":")[0] for of in (old, new)}
    names = list(dict.fromkeys([*new, *old]))
    return tuple(
        f"{name}: {_short(old.get(name))} -> {_short(new.get(name))}{_MEANING.get(name, '')}"
        for name in names
        if old.get(name) != new.get(name)
        and (len(kinds) == 1 or name == "net.kind" or not name.startswith("net.") or name in old.keys() & new.keys())
    )


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 40 else f"{text[:16]}…"


def _as_json(values: dict[str, Any]) -> dict[str, Any]:
    """With lists for tuples, as records have them."""
    return json.loads(json.dumps(values))
