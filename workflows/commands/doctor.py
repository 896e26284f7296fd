"""Does this machine fit? Versions, devices, room, rights and decoders, each checked by doing it."""

import importlib.util
import os
import platform
import socket
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement

from pipelines.storage import Folder
from workflows.compute import cluster, devices, machine
from workflows.config import RunConfig, UsageError
from workflows.console import size
from workflows.engine import estimate, lock
from workflows.engine.outputs import places
from workflows.engine.plan import plan
from workflows.training.history import read
from workflows.workflow import STAGES

Verdict = Literal["ok", "note", "wrong"]


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
        lambda: _machine(config, root),
        lambda: _ports(config),
        lambda: answers(config.ray.address),
        _decoders,
        lambda: _leftovers(config, root),
        lambda: _training(config, root),
    )
    return [finding for check in checks for finding in check()]


def _versions() -> Iterator[Finding]:
    version = platform.python_version_tuple()
    fits = (int(version[0]), int(version[1])) >= (3, 11)
    yield Finding("Python", "ok" if fits else "wrong", f"{platform.python_version()} (3.11 or newer is needed)")
    try:
        wanted = list(map(Requirement, metadata.requires("alexnet") or ()))
    except metadata.PackageNotFoundError:
        yield Finding("alexnet", "wrong", "not installed, so what it needs is unknown: `pip install -e .`")
        return
    for requirement in wanted:
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield version_found(requirement)


def version_found(requirement: Requirement) -> Finding:
    """Whether the installed version is in the range; of DALI any build will do here."""
    name, is_dali = requirement.name, requirement.name.startswith(devices.DALI)
    builds = sorted(d.name for d in metadata.distributions() if d.name.startswith(devices.DALI)) if is_dali else [name]
    what = "DALI" if is_dali else name
    try:
        found = metadata.version(builds[0])
    except (metadata.PackageNotFoundError, IndexError):
        return Finding(what, "wrong", f"not installed: `pip install '{requirement}'`")
    text = f"{builds[0]} {found}" if is_dali else found
    if requirement.specifier.contains(found, prereleases=True):
        return Finding(what, "ok", text)
    return Finding(what, "wrong", f"{text}, and {requirement.specifier} is needed: `pip install '{requirement}'`")


def _accelerators() -> Iterator[Finding]:
    if importlib.util.find_spec("torch") is None:
        return
    import torch

    built = torch.version.cuda
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            card = torch.cuda.get_device_properties(i)
            yield Finding(f"GPU {i}", "ok", f"{card.name}, {size(card.total_memory)}, torch built for CUDA {built}")
    elif driver := devices.driver():
        yield Finding("GPU", "wrong", devices.unused_gpu(driver, built))
    else:
        yield Finding("GPU", "note", "none: everything runs on the CPU, both columns over gloo")
    dali = {d.name for d in metadata.distributions() if d.name.startswith("nvidia-dali")}
    if built and dali and not any(name.endswith(f"cuda{built.split('.')[0]}0") for name in dali):
        yield Finding(
            "CUDA", "wrong", f"torch is built for CUDA {built}, DALI is {', '.join(dali)}: install the same major"
        )


def _machine(config: RunConfig, root: Path) -> Iterator[Finding]:
    import psutil

    yield Finding("cores", "ok", f"{machine.cpus()} to use of {os.cpu_count()}")
    memory = psutil.virtual_memory()
    low = memory.available < 4e9
    yield Finding("memory", "note" if low else "ok", f"{size(memory.available)} free of {size(memory.total)}")
    place = root
    while not place.exists():
        place = place.parent
    yield room(config, root)
    try:
        with tempfile.TemporaryFile(dir=place):
            yield Finding("write access", "ok", str(place))
    except OSError as error:
        yield Finding("write access", "wrong", f"{error}; name another --root")


def room(config: RunConfig, root: Path) -> Finding:
    """The disk that the shards will be on, against what is predicted for them."""
    place = Folder.at(config.store or root)
    free = place.free_bytes()
    if free is None:
        return Finding("disk", "ok", f"the shards go to {place.where()}")
    try:
        where = places(config, root, may_write=False)
        ingest, *_ = planned = plan(STAGES, config, where, anew=True)
        counts = estimate.counts_of(planned)
    except (ValueError, OSError, UsageError) as error:
        return Finding("disk", "note", f"{size(free)} free for {place.where()}; what is needed is unknown: {error}")
    wanted = 0 if ingest.state == "CACHED" else estimate.predict(ingest, config, where, counts).num_bytes or 0
    text = f"{size(free)} free for {place.where()}, shards still to be made take about {size(wanted)}"
    return Finding("disk", "ok" if free > wanted * estimate.DISK_MARGIN else "wrong", text)


def _ports(config: RunConfig) -> Iterator[Finding]:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", 5000))
            yield Finding("port 5000", "ok", "free for `alexnet ui`")
        except OSError:
            yield Finding("port 5000", "note", "taken: use `alexnet ui --port 5001`")
    if not config.ray.address:
        yield Finding("Ray", "ok", "starts on this machine when a stage has work, behind its token")


def answers(address: str) -> Iterator[Finding]:
    """Whether Ray answers at `ray.address`."""
    if not address:
        return
    try:
        yield Finding("Ray", "ok", f"ray.address={address}: {cluster.require(address).where} answers")
    except UsageError as error:
        yield Finding("Ray", "wrong", str(error))


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

    @pipeline_def
    def graph():
        return fn.decoders.image(fn.external_source(source=lambda: [np.frombuffer(data, np.uint8)]))

    pipe = graph(batch_size=1, num_threads=1, device_id=None)
    pipe.build()
    return pipe.run()[0].as_cpu().as_array()[0]


def _leftovers(config: RunConfig, root: Path) -> Iterator[Finding]:
    where = places(config, root, may_write=False)
    dead = sum(lease.is_dead() for lease in lock.leases(where))
    partial = Folder.at(root).stale_temporaries() if root.is_dir() else []
    if dead or partial:
        yield Finding("leftovers", "note", f"{dead} dead locks, {len(partial)} partial files: `alexnet clean --yes`")
    else:
        yield Finding("leftovers", "ok", "none")


def _training(config: RunConfig, root: Path) -> Iterator[Finding]:
    """What bounded the newest training here."""
    where = places(config, root, may_write=False)
    known = where.begun("train")
    output = where.output("train", known[0]["key"]) if known else None
    epochs = [point for point in read(output.folder) if point["kind"] == "epoch"] if output else []
    if epochs:
        bound = not epochs[-1]["verdict"].startswith("compute")
        yield Finding("last training", "note" if bound else "ok", epochs[-1]["verdict"])
