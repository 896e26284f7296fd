"""Which process holds something, and whether it still lives: for locks and for leases of runs."""

import os
from pathlib import Path
from typing import Any


def is_alive(pid: int, started: float) -> bool:
    """Whether the process that had this number at that time still lives on this host."""
    return bool(started) and process_start(pid) == started


def process_start(pid: int) -> float:
    """When a process of this host started, in clock ticks since boot (Linux); 0 where there is none (or a zombie)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return 0.0 if fields[0] == "Z" else float(fields[19])


def this_process() -> dict[str, Any]:
    """Who we are, for locks and leases."""
    return {"host": os.uname().nodename, "pid": os.getpid(), "started": process_start(os.getpid())}
