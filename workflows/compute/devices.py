"""GPUs: whether there are any, whether the torch that is installed uses them, and what work is therefore run on."""

import importlib.util
import re
import subprocess
from dataclasses import replace
from pathlib import Path

from workflows.compute.workers import Resources
from workflows.config import UsageError

DALI = "nvidia-dali-cuda"
CUDA_13_DRIVER = 580  # the oldest series that serves CUDA 13; older ones serve CUDA 12


def usable(device: str, have: Resources, built: str) -> Resources:
    """What there is, less the GPUs where `train.device`, or a torch that is built for no CUDA, leaves them alone.

    Raises:
        UsageError: `train.device` is `gpu`, and none can be used.
    """
    if device == "gpu" and not have.gpus:
        raise UsageError("train.device=gpu, and Ray finds no GPU: set it to cpu or auto")
    if device == "gpu" and not built:
        raise UsageError("train.device=gpu, and torch is a build for the CPU: install one for CUDA (`alexnet doctor`)")
    return have if built and device != "cpu" else replace(have, nodes=tuple((cpus, 0) for cpus, _ in have.nodes))


def require_precision(precision: str, have: Resources, way_out: str) -> None:
    """UsageError, which ends with the way out, where arithmetic is asked for that only GPUs have."""
    if precision not in ("float32", "auto") and not have.gpus:
        raise UsageError(f"train.precision={precision} needs a GPU, and there is none: {way_out}")


def foreseen(device: str, built: str, version: str, is_here: bool) -> str:
    """A line on GPUs that will lie idle, before anything starts; empty where all is as it seems.

    Args:
        built: The CUDA that torch is built for.
        version: Of this machine's NVIDIA driver; empty where there is none.
        is_here: Whether the work runs on this machine alone.

    Raises:
        UsageError: `train.device` is `gpu`, and training could only be refused.
    """
    if device == "gpu" and not built:
        raise UsageError(f"train.device=gpu, and {unused_gpu(version, None) if version else 'torch is for the CPU'}")
    if device == "gpu" and is_here and not version:
        raise UsageError("train.device=gpu, and this machine has no NVIDIA driver: set it to cpu or auto")
    idle = device == "auto" and version and not built
    return f"training on the CPU, though {unused_gpu(version, None)}" if idle else ""


def torch_cuda() -> str:
    """The CUDA that torch is built for; nothing for a build for the CPU. Read without importing torch."""
    found = importlib.util.find_spec("torch")
    text = (Path(found.origin).parent / "version.py").read_text() if found and found.origin else ""
    match = re.search(r"^cuda\b.*= *'([\d.]+)'", text, re.MULTILINE)
    return match[1] if match else ""


def unused_gpu(driver: str, built: str | None) -> str:
    """What to say where there is a GPU that torch, built for a CUDA or for none, does not use."""
    torch_is = f"built for CUDA {built} and finds no device" if built else "a build for the CPU"
    major = 13 if int(driver.partition(".")[0]) >= CUDA_13_DRIVER else 12
    way_out = f"install a cu{major} build of torch and {DALI}{major}0 (README, GPUs)"
    if built and built.startswith(f"{major}."):
        way_out = "the builds fit: see whether `nvidia-smi` and CUDA_VISIBLE_DEVICES show the device"
    return f"there is a GPU with driver {driver}, which serves CUDA {major}; torch is {torch_is}: {way_out}"


def driver() -> str:
    """The version of NVIDIA's driver; nothing where there is none."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.split()
    except (OSError, subprocess.SubprocessError):
        return ""
    return found[0] if found else ""
