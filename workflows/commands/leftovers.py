"""What may go: outputs left half done, unfinished files, locks of the dead; finished outputs where they are asked for.

What the last configuration, a comparison or any output refers to stays, and so does what a process at work makes or
reads. Finished outputs in a store go by name alone: other roots may need them, and nobody knows these.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.storage import Folder
from workflows.config import RunConfig, UsageError
from workflows.engine import lock
from workflows.engine.outputs import Output, Places
from workflows.engine.plan import Planned
from workflows.studies.stored import outputs as compared


@dataclass(frozen=True)
class Wanted:
    """What is asked to go, beside the locks of the dead.

    Attributes:
        named: Outputs, as STAGE/KEY.
        finished: Whether finished outputs in the root that nothing needs go.
        older_than_s: How long ago what is half done must have been written last.
    """

    named: tuple[str, ...] = ()
    finished: bool = False
    older_than_s: float = 24 * 3600


@dataclass(frozen=True)
class Leftover:
    """Something that may be removed, and why: a whole folder, or one file in it."""

    folder: Folder
    why: str
    num_bytes: int
    file: str = ""
    output: Output | None = None

    @property
    def where(self) -> str:
        return self.folder.where(self.file)

    def remove(self) -> None:
        if self.output:
            self.output.delete()
        else:
            self.folder.delete(self.file)


def leftovers(planned: list[Planned], config: RunConfig, places: Places, wanted: Wanted) -> list[Leftover]:
    """All that may go.

    Raises:
        UsageError: A named output is not there, or is in use.
    """
    stages = [step.stage.name for step in planned]
    outputs = [output for stage in stages for output in places.outputs(stage)]
    busy, needed = lock.in_use(places), _needed(planned, config, places)
    _check_names(wanted.named, outputs, busy)
    found = [
        Leftover(output.folder, why, sum(entry.size for entry in output.folder.walk()), output=output)
        for output in outputs
        if (output.stage, output.key) not in busy and (why := _why(output, needed, wanted, _is_own(output, places)))
    ]
    dead = [lease for lease in lock.leases(places) if lease.is_dead()]
    found += [Leftover(lease.folder, "lock of a dead process", 0, lease.name) for lease in dead]
    gone = tuple(f"{leftover.folder.url}/" for leftover in found if leftover.output)
    return found + [part for part in _partial_files(places, wanted.older_than_s) if not part.where.startswith(gone)]


def in_stores(planned: list[Planned], places: Places) -> int:
    """How many finished outputs there are that other roots may need, too."""
    outputs = (output for step in planned for output in places.outputs(step.stage.name))
    return sum(bool(output.record) and not _is_own(output, places) for output in outputs)


def _is_own(output: Output, places: Places) -> bool:
    """Whether it lies in the root, where no other root looks."""
    return output.folder.url.startswith(f"{Folder.at(places.root).url}/")


def _why(output: Output, needed: set[tuple[str, str]], wanted: Wanted, is_own: bool) -> str:
    """Why it may go; nothing if it may not."""
    if f"{output.stage}/{output.key}" in wanted.named:
        return "named"
    if (output.stage, output.key) in needed:
        return ""
    if output.record:
        return "nothing refers to it" if wanted.finished and is_own else ""
    if output.damage:
        return "its record is damaged" if wanted.finished else ""
    return "begun, never finished" if _age_s(output.folder) >= wanted.older_than_s else ""


def _needed(planned: list[Planned], config: RunConfig, places: Places) -> set[tuple[str, str]]:
    """What is planned or compared, the newest of each stage, models that trainings start from, and what made them."""
    first = {(step.stage.name, step.output.key) for step in planned} | compared(places.root)
    starts = {config.train.init_from}
    for step in planned:
        first |= {(step.stage.name, record["key"]) for _, record in places.finished(step.stage.name)[:1]}
        starts |= {_init_from(facts) for facts in places.begun(step.stage.name)}
    roots = tuple(start for start in starts if start)
    first |= {
        (output.stage, output.key)
        for step in planned
        for output in places.outputs(step.stage.name)
        if any(_is_inside(start, output.folder) for start in roots)
    }
    return set().union(first, *(_made_from(stage, key, places) for stage, key in first))


def _init_from(facts: dict[str, Any]) -> str:
    return facts.get("facts", {}).get("init_from") or facts.get("ignored", {}).get("train.init_from", "")


def _is_inside(path: str, folder: Folder) -> bool:
    return folder.is_local and Path(path).resolve().is_relative_to(folder.local_path().resolve())


def _made_from(stage: str, key: str, places: Places) -> set[tuple[str, str]]:
    output = places.output(stage, key)
    inputs = (output.record or output.begun).get("inputs", {})
    return set(inputs.items()).union(*(_made_from(name, used, places) for name, used in inputs.items()))


def _age_s(folder: Folder) -> float:
    """Since the last file in it was written."""
    times = [entry.mtime_ns for entry in folder.walk()]
    if not times and folder.is_local:
        times = [folder.local_path().stat().st_mtime_ns]
    return time.time() - max(times, default=0) / 1e9


def _partial_files(places: Places, older_than_s: float) -> Iterator[Leftover]:
    for folder in {Folder.at(places.root), places.main}:
        for name in folder.stale_temporaries() if folder.is_local and folder.exists() else ():
            stat = (folder.local_path() / name).stat()
            if time.time() - stat.st_mtime >= older_than_s:
                yield Leftover(folder, "partial file", stat.st_size, name)


def _check_names(named: tuple[str, ...], outputs: list[Output], busy: set[tuple[str, str]]) -> None:
    known = {f"{output.stage}/{output.key}" for output in outputs}
    for name in named:
        if name not in known:
            raise UsageError(f"{name} is no output here; name STAGE/KEY, as `alexnet status` shows them")
        if tuple(name.split("/")) in busy:
            raise UsageError(f"{name} is in use by a process at work: wait for it, or stop it")
