"""A folder for what Ray writes (sockets, logs, packages): of one run and one user, and short enough for sockets."""

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from workflows.config import UsageError

LONGEST_SOCKET = 107  # bytes of the path
SOCKET = "/alexnet-debug-01234567/r/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
PREFIX, KEPT_PREFIX, LOCK = "alexnet-ray-", "alexnet-debug-", "lock"
BEING_MADE_S = 600  # a folder without a lock may be that long


class RayFolder:
    """Made with mode 700; `remove` at the end, unless it is to be kept."""

    def __init__(self, keep: bool = False):
        base = _base()
        if not keep:
            _remove_left_over(base)
        self.place = Path(tempfile.mkdtemp(prefix=KEPT_PREFIX if keep else PREFIX, dir=base))
        self._keep = keep
        self._lock = (self.place / f".{LOCK}").open("x")
        fcntl.flock(self._lock, fcntl.LOCK_EX)  # ends with this process
        os.replace(self._lock.name, self.place / LOCK)

    @property
    def for_ray(self) -> Path:
        """Ray opens its own folder to all users, so that it is inside."""
        return self.place / "r"

    @property
    def logs(self) -> Path:
        return self.for_ray / "session_latest" / "logs"

    def remove(self) -> None:
        if not self._keep:
            shutil.rmtree(self.place, ignore_errors=True)
        self._lock.close()


def _base() -> Path:
    """The first folder for temporary files that is short enough and writable."""
    longest = LONGEST_SOCKET - len(SOCKET)
    for base in (Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp"), Path("/dev/shm")):
        if len(os.fsencode(base)) <= longest and os.access(base, os.W_OK | os.X_OK):
            return base
    raise UsageError(f"Ray needs a writable folder whose path has at most {longest} bytes: name one in TMPDIR")


def _remove_left_over(base: Path) -> None:
    """What runs that were killed have left here, or processes of Ray that outlived the folder and made it again."""
    for place in _ours(base):
        with contextlib.suppress(OSError), contextlib.ExitStack() as locked:
            if (place / LOCK).exists():
                fcntl.flock(locked.enter_context((place / LOCK).open()), fcntl.LOCK_EX | fcntl.LOCK_NB)
            elif time.time() - place.stat().st_mtime < BEING_MADE_S:
                continue
            shutil.rmtree(place, ignore_errors=True)


def _ours(base: Path) -> Iterator[Path]:
    for place in base.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            if place.lstat().st_uid == os.getuid():
                yield place
