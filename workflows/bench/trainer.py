"""How many images per second the trainers take: ours in every placement, the plain PyTorch one, ours cut down.

The full network. Batches are synthetic, but for `loader` (ours alone) and `end_to_end` (ours, and the loader before
it). Every turn is a process of its own, since the allocator is set before it starts.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from workflows.bench.common import ROOT, interleaved, stamped, table
from workflows.stages.train import KEEP_FREED_MEMORY

BATCH_SIZE, WARM_UP = 64, 3
PARTS = ("ours", "ours_two_ranks", "plain", "plain_same_allocator", "no_norm", "one_gpu_net", "loader", "end_to_end")


def run(
    images: str | None = None,
    seconds_per_part: float = 12.0,
    repeats: int = 3,
    threads: int = 2,
    parts: tuple[str, ...] = PARTS,
) -> dict:
    """images_per_s of each part, the median of the repeats, on `threads` cores; `images` are what the loader reads."""
    from workflows.bench.loader_data import write_tfrecords

    with tempfile.TemporaryDirectory() as folder:
        if {"loader", "end_to_end"} & set(parts):
            write_tfrecords(images or "demo", Path(folder))
        turns = {name: partial(_turn, name, seconds_per_part, threads, folder) for name in parts}
        images_per_s = interleaved(turns, repeats)
    print(table(images_per_s, "images/s", "plain" if "plain" in parts else parts[0]))
    rounded = {name: round(rate, 2) for name, rate in images_per_s.items()}
    settings = {"batch_size": BATCH_SIZE, "threads": threads, "repeats": repeats}
    return stamped({"images_per_s": rounded, **settings})


def _turn(name: str, seconds: float, threads: int, folder: str) -> tuple[int, float]:
    """Images and seconds of one turn; two ranks have half of the threads each."""
    world = 2 if name == "ours_two_ranks" else 1
    allocator = {} if name in ("plain", "loader") else KEEP_FREED_MEMORY
    environment = {**os.environ, "OMP_NUM_THREADS": str(max(1, threads // world)), "PYTHONPATH": str(ROOT), **allocator}
    with tempfile.TemporaryDirectory() as meeting:
        command = [sys.executable, "-m", "workflows.bench.trainer", name, str(seconds), folder, meeting, str(world)]
        ranks = [
            subprocess.Popen([*command, str(rank)], env=environment, stdout=subprocess.PIPE, text=True)
            for rank in range(world)
        ]
        outputs = [rank.communicate()[0] for rank in ranks]
    if any(rank.returncode for rank in ranks):
        raise RuntimeError(f"the turn of {name} failed; its message is above")
    return json.loads(outputs[0])


def _main(name: str, seconds: float, folder: str, meeting: str, world: int, rank: int) -> None:
    """One rank of one turn; prints images and seconds."""
    if world > 1:
        import torch.distributed as dist

        dist.init_process_group("gloo", init_method=f"file://{meeting}/ranks", rank=rank, world_size=world)
    step = _step(name, Path(folder), world, rank)
    for _ in range(WARM_UP):
        step()
    steps, began = 0, time.perf_counter()
    while _all_agree(time.perf_counter() - began < seconds, world):
        step()
        steps += 1
    print(json.dumps([steps * BATCH_SIZE, time.perf_counter() - began]), flush=True)
    os._exit(0)  # what loads ahead is not waited for


def _all_agree(mine: bool, world: int) -> bool:
    """What rank 0 says, so that both make the same steps."""
    if world == 1:
        return mine
    import torch
    import torch.distributed as dist

    answer = torch.tensor([mine])
    dist.broadcast(answer, 0)
    return bool(answer)


def _step(name: str, folder: Path, world: int, rank: int) -> Callable[[], object]:
    """What a turn repeats: takes a batch, trains on it, or both."""
    batches = _stored(folder) if name in ("loader", "end_to_end") else _synthetic()
    if name == "loader":
        return lambda: next(batches)
    trainer = _trainer(name, world, rank)
    return lambda: trainer.train_step(*next(batches))


def _stored(folder: Path):
    from pipelines.manifest import Manifest
    from pipelines.storage import Folder
    from workflows.bench.peers.ours import open_loader

    threads = int(os.environ["OMP_NUM_THREADS"])
    loader = open_loader(folder, Manifest.load(Folder.at(folder)), threads, "cpu", BATCH_SIZE)
    epoch = 0
    while True:
        for batch in loader.epoch(epoch):
            yield batch.images_BCHW, batch.labels_B
        epoch += 1


def _synthetic():
    import torch

    generator = torch.Generator().manual_seed(0)
    images_BCHW = 255 * torch.rand(BATCH_SIZE, 3, 224, 224, generator=generator)
    labels_B = torch.randint(1000, (BATCH_SIZE,), generator=generator)
    while True:
        yield images_BCHW, labels_B


def _trainer(name: str, world: int, rank: int):
    """The trainer of a part."""
    if name.startswith("plain"):
        from workflows.bench.peers.plain_alexnet import PlainTrainer

        return PlainTrainer()
    import numpy as np

    from model.columns import OneProcess, place_ranks
    from model.specs import AlexNetSpec, TrainSpec
    from model.trainer import Trainer

    spec = AlexNetSpec()
    if name == "no_norm":
        spec = replace(spec, normalisation=False)
    elif name == "one_gpu_net":
        spec = replace(spec, columns=1, kernels=(48, 128, 192, 192, 256))
    columns = place_ranks(2, 1, rank, world)[0] if world > 1 else OneProcess(spec.columns)
    return Trainer(spec, TrainSpec(lr=1e-4), np.full((256, 256, 3), 120.0), 1000, columns=columns)


if __name__ == "__main__":
    name, seconds, folder, meeting, world, rank = sys.argv[1:]
    _main(name, float(seconds), folder, meeting, int(world), int(rank))
