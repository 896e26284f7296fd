"""What a claim's runs are made of, as far as results depend on it: what says whether evidence is of today's setup.

Seeds are no part of it: more of them make the same claim's interval smaller. Nor is the place of the data.
"""

from collections.abc import Iterable
from typing import Any

from workflows.config import digest, keys, select
from workflows.engine.stage import Stage
from workflows.studies.arms import SEEDS
from workflows.studies.comparison import Comparison, Member
from workflows.workflow import STAGES

MOST_NAMED = 3  # of differences, in a line
PLACES = ("ingest.source",)


def made_of(comparison: Comparison) -> dict[str, Any]:
    """As JSON values: the stages' versions, the keys that all arms have alike, and those of each arm."""
    first = comparison.members[: len(comparison.arms)]
    arms = {member.arm.name: _read(member.config, _stages(member)) for member in first}
    one, *others = arms.values()
    common = {key: value for key, value in one.items() if all(key in arm and arm[key] == value for arm in others)}
    return {
        "versions": {stage.name: stage.version for stage in _stages(*first)},
        "common": common,
        "arms": {name: {k: v for k, v in arm.items() if k not in common} for name, arm in arms.items()},
    }


def _stages(*members: Member) -> list[Stage]:
    """Those that make any of these runs."""
    return [stage for stage in STAGES if any(stage.name in member.stages for member in members)]


def _read(config: Any, stages: Iterable[Stage]) -> dict[str, Any]:
    """The keys that the stages read, and the names of the models and lists that they take."""
    found: dict[str, Any] = {}
    for stage in stages:
        found |= select(config, stage.reads + stage.by_content, stage.ignores)
    return {key: value for key, value in found.items() if key not in (*SEEDS, *PLACES)}


def digest_of(made: dict[str, Any]) -> str:
    return digest(made)[:16]


def differences(then: dict[str, Any], now: dict[str, Any]) -> str:
    """What differs between evidence and the claim's setup of today, in words; empty where nothing does.

    A key that evidence does not know yet had its default then.
    """
    defaults = {
        name: list(key.default) if isinstance(key.default, tuple) else key.default for name, key in keys().items()
    }
    found = [
        f"{stage} was version {then['versions'].get(stage, 'none')}, is {version} now"
        for stage, version in now["versions"].items()
        if then["versions"].get(stage) != version
    ]
    if then["arms"].keys() != now["arms"].keys():
        return "; ".join([*found, f"its arms were {', '.join(then['arms'])}"])
    for arm in now["arms"]:
        old, new = ({**made["common"], **made["arms"][arm]} for made in (then, now))
        old = {key: default for key, default in defaults.items() if key in new} | old
        found += [
            f"{key} was {_said(old[key])}, the claim says {_said(new.get(key, ''))}"
            for key in sorted(old)
            if old[key] != new.get(key)
        ]
    found = list(dict.fromkeys(found))
    more = [f"{len(found) - MOST_NAMED} more"] if len(found) > MOST_NAMED else []
    return "; ".join([*found[:MOST_NAMED], *more])


def _said(value: Any) -> str:
    return "none" if value in ("", []) else str(value)
