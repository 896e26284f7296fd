"""What this machine allows one user to run (CPUs, open files, processes), and how a process keeps its memory."""

import contextlib
import ctypes
import os
import platform
import resource
from collections.abc import Iterator
from pathlib import Path

from workflows.config import UsageError

CGROUPS, OWN_CGROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
BOOT = Path("/proc/sys/kernel/random/boot_id")
# Environment of a process that trains on the CPU, whose threads share one heap. By default glibc gives large blocks
# back and takes them anew every step; a page fresh from the kernel costs more than the arithmetic in it.
KEEP_FREED_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**34), "MALLOC_ARENA_MAX": "1"}
OPEN_FILES = 1024  # each of Ray's processes holds up to a hundred before there is work
_KEPT = {-1: (2**31 - 1, 128 << 10), -4: (0, 65536)}  # M_TRIM_THRESHOLD, M_MMAP_MAX of malloc.h: value and default
THREADS_OF_RAY, THREADS_A_CPU = 200, 60  # they count as processes


def name() -> str:
    """What no other machine or container is called."""
    return f"{platform.node()} {BOOT.read_text().strip()}"


def cpus() -> int:
    """CPUs for this process: those that it may stand on, or fewer where a quota gives less time; at least 1."""
    return max(1, int(min(len(os.sched_getaffinity(0)), *_quotas())))


def require_limits(num_cpus: int) -> None:
    """Raises the limit on open files as far as it may be; UsageError where Ray, on so many CPUs, would die of one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < OPEN_FILES:
        raise UsageError(f"the limit on open files is {hard}, and Ray needs {OPEN_FILES}: raise it (`ulimit -n`)")
    if soft != resource.RLIM_INFINITY and soft < 65536:
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (65536 if hard == resource.RLIM_INFINITY else min(hard, 65536), hard)
        )
    wanted = THREADS_OF_RAY + THREADS_A_CPU * num_cpus
    for left, limit in _processes_left():
        if left < wanted:
            raise UsageError(
                f"{limit} leaves {max(0, left)} processes and threads, and Ray on {num_cpus} CPUs needs about "
                f"{wanted}: raise it, or lower ray.num_cpus"
            )


@contextlib.contextmanager
def freed_memory_kept() -> Iterator[None]:
    """While it lasts, glibc keeps what is freed; large blocks that come and go with each batch stay mapped.

    By default it gives them back and takes them anew, and the kernel clears each page: a third of an evaluation.
    """
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt"):
        yield
        return
    for option, (value, _) in _KEPT.items():
        libc.mallopt(option, value)
    try:
        yield
    finally:
        for option, (_, default) in _KEPT.items():
            libc.mallopt(option, default)
        libc.malloc_trim(0)


def _quotas() -> Iterator[float]:
    """CPUs' worth of time that each control group around this process allows."""
    for folder in _groups("cpu"):
        files = ("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        for quota, period in (words for names in files if len(words := _words(folder, *names)) == 2):
            if quota.isdecimal():  # neither "max" nor -1
                yield int(quota) / int(period)
    yield float("inf")


def _processes_left() -> Iterator[tuple[int, str]]:
    """How many more processes and threads each limit allows, and the limit's name."""
    for folder in _groups("pids"):
        words = _words(folder, "pids.max", "pids.current")
        if len(words) == 2 and words[0].isdecimal():
            yield int(words[0]) - int(words[1]), f"pids.max={words[0]} of this control group"
    limit, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    if limit != resource.RLIM_INFINITY and os.getuid() != 0:  # root is not bound by it
        yield limit - _threads_of_user(), f"the limit on processes (`ulimit -u`), {limit},"


def _threads_of_user() -> int:
    import psutil

    ours = (p.info for p in psutil.process_iter(["uids", "num_threads"]) if p.info["uids"])
    return sum(info["num_threads"] or 0 for info in ours if info["uids"].real == os.getuid())


def _groups(controller: str) -> Iterator[Path]:
    """Folders of the control groups around this process that have this controller, the innermost first."""
    for line in OWN_CGROUPS.read_text().splitlines() if OWN_CGROUPS.exists() else ():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(",") or not controllers:  # without controllers: of version 2, all of them
            top = CGROUPS / controllers if controllers else CGROUPS
            folder = top / path.strip("/")
            yield from (group for group in (folder, *folder.parents) if group.is_relative_to(top))


def _words(folder: Path, *names: str) -> list[str]:
    """What files of a control group hold; nothing where one is missing."""
    if not all((folder / name).is_file() for name in names):
        return []
    return [word for name in names for word in (folder / name).read_text().split()]
