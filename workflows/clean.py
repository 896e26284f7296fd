"""What may go: outputs that nothing newest uses, unfinished files of dead processes, and locks of the dead."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from pipelines.storage import Folder
from workflows import lock
from workflows.plan import Planned, finished
from workflows.stage import RECORD


@dataclass(frozen=True)
class Leftover:
    """Something that may be removed, and why."""

    path: Path
    why: str
    num_bytes: int
    store: Folder | None = None  # where the output's shards or checkpoints are, when not under the root

    def remove(self) -> None:
        if self.store is not None:
            self.store.delete_all()
        if self.path.is_dir():
            shutil.rmtree(self.path)
        else:
            self.path.unlink(missing_ok=True)


def leftovers(planned: list[Planned], root: Path) -> list[Leftover]:
    """All that may go, for a workflow whose newest outputs and current plan are to stay."""
    keep = {(step.stage.name, step.output.key) for step in planned}
    for step in planned:
        for record in finished(step.stage.name, root)[:1]:
            keep |= _with_inputs(step.stage.name, record["key"], root)
    found = []
    for step in planned:
        if _is_busy(root / step.stage.name / ".lock"):
            continue
        base = step.output.store if step.output.store.url != str(step.output.folder) else None
        for folder in sorted(path for path in (root / step.stage.name).glob("*") if path.is_dir()):
            if (step.stage.name, folder.name) not in keep:
                why = "nothing newest uses it" if (folder / RECORD).exists() else "begun, never finished"
                store = _sibling(base, folder.name) if base else None
                found.append(Leftover(folder, why, _bytes(folder), store))
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


def _sibling(store: Folder, key: str) -> Folder:
    """The output of another key in the same store."""
    url, question, options = store.url.partition("?")
    return Folder(f"{url.rpartition('/')[0]}/{key}{question}{options}")


def _is_busy(path: Path) -> bool:
    return path.exists() and not lock.is_dead(path)


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
