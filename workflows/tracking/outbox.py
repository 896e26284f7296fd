"""What MLflow is to be told of a run, in order; what could not be sent waits in a file under the root.

One file a run, `unsent/<run>.jsonl`: who wrote it and to which server, then one operation a line. The next start on
that root sends it. Whatever is sent twice changes nothing: points carry the time at which they were measured.
"""

import contextlib
import json
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workflows.processes import lives, this_process

UNSENT = "unsent"  # in the root
END = "end"  # the operation that closes a run
Operation = dict[str, Any]  # `do`: the verb, and its arguments


class Away(Exception):
    """MLflow does not answer, or cannot at the moment: to be tried again."""


class Outbox:
    """The operations of one run, shared by the thread that beats and the one that works."""

    def __init__(self, root: Path, run_id: str, server: str):
        self._path = root / UNSENT / f"{run_id}.jsonl"
        self._header = {"run": run_id, "server": server, **this_process()}
        self._waiting: deque[Operation] = deque()
        self._kept = 0  # of those that wait, how many stand in the file
        self._lock = threading.RLock()

    def put(self, operation: Operation) -> None:
        with self._lock:
            self._waiting.append(operation)

    def send(self, perform: Callable[[Operation], None]) -> None:
        """Everything that waits, in order.

        Raises:
            Away: What is left is in the file.
        """
        with self._lock:
            try:
                while self._waiting:
                    perform(self._waiting[0])
                    self._waiting.popleft()
                    self._kept = max(0, self._kept - 1)
            except Away:
                self.keep()
                raise
            _forget(self._path)

    def keep(self) -> None:
        """What waits stands in the file from now on; where no file can be written it waits in memory."""
        with self._lock, contextlib.suppress(OSError):
            self._path.parent.mkdir(exist_ok=True)
            fresh = list(self._waiting)[self._kept :]
            lines = fresh if self._path.exists() else [self._header, *fresh]
            with self._path.open("a") as file:
                file.write("".join(json.dumps(line) + "\n" for line in lines))
            self._kept = len(self._waiting)


@dataclass(frozen=True)
class Letters:
    """The file of a process that is gone, or has closed its run."""

    path: Path
    run_id: str
    operations: list[Operation]

    def forget(self) -> None:
        _forget(self.path)


def left_behind(root: Path, server: str) -> Iterator[Letters]:
    """What was not sent to this server, and nobody is about to send."""
    for path in sorted((root / UNSENT).glob("*.jsonl")):
        lines = _lines(path)
        if not lines:
            path.unlink(missing_ok=True)
        elif lines[0]["server"] == server and not _is_in_work(path, lines):
            yield Letters(path, lines[0]["run"], lines[1:])


def _is_in_work(path: Path, lines: list[dict[str, Any]]) -> bool:
    return lines[-1].get("do") != END and lives({**lines[0], "heartbeat": path.stat().st_mtime})


def _lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines: a process that was killed may have left half of one."""
    found = []
    for line in path.read_text().splitlines():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return found


def _forget(path: Path) -> None:
    path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        path.parent.rmdir()
