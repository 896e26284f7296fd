"""Which process holds something, and whether it still lives: for leases on outputs and on runs.

A process is known by what tells apart containers and cloned machines that share a host name: the boot, and the
namespace in which its number counts. Of a process elsewhere only the heartbeat says that it lives.
"""

import os
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import psutil

HEARTBEAT_EVERY_S = 30.0
LEASE_ENDS_AFTER_S = 600.0  # a process elsewhere whose heartbeat is older is dead


def this_process() -> dict[str, Any]:
    """Who we are: host, boot, namespace, pid and start."""
    return {**_here(), "pid": os.getpid(), "started": process_start(os.getpid())}


def lives(who: Mapping[str, Any]) -> bool:
    """Whether the process that signed so still lives, as far as can be seen from here.

    Args:
        who: What `this_process` said there, and its last `heartbeat` (seconds since 1970); values may be text.
    """
    if is_visible(who):
        return float(who["started"]) > 0 and process_start(int(who["pid"])) == float(who["started"])
    return time.time() - float(who.get("heartbeat", 0)) < LEASE_ENDS_AFTER_S


def is_visible(who: Mapping[str, Any]) -> bool:
    """Whether that process, if it lives, is one of those whose numbers mean something here."""
    return all(str(who.get(name)) == value for name, value in _here().items())


def process_start(pid: int) -> float:
    """When a process of this host started, s since boot; 0 where there is none (or a zombie).

    The time of day would not do: it moves with every correction of the clock.
    """
    booted = psutil.boot_time()
    try:
        process = psutil.Process(pid)
        ended = process.status() == psutil.STATUS_ZOMBIE
        return 0.0 if ended else round(process.create_time() - booted, 2)
    except psutil.NoSuchProcess:
        return 0.0


@cache
def _here() -> dict[str, str]:
    boot = Path("/proc/sys/kernel/random/boot_id")
    return {
        "host": os.uname().nodename,
        "boot": boot.read_text().strip() if boot.exists() else "",
        "namespace": str(os.stat("/proc/self/ns/pid").st_ino) if os.path.exists("/proc/self/ns/pid") else "",
    }
