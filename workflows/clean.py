"""What may go: outputs that nothing newest uses, unfinished files of dead processes, and locks of the dead."""

import json
from dataclasses import dataclass
from pathlib import Path

from pipelines.storage import Folder
from workflows import lock
from workflows.config import RunConfig
from workflows.plan import Planned, finished
from workflows.stage import RECORD, Output, output_of


@dataclass(frozen=True)
class Leftover:
    """Something that may be removed, and why."""

    path: Path
    why: str
    num_bytes: int
    output: Output | None = None  # with its shards or checkpoints, wherever they are

    def remove(self) -> None:
        if self.output is not None:
            self.output.delete()
        else:
            self.path.unlink(missing_ok=True)


def leftovers(planned: list[Planned], config: RunConfig, root: Path) -> list[Leftover]:
    """All that may go, for a workflow whose newest outputs, current plan and stages at work are to stay."""
    keep = {(step.stage.name, step.output.key) for step in planned}
    keep = keep.union(*(_with_inputs(stage, key, root) for stage, key in lock.in_use(root)))
    for step in planned:
        for record in finished(step.stage.name, root)[:1]:
            keep |= _with_inputs(step.stage.name, record["key"], root)
    found = []
    for step in planned:
        if _is_busy(root / step.stage.name / ".lock"):
            continue
        for folder in sorted(path for path in (root / step.stage.name).glob("*") if path.is_dir()):
            if (step.stage.name, folder.name) not in keep:
                why = "nothing newest uses it" if (folder / RECORD).exists() else "begun, never finished"
                output = output_of(step.stage.name, folder.name, config, root)
                found.append(Leftover(folder, why, _bytes(output), output))
    found += [Leftover(p, "lock of a dead process", 0) for p in sorted(root.glob("*/.lock")) if lock.is_dead(p)]
    partial = Folder.at(root).stale_temporaries() if root.is_dir() else []
    inside = tuple(f"{leftover.path}/" for leftover in found)
    paths = [root / name for name in partial if not str(root / name).startswith(inside or ("\0",))]
    return found + [Leftover(path, "partial file", path.stat().st_size) for path in paths]


def _with_inputs(stage: str, key: str, root: Path) -> set[tuple[str, str]]:
    """An output and all that it was made from."""
    try:
        record = json.loads((root / stage / key / RECORD).read_text())
    except FileNotFoundError:
        return {(stage, key)}
    return {(stage, key)}.union(*(_with_inputs(name, used, root) for name, used in record["inputs"].items()))


def _is_busy(path: Path) -> bool:
    return path.exists() and not lock.is_dead(path)


def _bytes(output: Output) -> int:
    places = {Folder.at(output.folder), output.store}
    return sum(entry.size for place in places for entry in place.walk())
