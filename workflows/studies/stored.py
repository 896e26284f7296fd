"""Comparisons that are stored under a root, and which outputs they refer to."""

import json
from pathlib import Path
from typing import Any

from workflows.config import UsageError
from workflows.studies.comparison import COMPARE, folder
from workflows.studies.summary import SUMMARY


def names(root: Path) -> list[str]:
    return sorted(path.parent.name for path in (root / COMPARE).glob(f"*/{SUMMARY}"))


def outputs(root: Path) -> set[tuple[str, str]]:
    """Stage and key of what their runs have made, or have begun."""
    runs = [run for one in summaries(root) for run in one["runs"]]
    return {(run.get("baseline") or stage, run[f"{stage}_key"]) for run in runs for stage in ("train", "evaluate")}


def summaries(root: Path) -> list[dict[str, Any]]:
    """All of them, by name."""
    return [summary(root, name) for name in names(root)]


def summary(root: Path, name: str) -> dict[str, Any]:
    """What a comparison came to, as far as it was made. UsageError where that cannot be read."""
    where = folder(root, name)
    try:
        return json.loads(where.read(SUMMARY))
    except ValueError as error:
        raise UsageError(
            f"{where.where(SUMMARY)} is damaged ({error}): the command that made it writes it anew"
        ) from None
