"""Checkpoints in any folder: written by `model.checkpoint` on a disk, or there first and then sent to an object store.

The record goes last, in both places, so that what a killed process left half sent does not count.
"""

import tempfile
from pathlib import Path

from model import checkpoint
from model.checkpoint import RECORD, TENSORS, Checkpoint, step_of
from pipelines.storage import Folder, writing


def save(folder: Folder, step: int, tensors: dict, scalars: dict, keep: int) -> None:
    """Writes a checkpoint, then deletes all but the newest `keep` up to this step."""
    if folder.is_local:
        with writing(folder.local_path()):
            checkpoint.save(folder.local_path(), step, tensors, scalars, keep)
        return
    with tempfile.TemporaryDirectory() as scratch:
        with writing(scratch):
            written = checkpoint.save(Path(scratch), step, tensors, scalars)
        for name in (TENSORS, RECORD):
            folder.child(written.name).write(name, (written / name).read_bytes())
    kept = [name for name in _names(folder) if step_of(name) <= step][-keep:]
    there = {entry.name.partition("/")[0] for entry in folder.files(recursive=True)}
    for old in there - set(kept):  # with those that a killed worker left half sent
        for name in (RECORD, TENSORS):
            folder.child(old).delete(name)


def newest(folder: Folder) -> Checkpoint | None:
    """The newest whole checkpoint; None where there is none."""
    if folder.is_local:
        return checkpoint.newest_complete(folder.local_path())
    for name in reversed(_names(folder)):
        with tempfile.TemporaryDirectory() as scratch:
            place = Path(scratch) / name
            place.mkdir()
            for part in (TENSORS, RECORD):
                if folder.child(name).size(part) is not None:
                    (place / part).write_bytes(folder.child(name).read(part))
            if found := checkpoint.newest_complete(Path(scratch)):
                return found
    return None


def steps(folder: Folder) -> list[int]:
    """Steps of the checkpoints that have their last file, oldest first."""
    return [step_of(name) for name in _names(folder)]


def _names(folder: Folder) -> list[str]:
    records = (entry.name for entry in folder.files(recursive=True) if entry.name.endswith(f"/{RECORD}"))
    return sorted((name.rpartition("/")[0] for name in records), key=step_of)
