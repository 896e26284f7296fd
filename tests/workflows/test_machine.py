"""What a machine allows is read as the kernel writes it, and too little is said before Ray dies of it."""

import os
import platform
import resource
import subprocess
import sys

import crash
import pytest
from builders import write_files

from workflows.compute import machine
from workflows.config import UsageError

CORES = len(os.sched_getaffinity(0))
VERSION_1 = "4:memory:/a\n3:cpu,cpuacct:/a/b\n2:pids:/a\n"


@pytest.fixture
def cgroups(tmp_path, monkeypatch):
    """Control groups as files; the argument is /proc/self/cgroup, the others are files under /sys/fs/cgroup."""

    def there(own: str, **files: str) -> None:
        write_files(tmp_path, {name: text.encode() for name, text in {"own": own, **files}.items()})
        monkeypatch.setattr(machine, "CGROUPS", tmp_path)
        monkeypatch.setattr(machine, "OWN_CGROUPS", tmp_path / "own")

    return there


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "max 100000\n"}, CORES),
        ("0::/\n", {"cpu.max": "50000 100000\n"}, 1),  # half a core
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "100000 100000\n"}, 1),  # of the group around it
        ("0::/a/b\n", {}, CORES),
        (VERSION_1, {"cpu,cpuacct/a/b/cpu.cfs_quota_us": "-1\n", "cpu,cpuacct/a/b/cpu.cfs_period_us": "1000\n"}, CORES),
        (VERSION_1, {"cpu,cpuacct/a/cpu.cfs_quota_us": "10\n", "cpu,cpuacct/a/cpu.cfs_period_us": "1000\n"}, 1),
        ("", {}, CORES),
    ],
)
def test_a_quota_gives_fewer_cpus_but_never_none(cgroups, own, files, expected):
    cgroups(own, **files)
    assert machine.cpus() == expected


def test_a_quota_of_this_process_is_seen():
    """A real one, where control groups of version 1 may be made."""
    group = machine.CGROUPS / "cpu" / "alexnet-test"
    try:
        group.mkdir()
        (group / "cpu.cfs_quota_us").write_text("20000")
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    code = f"open('{group}/cgroup.procs', 'w').write('0'); from workflows.compute import machine; print(machine.cpus())"
    try:
        said = subprocess.run(
            [sys.executable, "-c", code], env=crash.environment(), capture_output=True, text=True, check=True
        )
    finally:
        group.rmdir()
    assert said.stdout == "1\n"


@pytest.mark.parametrize("folder", ["", "pids/"])
def test_too_few_processes_are_refused(cgroups, folder):
    own = "2:pids:/a\n" if folder else "0::/a\n"
    cgroups(own, **{f"{folder}a/pids.max": "400\n", f"{folder}a/pids.current": "30\n"})
    machine.require_limits(2)
    with pytest.raises(UsageError, match="pids.max=400 of this control group leaves 370 processes and threads.*lower"):
        machine.require_limits(8)


def test_too_few_open_files_are_refused_and_the_rest_is_used():
    code = (
        "import resource; from workflows.compute import machine; from workflows.config import UsageError\n"
        "try:\n machine.require_limits(1); print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])\n"
        "except UsageError as error: print(error)"
    )

    def say(limits: str) -> str:
        command = ["bash", "-c", f'{limits}; exec "$0" -c "$1"', sys.executable, code]
        return subprocess.run(command, env=crash.environment(), capture_output=True, text=True, check=True).stdout

    assert "the limit on open files is 256, and Ray needs 1024: raise it (`ulimit -n`)" in say("ulimit -n 256")
    assert say("ulimit -Sn 512; ulimit -Hn 4096") == "4096\n"


def test_no_limit_is_lowered():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    machine.require_limits(1)
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= before[0]


FAULTS = """
import resource
import numpy as np
from workflows.compute import machine

def faults(times):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        np.ones(1 << 20, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

with machine.freed_memory_kept():
    faults(2)
    kept = faults(50)
print(faults(50), kept)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc's malloc")
def test_freed_memory_is_mapped_once_while_it_is_kept_and_given_back_as_ever_after_it():
    done = subprocess.run(
        [sys.executable, "-c", FAULTS], check=True, capture_output=True, text=True, cwd=crash.REPOSITORY
    )
    anew, kept = map(int, done.stdout.split())
    assert kept < 50 < 50 * 100 < anew
