"""What every bench shares: parts measured in turns, and results that name machine, commit and date."""

import datetime
import json
import os
import platform
import statistics
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def interleaved(parts: Mapping[str, Callable[[], tuple[int, float]]], repeats: int) -> dict[str, float]:
    """Items per second of each part, which returns (items, seconds): the median of turns taken one after the other."""
    rates: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(repeats):
        for name, part in parts.items():
            items, seconds = part()
            rates[name].append(items / seconds)
    return {name: statistics.median(values) for name, values in rates.items()}


def peak_mib() -> float:
    """The most memory that this process has held; `getrusage` would begin with what its parent had."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 2**10


def hardware() -> dict[str, Any]:
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpus": _gpus(),
        "python": platform.python_version(),
    }


def commit() -> str:
    """The short hash, with "-dirty" where files differ from it; "unknown" outside a checkout."""
    described = _output("git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*")
    return described or "unknown"


def stamped(result: dict) -> dict:
    """The result with where, on what and when it was measured."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {**result, "hardware": hardware(), "commit": commit(), "date": now}


def write_json(path: str | Path, result: dict) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps(result, indent=1) + "\n")


def table(rates: dict[str, float], unit: str, reference: str) -> str:
    """Markdown: each part's rate, and how many times the reference it is."""
    width = max(len(name) for name in rates)
    lines = [
        f"| {'':{width}} | {unit:>12} | x {reference} |",
        f"| {'-' * width} | {'-' * 11}: | {'-' * len(reference)}-: |",
    ]
    for name, rate in sorted(rates.items(), key=lambda item: -item[1]):
        shown = f"{rate:,.0f}" if rate >= 100 else f"{rate:.1f}"
        lines.append(f"| {name:{width}} | {shown:>12} | {rate / rates[reference]:{len(reference) + 2}.2f} |")
    return "\n".join(lines)


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _gpus() -> list[str]:
    return _output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader").splitlines()


def _output(*command: str) -> str:
    """What a command prints; nothing where it fails or does not exist."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
