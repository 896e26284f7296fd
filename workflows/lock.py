"""A lock on a stage of a root: one process at a time, taken over from the dead, and its holder is named.

`flock` decides among the processes of one host (it ends with its process); the file's content, which says host, pid and
since when, decides where the file system is shared among hosts and `flock` may not reach.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from workflows.config import UsageError
from workflows.processes import is_visible, this_process


@contextlib.contextmanager
def held(path: Path, force: bool = False, uses: dict[str, str] | None = None) -> Iterator[None]:
    """Hold the lock file while the block runs. `uses`: the keys of other stages that must stay meanwhile.

    Raises:
        UsageError: Another process holds it: says who, and since when.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    mine = this_process() | {"since": datetime.now(UTC).isoformat(), "uses": uses or {}}
    descriptor = _acquire(path, mine, force)
    try:
        yield
    finally:
        if holder(path) == mine:  # else another host took it by force
            path.unlink(missing_ok=True)
        os.close(descriptor)


def holder(path: Path) -> dict | None:
    """Who wrote the lock file; None where there is none."""
    try:
        return json.loads(path.read_text() or "{}")
    except FileNotFoundError:
        return None


def in_use(root: Path) -> set[tuple[str, str]]:
    """Stage and key of all that the stages at work under this root read."""
    alive = [holder(path) or {} for path in root.glob("*/.lock") if not is_dead(path)]
    return {used for who in alive for used in who.get("uses", {}).items()}


def is_dead(path: Path) -> bool:
    """Whether the lock file was left by a process of this host that lives no more."""
    who = holder(path)
    if not who or not is_visible(who):
        return False
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, FileNotFoundError):
        return False
    return True


def _acquire(path: Path, mine: dict, force: bool) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise UsageError(_refusal(path, "wait for it, or stop it")) from None
        if not _is_same_file(descriptor, path):  # its holder removed it between our open and our flock
            os.close(descriptor)
            continue
        who = holder(path)
        if who and not is_visible(who) and not force:
            os.close(descriptor)
            raise UsageError(_refusal(path, f"if it is dead, add --force {path.parent.name}"))
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(mine).encode(), 0)
        os.fsync(descriptor)
        return descriptor


def _is_same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.fstat(descriptor).st_ino == path.stat().st_ino
    except FileNotFoundError:
        return False


def _refusal(path: Path, way_out: str) -> str:
    who = holder(path) or {"host": "?", "pid": "?", "since": "?"}
    since = str(who.get("since", "?"))[:19]
    stage = path.parent.name
    return f"stage {stage} is being run by host {who['host']}, pid {who['pid']}, since {since} UTC: {way_out} ({path})"
