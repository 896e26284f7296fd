"""How many images per second each loader delivers: ours and its peers, the same images, crops and batches.

Each turn of each loader is a process of its own, so that no worker of one runs while another is timed. The first epoch
is not timed: files come from memory, workers have started, shards are checked.
"""

import importlib
import multiprocessing
import os
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median

from pipelines.names import Device
from workflows.bench.common import interleaved, peak_mib, stamped, table
from workflows.bench.loader_setting import BATCH_SIZE, CROP_PX, NUM_IMAGES, BenchData

PARTS = {
    "ours": ("ours", "batches"),
    "ours_raw": ("ours", "raw_batches"),
    "dali_reader": ("dali_reader", "batches"),
    "dataloader": ("dataloader", "batches"),
    "webdataset": ("webdataset_tars", "batches"),
    "ray_data": ("ray_data", "batches"),
}
_OF_ONE_PROCESS = ("ours", "ours_raw", "dali_reader")  # whose memory the process itself knows
_OURS = {"ours": "tfrecord", "ours_raw": "raw"}  # and what each of ours reads


def run(
    images: str | None = None,
    seconds_per_part: float = 5.0,
    repeats: int = 5,
    threads: int = 2,
    device: Device = "cpu",
    parts: tuple[str, ...] = tuple(PARTS),
) -> dict:
    """images_per_s of each loader, median of the repeats; `images` is a source as in ingest.source, None the demo's."""
    from workflows.bench.loader_data import write_data  # loads pyarrow, which forked workers of a peer do not survive

    peak_memory_mib: dict[str, float] = {}

    def measure(name: str) -> tuple[int, float]:
        num_images, seconds, peak_mib = _in_new_process(_measure, name, data, seconds_per_part, threads, device)
        peak_memory_mib[name] = max(peak_mib, peak_memory_mib.get(name, 0))
        return num_images, seconds

    with tempfile.TemporaryDirectory() as folder:
        data = write_data(images or "demo", Path(folder))
        images_per_s = interleaved({name: partial(measure, name) for name in parts}, repeats)
        python_us = {
            name: [
                _in_new_process(_python_us, getattr(data, _OURS[name]), seconds_per_part, threads, device)
                for _ in range(repeats)
            ]
            for name in parts
            if name in _OURS
        }
        resume_s = _in_new_process(_resume_in_a_large_epoch, data, threads)
    result = {
        "images_per_s": {name: round(rate, 1) for name, rate in images_per_s.items()},
        "peak_memory_mib": {name: round(peak_memory_mib[name]) for name in parts if name in _OF_ONE_PROCESS},
        "python_us_per_image": {name: _medians(turns) for name, turns in python_us.items()},
        "first_batch_after_resume_s": round(resume_s, 3),
        "threads": threads,
        "device": device,
        "source": Path(images).name if images else "demo",
        "repeats": repeats,
    }
    print(table(images_per_s, "images/s", "dali_reader" if "dali_reader" in parts else parts[0]))
    for name, us in result["python_us_per_image"].items():
        print(f"{name}: CPU time of Python's threads, us an image: {us['training']} training, {us['reading']} reading")
    print(f"first batch after resuming within 1.28 million images: {resume_s:.2f} s beyond starting DALI")
    return stamped(result)


def _in_new_process(function: Callable, *arguments):
    """A process that may start workers of its own, which a pool's daemons may not."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def _measure(name: str, data: BenchData, seconds: float, threads: int, device: Device) -> tuple[int, float, float]:
    """Images and seconds of whole batches, and the peak memory of this process."""
    import torch

    torch.set_num_threads(1)
    module, function = PARTS[name]
    batches = getattr(importlib.import_module(f"workflows.bench.peers.{module}"), function)(data, threads, device)
    for _ in range(NUM_IMAGES // BATCH_SIZE):
        _check(next(batches))
    num_images, started = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - started) < seconds:
        num_images += len(_check(next(batches)))
    batches.close()
    return num_images, elapsed, peak_mib()


def _python_us(folder: Path, seconds: float, threads: int, device: Device) -> dict[str, float]:
    """CPU time an image of the threads that Python knows, without DALI's: at most so long they hold the interpreter."""
    from workflows.bench.peers.ours import loaded

    batches = loaded(folder, threads, device)
    for _ in range(NUM_IMAGES // BATCH_SIZE):
        next(batches)
    num_images, started, before = 0, time.perf_counter(), _python_s()
    while time.perf_counter() - started < seconds:
        num_images += len(next(batches).ids_B)
    return {name: 1e6 * (after - before[name]) / num_images for name, after in _python_s().items()}


def _python_s() -> dict[str, float]:
    """CPU seconds, in user mode and in the kernel, of the thread that trains and of those that read shards."""
    found = {"training": 0.0, "reading": 0.0}
    for thread in threading.enumerate():
        name = "training" if thread is threading.main_thread() else "reading"
        assert thread.ident, "it runs"
        found[name] += time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
    return found


def _medians(turns: list[dict[str, float]]) -> dict[str, float]:
    return {name: round(median(turn[name] for turn in turns), 1) for name in turns[0]}


def _check(images_BCHW):
    """Every loader delivers the same kind of batch, or the comparison means nothing."""
    import torch

    assert images_BCHW.shape[1:] == (3, CROP_PX, CROP_PX), images_BCHW.shape
    assert str(images_BCHW.dtype) == "torch.float32"
    assert images_BCHW.is_contiguous() or images_BCHW.is_contiguous(memory_format=torch.channels_last)
    return images_BCHW


def _resume_in_a_large_epoch(data: BenchData, threads: int) -> float:
    """Seconds to the first batch from the middle of 1.28 million images: 1,250 shards that are names of one."""
    from pipelines.decode import Decoder
    from pipelines.manifest import Manifest
    from pipelines.storage import Folder
    from workflows.bench.peers.ours import open_loader

    manifest = Manifest.load(Folder.at(data.tfrecord))
    first = manifest.splits["train"][0]
    with tempfile.TemporaryDirectory(dir=data.tfrecord) as folder:
        records = tuple(replace(first, name=f"{number}.tfrecord") for number in range(1250))
        for record in records:
            os.link(data.tfrecord / first.name, Path(folder) / record.name)
        large = replace(manifest, splits={"train": records})
        before = time.perf_counter()
        Decoder("jpeg", manifest.size_px, CROP_PX, BATCH_SIZE, threads, "cpu")
        starting_dali_s = time.perf_counter() - before
        before = time.perf_counter()
        loader = open_loader(Path(folder), large, threads, "cpu")
        next(loader.epoch(1, start_step=loader.steps_per_epoch // 2))
        return time.perf_counter() - before - starting_dali_s
