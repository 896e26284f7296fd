"""Checkpoints on disk: safetensors and JSON, never pickle; whole or absent, whatever kills the writer.

A checkpoint is a folder `step-00001000` with the tensors and, written last, `checkpoint.json`, which holds the scalars
and the tensors' digest. Without that file, or with other bytes than it says, the checkpoint does not count.
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
import uuid
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

TENSORS, RECORD = "state.safetensors", "checkpoint.json"


class Checkpoint(NamedTuple):
    folder: Path
    step: int
    tensors: dict[str, Tensor]
    scalars: dict  # whatever JSON can hold


def save(root: Path, step: int, tensors: dict[str, Tensor], scalars: dict, keep: int = 2) -> Path:
    """Writes a checkpoint under `root`, then deletes all but the newest `keep` up to this step.

    One of a later step is a broken one that was passed over; kept, it would push the sound ones out.
    """
    from safetensors.torch import save

    folder = root / f"step-{step:08d}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RECORD).unlink(missing_ok=True)  # an earlier attempt's, if any
    publish(folder / TENSORS, lambda path: path.write_bytes(save(tensors)))
    record = {"step": step, "sha256": sha256(folder / TENSORS), "scalars": scalars}
    publish(folder / RECORD, lambda path: path.write_text(json.dumps(record, indent=1)))
    _delete_all_but(root, keep, step)
    return folder


def newest_complete(root: Path) -> Checkpoint | None:
    """The newest checkpoint whose bytes are those that were written; a broken one is passed over with a warning."""
    for folder in reversed(_folders(root)):
        try:
            return load(folder)
        except (OSError, ValueError, KeyError, TypeError) as error:
            warnings.warn(f"passing over the checkpoint {folder}: {error}", stacklevel=2)
    return None


def load(folder: Path) -> Checkpoint:
    from safetensors.torch import load_file

    record = json.loads((folder / RECORD).read_text())
    found = sha256(folder / TENSORS)
    if found != record["sha256"]:
        raise ValueError(f"{TENSORS} has digest {found[:12]}, but {RECORD} says {record['sha256'][:12]}")
    return Checkpoint(folder, record["step"], load_file(folder / TENSORS), record["scalars"])


def publish(path: Path, write: Callable[[Path], object]) -> None:
    """Writes under a hidden name, flushes to the disk, renames: `path` holds the whole file or what it held before.

    The hidden file is locked while it is written and named as all half-written files here, so that a leftover is known;
    `write` must write to this very file, not put another in its place.
    """
    hidden = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        with hidden.open("xb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            write(hidden)
            _flush(hidden)
            hidden.rename(path)
        _flush(path.parent)
    except OSError as error:
        if error.errno:
            error.filename = str(path)  # none is named, or the hidden one
        raise
    finally:
        hidden.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _folders(root: Path) -> list[Path]:
    """Checkpoints with their last file, oldest first."""
    names = [name for name in (os.listdir(root) if root.is_dir() else []) if re.fullmatch(r"step-\d+", name)]
    return [root / name for name in sorted(names, key=step_of) if (root / name / RECORD).exists()]


def step_of(name: str) -> int:
    """The step in the name of a checkpoint's folder."""
    return int(name.rpartition("-")[2])


def _delete_all_but(root: Path, keep: int, step: int) -> None:
    """With older checkpoints goes what a killed writer left."""
    kept = [folder for folder in _folders(root) if step_of(folder.name) <= step][-keep:]
    for folder in root.glob("step-*"):
        if folder not in kept:
            (folder / RECORD).unlink(missing_ok=True)  # first, so that a half-deleted one does not count
            shutil.rmtree(folder, ignore_errors=True)
