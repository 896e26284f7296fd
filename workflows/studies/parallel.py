"""Several runs of a comparison at once: each in a process of its own, all on the Ray that this one started or joined.

A run's process is told what to run by its standard input, and stops where that ends, however the one that holds its
other end has ended.
"""

import contextlib
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from workflows.compute import devices
from workflows.compute.workers import Resources
from workflows.config import RunConfig, UsageError
from workflows.studies.comparison import Member

FAILED = "failed: "  # begins the last line of a run's process that failed


@dataclass(frozen=True)
class Order:
    """What a run's process is to do: stages of a configuration, on a share of a Ray.

    Attributes:
        remembered: What later commands go on with.
        sharers: How many trainings share the Ray.
    """

    config: RunConfig
    root: Path
    stages: tuple[str, ...]
    remembered: RunConfig
    take_lock: bool
    sharers: int
    debug: bool = False


def room(members: Iterable[Member], have: Resources, built: str) -> int:
    """How many of these trainings there are places for at once: a place is a GPU, or without any a CPU.

    Baselines train nothing that keeps its place; where there is nothing else they run one after the other.

    Args:
        built: The CUDA that torch is built for.
    """
    from workflows.stages.train import place

    found = []
    for member in (member for member in members if "train" in member.stages):
        with contextlib.suppress(UsageError):  # which its own run will say
            mine = devices.usable(member.config.train.device, have, built)
            plan, _ = place(member.config.net, member.config.train, mine)
            found.append(mine.num_places(1, plan.use_gpu) // plan.world)
    return max(1, min(found, default=1))


def run_all(orders: Sequence[tuple[Member, Order]], say: Callable[[str], None]) -> Iterator[tuple[Member, str]]:
    """Each member when it is done, with the reason where it failed; as many at once as share the Ray."""
    if not orders:
        return
    processes = _Processes(say)
    with ThreadPoolExecutor(orders[0][1].sharers) as pool:
        futures = {pool.submit(processes.run, member, order): member for member, order in orders}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:  # where it is stopped
            processes.stop()


class _Processes:
    """The processes at work; once stopped, no other is started."""

    def __init__(self, say: Callable[[str], None]):
        self._say, self._lock = say, threading.Lock()
        self._at_work: list[subprocess.Popen] = []
        self._stopped = False

    def run(self, member: Member, order: Order) -> str:
        """The reason where it failed."""
        with self._lock:
            if self._stopped:
                return ""
            process = _start()
            self._at_work.append(process)
        assert process.stdin is not None, "it is a pipe"
        assert process.stdout is not None, "it is a pipe"
        with contextlib.suppress(BrokenPipeError):  # it ended at its start
            pickle.dump(order, process.stdin)
            process.stdin.flush()
        last = ""
        for line in process.stdout:
            last = line.decode(errors="replace").rstrip("\n")
            if not last.startswith(FAILED):
                self._say(f"{member.title}: {last.strip()}")
        code = process.wait()
        if not code:
            return ""
        return last.removeprefix(FAILED) if last.startswith(FAILED) else f"its process ended with code {code}"

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            for process in self._at_work:
                with contextlib.suppress(OSError):
                    process.stdin.close()  # type: ignore[union-attr]


def _start() -> subprocess.Popen:
    """In a session of its own: a terminal's Ctrl-C is this process's to hand on."""
    command = [sys.executable, "-P", "-m", "workflows.studies.one_run"]
    path = [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))}
    pipe, out = subprocess.PIPE, subprocess.STDOUT
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=out, env=environment, start_new_session=True)
