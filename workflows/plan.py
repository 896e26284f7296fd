"""What would run, and why: each stage's key, whether its output is there, and what differs from the one before.

Nothing runs here, and nothing heavy is imported: a fully cached workflow ends with this.
"""

import contextlib
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from workflows.config import RunConfig
from workflows.stage import RECORD, Output, Stage, key_of, output_of

State = Literal["CACHED", "STALE", "PARTIAL", "MISSING"]


@dataclass(frozen=True)
class Planned:
    """A stage, where its output belongs, and whether it is there.

    Attributes:
        state: CACHED: finished. PARTIAL: begun. STALE: finished for other ingredients. MISSING: never run.
        reasons: For PARTIAL that it was begun (`predict.left` counts), for STALE what differs, old and new.
        last: The record of the newest finished output of this stage, this one's if it is CACHED.
    """

    stage: Stage
    output: Output
    ingredients: dict[str, Any]
    state: State
    reasons: tuple[str, ...]
    last: dict[str, Any] | None


@contextlib.contextmanager
def seen_sources(root: Path) -> Iterator[Path]:
    """Where listings of the source are kept: the root, or a passing folder where there is no root."""
    if root.is_dir():
        yield root
    else:
        with tempfile.TemporaryDirectory() as passing:
            yield Path(passing)


def plan(stages: tuple[Stage, ...], config: RunConfig, root: Path, seen: Path | None = None) -> list[Planned]:
    """The stages in order, with their keys and states.

    Args:
        seen: Where listings of the source are kept, if not in the root (see `seen_sources`).

    Raises:
        ValueError: An input of the workflow, such as the source, cannot be identified.
    """
    keys: dict[str, str] = {}
    planned = []
    for stage in stages:
        identity = stage.identity(config, seen or root) if stage.identity else {}
        ingredients = stage.ingredients(config, identity, {name: keys[name] for name in stage.needs})
        keys[stage.name] = key_of(stage, ingredients)
        planned.append(_planned(stage, ingredients, output_of(stage.name, keys[stage.name], config, root), root))
    return planned


def finished(stage: str, root: Path) -> list[dict[str, Any]]:
    """Records of all finished outputs of a stage, the newest first."""
    records = [json.loads(path.read_text()) for path in (root / stage).glob(f"*/{RECORD}")]
    return sorted(records, key=lambda record: record["finished"], reverse=True)


def _planned(stage: Stage, ingredients: dict[str, Any], output: Output, root: Path) -> Planned:
    if record := output.record:
        return Planned(stage, output, ingredients, "CACHED", (), record)
    before = next(iter(finished(stage.name, root)), None)
    if output.folder.is_dir() and any(output.folder.iterdir()):
        return Planned(stage, output, ingredients, "PARTIAL", ("begun, not finished",), before)
    if before:
        return Planned(stage, output, ingredients, "STALE", differences(before["ingredients"], ingredients), before)
    return Planned(stage, output, ingredients, "MISSING", (), None)


def differences(old: dict[str, Any], new: dict[str, Any]) -> tuple[str, ...]:
    """The ingredients that differ, as `key: old -> new`."""
    names = list(dict.fromkeys([*new, *old]))
    return tuple(
        f"{name}: {_short(old.get(name))} -> {_short(new.get(name))}"
        for name in names
        if old.get(name) != new.get(name)
    )


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 40 else f"{text[:16]}…"
