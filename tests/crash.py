"""Real processes to be killed: the command line, or the workflow without Ray, started in the background and watched."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

REPOSITORY = Path(__file__).parents[1]
IN_PROCESS = """
import os, sys
from pathlib import Path
from workflows.workflow import STAGES
from workflows.compute.workers import InProcess
from workflows.config import load
from workflows.engine.run import run
os.sched_setaffinity(0, list(os.sched_getaffinity(0))[:1])  # one thread: threads that share cores wait for each other
root, config, *only = sys.argv[1:]
run(STAGES, load(Path(config)), Path(root), only=only, compute=lambda *_: InProcess())
"""


def start(*argv, log: Path) -> subprocess.Popen:
    """`alexnet ARGV` in the background; what it says goes to the end of `log`."""
    return _python("-m", "workflows.cli", *argv, log=log)


def start_in_process(root: Path, config: Path, *stages: str, log: Path, first: str = "") -> subprocess.Popen:
    """The stages in the background without Ray, which takes seconds to start; `first` is code that runs before."""
    return _python("-c", first + IN_PROCESS, root, config, *stages, log=log)


def wait_for_signal(process: subprocess.Popen, number: int, state: str) -> None:
    """Until the process catches ("SigCgt") or ignores ("SigIgn") the signal."""

    def there() -> bool:
        fields = dict(line.split(":", 1) for line in Path(f"/proc/{process.pid}/status").read_text().splitlines())
        return bool(int(fields[state], 16) >> (number - 1) & 1)

    wait_until(there, f"signal {number} in {state}", 60, process)


def environment() -> dict[str, str]:
    """For a process of ours: this checkout's code, in front of what else the test puts on the path."""
    path = [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))}


def _python(*argv, log: Path) -> subprocess.Popen:
    with log.open("a") as file:
        return subprocess.Popen([sys.executable, *map(str, argv)], stdout=file, stderr=file, env=environment())


def finish(process: subprocess.Popen, log: Path) -> None:
    """Waits for the process, which must do well."""
    assert process.wait(300) == 0, log.read_text()


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 60, process: subprocess.Popen | None = None):
    """Looks every few milliseconds; whatever the condition returned that is true."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        if found := condition():
            return found
        assert process is None or process.poll() is None, f"the process ended before {what}"
        time.sleep(0.003)
    raise TimeoutError(f"{what}: not in {seconds} s")


def family(process: subprocess.Popen | psutil.Process) -> list[psutil.Process]:
    """All that descends from the process: of a driver, Ray's processes."""
    return psutil.Process(process.pid).children(recursive=True)


def kill(process: subprocess.Popen) -> list[str]:
    """SIGKILL of this process alone; returns who is left of its family after a while, which should be nobody.

    Two agents of Ray's, which do no work, try for a minute to tell the dead of their death, and are not counted. They
    are `python` until they have started, and so are workers, which then wait half a minute for the dead.
    """
    watched = {relative: relative.name() for relative in family(process)}
    process.kill()
    process.wait()
    with contextlib.suppress(TimeoutError):
        wait_until(lambda: not any(map(_lives, watched)), "their end", 60)
    return [name for relative, name in watched.items() if _lives(relative)]


def _lives(process: psutil.Process) -> bool:
    try:
        is_there = process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        return is_there and not process.name().endswith("Agent")
    except psutil.NoSuchProcess:
        return False


def workers(process: subprocess.Popen | psutil.Process, title: str) -> list[psutil.Process]:
    """The Ray workers under a driver, or under a node's raylet, that are at this kind of work, such as ray::_apply."""
    found = []
    for relative in family(process):
        try:
            command = relative.cmdline()
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
        if command and command[0].startswith(title):
            found.append(relative)
    return found
