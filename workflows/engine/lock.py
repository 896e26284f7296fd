"""A lease on an output: one process at a time makes it; who holds it is named, and the dead are succeeded.

The file `KEY.lock` beside the output says who holds it, since when and what it reads; its holder touches it while it
lives. `flock` decides among the processes of one machine, and ends with its process. Where it does not reach (another
machine, an object store) the last touch says whether the holder lives.
"""

import contextlib
import fcntl
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pipelines.storage import Folder
from workflows.config import UsageError
from workflows.engine.outputs import Output, Places
from workflows.processes import HEARTBEAT_EVERY_S, is_visible, lives, this_process

SUFFIX = ".lock"
LOOK_AGAIN_S = 1.0
SETTLES_S = 1.0  # in an object store, where nothing is exclusive: of two that write at once, the last one has it


@dataclass(frozen=True)
class Lease:
    """The lock file of an output."""

    folder: Folder  # of the stage
    name: str
    stage: str

    @property
    def where(self) -> str:
        return self.folder.where(self.name)

    def holder(self) -> dict[str, Any] | None:
        """Who wrote the file, and when it was last touched (`heartbeat`); None where there is none."""
        entry = self.folder.entry(self.name)
        try:
            said = json.loads(self.folder.read(self.name)) if entry else None
        except (FileNotFoundError, ValueError):  # released meanwhile, or being written
            return None
        return {**said, "heartbeat": entry.mtime_ns / 1e9} if entry and isinstance(said, dict) else None

    def is_dead(self) -> bool:
        """Whether it was left by a process that lives no more."""
        who = self.holder()
        return who is not None and not lives(who)


def of(output: Output) -> Lease:
    folder, _ = output.folder.split()
    return Lease(folder, output.key + SUFFIX, output.stage)


def leases(places: Places) -> list[Lease]:
    """All lock files, of the living and of the dead."""
    here = {places.main, Folder.at(places.root)}
    return [
        Lease(folder.child(stage), entry.name, stage)
        for folder in sorted(here, key=lambda folder: folder.url)
        for stage in folder.folders()
        for entry in folder.child(stage).files()
        if entry.name.endswith(SUFFIX)
    ]


def in_use(places: Places, by_others: bool = False) -> set[tuple[str, str]]:
    """Stage and key of all outputs that are being made (by other processes), and of all that is read for it."""
    used, mine = set(), this_process()
    for lease in leases(places):
        who = lease.holder()
        if who and lives(who) and not (by_others and _is(mine, who)):
            used |= {(lease.stage, lease.name.removesuffix(SUFFIX)), *who.get("uses", {}).items()}
    return used


@contextlib.contextmanager
def held(
    output: Output,
    *,
    uses: dict[str, str] | None = None,
    take: bool = False,
    say: Callable[[str], None] = lambda text: None,
    beat_every_s: float = HEARTBEAT_EVERY_S,
) -> Iterator[None]:
    """Hold the output while the block runs; wait for who holds it, who is named.

    Args:
        uses: The keys of other stages' outputs that must stay meanwhile.
        take: Take it from a holder elsewhere that seems to live.

    Raises:
        UsageError: `take`, and the holder lives on this machine; or another took it from us (the block is interrupted).
    """
    lease = of(output)
    mine = this_process() | {"since": datetime.now(UTC).isoformat(timespec="seconds"), "uses": uses or {}}
    release = _acquire(lease, mine, take, say)
    ended, lost = threading.Event(), threading.Event()
    beat = threading.Thread(target=_beat, args=(lease, mine, beat_every_s, ended, lost), daemon=True)
    beat.start()
    try:
        yield
        _require_kept(lease, lost)
    except KeyboardInterrupt:
        _require_kept(lease, lost)
        raise
    finally:
        ended.set()
        beat.join()
        release()


def _require_kept(lease: Lease, lost: threading.Event) -> None:
    if lost.is_set():
        raise UsageError(f"another process took {lease.where} from this one, which stopped: {_named(lease.holder())}")


def _beat(lease: Lease, mine: dict, every_s: float, ended: threading.Event, lost: threading.Event) -> None:
    """Touches the file until the block ends, or until the file is somebody else's."""
    while not ended.wait(every_s):
        with contextlib.suppress(OSError):  # a store that is away for a moment
            who = lease.holder()
            if who and not _is(mine, who):
                lost.set()
                main = threading.main_thread().ident
                assert main is not None, "it runs"
                signal.pthread_kill(main, signal.SIGINT)  # wakes it, whatever it waits for
                return
            _touch(lease, mine)


def _touch(lease: Lease, mine: dict) -> None:
    if lease.folder.is_local:
        os.utime(lease.folder.local_path() / lease.name)
    else:
        lease.folder.write(lease.name, json.dumps(mine))


def _acquire(lease: Lease, mine: dict, take: bool, say: Callable[[str], None]) -> Callable[[], None]:
    """How to release it."""
    attempt = _try_local if lease.folder.is_local else _try_remote
    told = False
    while (release := attempt(lease, mine, take)) is None:
        who = lease.holder()
        if take and who and is_visible(who):
            raise UsageError(f"--take-lock: {_named(who)} holds {lease.where} and lives: stop it first")
        if not told:
            hint = "" if who and is_visible(who) else "; if it is dead, --take-lock goes on at once"
            say(f"{lease.stage} {lease.name.removesuffix(SUFFIX)} is being made by {_named(who)}: waiting for it{hint}")
            told = True
        time.sleep(LOOK_AGAIN_S)
    return release


def _try_local(lease: Lease, mine: dict, take: bool) -> Callable[[], None] | None:
    path = lease.folder.local_path() / lease.name
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    who = None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_free = os.path.samestat(os.fstat(descriptor), path.stat())  # else its holder removed it meanwhile
        who = lease.holder()
    except (BlockingIOError, FileNotFoundError):
        is_free = False
    if not is_free or (who and not is_visible(who) and lives(who) and not take):
        os.close(descriptor)
        return None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(mine).encode(), 0)
    os.fsync(descriptor)
    return lambda: _release(lease, mine, descriptor)


def _try_remote(lease: Lease, mine: dict, take: bool) -> Callable[[], None] | None:
    who = lease.holder()
    if who and lives(who) and (is_visible(who) or not take):
        return None
    lease.folder.write(lease.name, json.dumps(mine))
    time.sleep(SETTLES_S)
    now = lease.holder()
    return (lambda: _release(lease, mine, None)) if now and _is(mine, now) else None


def _release(lease: Lease, mine: dict, descriptor: int | None) -> None:
    try:
        who = lease.holder()
        if who and _is(mine, who):  # else another took it
            lease.folder.delete(lease.name)
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _is(mine: dict, who: dict) -> bool:
    return all(who.get(name) == value for name, value in mine.items())


def _named(who: dict | None) -> str:
    if who is None:
        return "another process"
    since = str(who.get("since", "?")).replace("T", " ")[:19]
    return f"host {who.get('host', '?')}, pid {who.get('pid', '?')}, since {since} UTC"
