"""Does this machine fit? Versions, devices, room, rights and decoders, each checked by doing it."""

import importlib.util
import os
import platform
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from workflows import lock
from workflows.config import RunConfig
from workflows.console import size
from workflows.history import HISTORY, read

Verdict = Literal["ok", "note", "wrong"]
WANTED = ("torch", "ray", "mlflow", "pyarrow", "pandas", "numpy", "simplejpeg", "pillow", "safetensors")


@dataclass(frozen=True)
class Finding:
    """One thing looked at, what was found, and what to do where it is wrong."""

    what: str
    verdict: Verdict
    text: str


def examine(config: RunConfig, root: Path) -> list[Finding]:
    """Everything, in order; nothing is changed."""
    checks: tuple[Callable[[], Iterator[Finding]], ...] = (
        _versions,
        _accelerators,
        lambda: _machine(root),
        lambda: _ports(config),
        _decoders,
        lambda: _leftovers(root),
        lambda: _training(root),
    )
    return [finding for check in checks for finding in check()]


def _versions() -> Iterator[Finding]:
    version = platform.python_version_tuple()
    fits = (int(version[0]), int(version[1])) >= (3, 11)
    yield Finding("Python", "ok" if fits else "wrong", f"{platform.python_version()} (3.11 or newer is needed)")
    for name in WANTED:
        try:
            yield Finding(name, "ok", metadata.version(name))
        except metadata.PackageNotFoundError:
            yield Finding(name, "wrong", "not installed: `make install`, or `pip install -e .`")
    dali = sorted(d.name + " " + d.version for d in metadata.distributions() if d.name.startswith("nvidia-dali"))
    yield Finding(
        "DALI", "ok" if dali else "wrong", ", ".join(dali) or "not installed: pip install nvidia-dali-cuda130"
    )


def _accelerators() -> Iterator[Finding]:
    if importlib.util.find_spec("torch") is None:
        return
    import torch

    built = torch.version.cuda
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            card = torch.cuda.get_device_properties(i)
            yield Finding(f"GPU {i}", "ok", f"{card.name}, {size(card.total_memory)}, torch built for CUDA {built}")
    elif built and shutil.which("nvidia-smi"):
        yield Finding(
            "GPU",
            "wrong",
            f"torch is built for CUDA {built} and finds no device: a driver older than 580 serves CUDA 12 only; "
            "install nvidia-dali-cuda120 and a cu12 build of torch instead (README, GPUs)",
        )
    else:
        yield Finding("GPU", "note", "none: everything runs on the CPU, both columns over gloo")
    dali = {d.name for d in metadata.distributions() if d.name.startswith("nvidia-dali")}
    if built and dali and not any(name.endswith(f"cuda{built.split('.')[0]}0") for name in dali):
        yield Finding(
            "CUDA", "wrong", f"torch is built for CUDA {built}, DALI is {', '.join(dali)}: install the same major"
        )


def _machine(root: Path) -> Iterator[Finding]:
    import psutil

    yield Finding("cores", "ok", f"{len(os.sched_getaffinity(0))} to use of {os.cpu_count()}")
    memory = psutil.virtual_memory()
    low = memory.available < 4e9
    yield Finding("memory", "note" if low else "ok", f"{size(memory.available)} free of {size(memory.total)}")
    place = root
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    yield Finding("disk", "note" if free < 20e9 else "ok", f"{size(free)} free for {root} (ImageNet at 256 px: 60 GB)")
    try:
        with tempfile.TemporaryFile(dir=place):
            yield Finding("write access", "ok", str(place))
    except OSError as error:
        yield Finding("write access", "wrong", f"{error}; name another --root")


def _ports(config: RunConfig) -> Iterator[Finding]:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", 5000))
            yield Finding("port 5000", "ok", "free for `alexnet ui`")
        except OSError:
            yield Finding("port 5000", "note", "taken: use `alexnet ui --port 5001`")
    if not config.ray.address:
        yield Finding("Ray", "ok", "starts on this machine when a stage has work, behind its token")


def _decoders() -> Iterator[Finding]:
    """One photograph-like JPEG through every path; all must show the same picture."""
    import io

    import numpy as np
    from PIL import Image

    y, x = np.mgrid[:96, :128]
    picture = np.stack([2 * x, 255 - x - y, 2 * y], axis=-1).clip(0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=95)
    seen = {"Pillow": np.asarray(Image.open(buffer))}
    for name, decode in {"libjpeg-turbo": _by_simplejpeg, "DALI": _by_dali}.items():
        try:
            seen[name] = decode(buffer.getvalue())
        except Exception as error:  # any failure of a library is the finding
            yield Finding(f"JPEG by {name}", "wrong", f"{type(error).__name__}: {error}")
            continue
        apart = np.abs(seen[name].astype(int) - seen["Pillow"]).max()
        yield Finding(f"JPEG by {name}", "ok" if apart <= 4 else "wrong", f"at most {apart} grey levels from Pillow")


def _by_simplejpeg(data: bytes):
    import simplejpeg

    return simplejpeg.decode_jpeg(data)


def _by_dali(data: bytes):
    import numpy as np
    from nvidia.dali import fn, pipeline_def

    @pipeline_def(batch_size=1, num_threads=1, device_id=None)
    def graph():
        return fn.decoders.image(fn.external_source(source=lambda: [np.frombuffer(data, np.uint8)]))

    pipe = graph()
    pipe.build()
    return pipe.run()[0].as_array()[0]


def _leftovers(root: Path) -> Iterator[Finding]:
    from pipelines.storage import Folder

    dead = [str(path) for path in root.glob("*/.lock") if lock.is_dead(path)]
    partial = Folder.at(root).stale_temporaries() if root.is_dir() else []
    if dead or partial:
        yield Finding(
            "leftovers", "note", f"{len(dead)} dead locks, {len(partial)} partial files: `alexnet clean --yes`"
        )
    else:
        yield Finding("leftovers", "ok", "none")


def _training(root: Path) -> Iterator[Finding]:
    """What bounded the newest training here."""
    newest = max(root.glob(f"train/*/{HISTORY}"), key=lambda path: path.stat().st_mtime, default=None)
    epochs = [point for point in read(newest) if point["kind"] == "epoch"] if newest else []
    if epochs:
        bound = not epochs[-1]["verdict"].startswith("compute")
        yield Finding("last training", "note" if bound else "ok", epochs[-1]["verdict"])
