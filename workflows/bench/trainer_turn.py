"""One rank of one turn of the trainer's bench, a program: prints images, seconds, memory and facts as JSON."""

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from model.columns import OneProcess, place_ranks
from model.specs import AlexNetSpec, TrainSpec
from model.step import autocast, backward
from model.trainer import Trainer
from pipelines.names import Device
from workflows.bench.common import peak_mib

WARM_UP = 3
BATCH_SIZE = {"cpu": 64, "cuda": 1024}
PRODUCT = {"cpu": (2048, torch.float32), "cuda": (8192, torch.bfloat16)}  # side and type of the large matrix product


def main(name: str, seconds: float, folder: Path, device: Device, meeting: str, world: int, rank: int) -> None:
    if world > 1:  # gloo, also where both share one GPU, which NCCL refuses
        dist.init_process_group("gloo", init_method=f"file://{meeting}/ranks", rank=rank, world_size=world)
    batches = _stored(folder, device) if name in ("loader", "end_to_end") else _synthetic(name, device)
    before_mib = _peak_mib(device)
    trainer: Any = None if name == "loader" else _trainer(name, device, world, rank)
    for _ in range(WARM_UP):
        _step(trainer, batches)
    _wait_for(device)
    steps, began = 0, time.perf_counter()
    while _all_agree(time.perf_counter() - began < seconds, world):
        _step(trainer, batches)
        steps += 1
    _wait_for(device)
    elapsed = time.perf_counter() - began
    facts: dict[str, Any] = {"batch_size": BATCH_SIZE[device]}
    training_mib = round(_peak_mib(device) - before_mib)
    if name == "ours":
        facts |= {"ms_per_part": _ms_per_part(trainer, *next(batches)), "product_tflops": _product_tflops(device)}
    elif world > 1:
        exchanged = trainer.net.columns.bytes_for["layers"] / (WARM_UP + steps)
        facts |= {"exchanged_bytes_per_image": round(exchanged / BATCH_SIZE[device])}
    images = steps * BATCH_SIZE[device]
    print(json.dumps({"images": images, "seconds": elapsed, "training_mib": training_mib, "facts": facts}), flush=True)
    os._exit(0)  # what loads ahead is not waited for


def _step(trainer: Any, batches: Iterator[tuple]) -> None:
    """Takes a batch, and trains on it if there is a trainer."""
    batch = next(batches)
    if trainer:
        trainer.train_step(*batch)


def _peak_mib(device: Device) -> float:
    """The most memory that this process has held: of the GPU, or without one its own."""
    return torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else peak_mib()


def _all_agree(mine: bool, world: int) -> bool:
    """What rank 0 says, so that both make the same steps."""
    if world == 1:
        return mine
    answer = torch.tensor([mine])
    dist.broadcast(answer, 0)
    return bool(answer)


def _stored(folder: Path, device: Device) -> Iterator[tuple]:
    from pipelines.manifest import Manifest
    from pipelines.storage import Folder
    from workflows.bench.peers.ours import open_loader

    threads = int(os.environ["OMP_NUM_THREADS"])
    loader = open_loader(folder, Manifest.load(Folder.at(folder)), threads, device, BATCH_SIZE[device])
    epoch = 0
    while True:
        for batch in loader.epoch(epoch):
            yield batch.crops_BCHW, batch.labels_B, batch.shift_B3
        epoch += 1


def _synthetic(name: str, device: Device) -> Iterator[tuple[Tensor, Tensor]]:
    """Bytes, channels last, as our loader gives them; floats for the plain trainer, as a DataLoader gives them."""
    generator = torch.Generator().manual_seed(0)
    images_BHWC = torch.randint(256, (BATCH_SIZE[device], 224, 224, 3), dtype=torch.uint8, generator=generator)
    labels_B = torch.randint(1000, (BATCH_SIZE[device],), generator=generator)
    images_BCHW = images_BHWC.to(device).permute(0, 3, 1, 2)
    if name.startswith("plain"):
        images_BCHW = images_BCHW.to(torch.float32, memory_format=torch.contiguous_format)
    batch = images_BCHW, labels_B.to(device)
    while True:
        yield batch


def _trainer(name: str, device: Device, world: int, rank: int) -> Any:
    """The trainer of a part."""
    if name.startswith("plain"):
        from workflows.bench.peers.plain_alexnet import PlainTrainer

        return PlainTrainer(device)
    import numpy as np

    spec, train = AlexNetSpec(), TrainSpec(lr=1e-4, precision="bf16" if device == "cuda" else "float32")
    if name == "no_norm":
        spec = replace(spec, normalisation=False)
    elif name == "one_gpu_net":
        spec = replace(spec, columns=1, kernels=(48, 128, 192, 192, 256))
    elif name == "ours_tf32":
        train = replace(train, precision="tf32")
    elif name == "ours_float32":
        train = replace(train, precision="float32")
    columns = place_ranks(2, 1, rank, world)[0] if world > 1 else OneProcess(spec.columns)
    return Trainer(spec, train, np.full((256, 256, 3), 120.0), 1000, columns=columns, device=device)


def _ms_per_part(trainer: Trainer, images_BCHW: Tensor, labels_B: Tensor) -> dict[str, float]:
    """Input (from host memory to the device, less the mean), forward with the loss, backward, update: medians, ms."""
    net, device, precision = trainer.net, trainer.device, trainer.spec.precision
    host = images_BCHW.cpu()
    host = host.pin_memory() if device.type == "cuda" else host

    def forward() -> Tensor:
        with autocast(device, precision):
            logits_BK = net(images_BCHW)
        return torch.nn.functional.cross_entropy(logits_BK.float(), labels_B)

    def both() -> None:
        trainer.flat.clear_gradients()
        backward(net, images_BCHW, labels_B, precision=precision)

    centred_s = _median_s(lambda: net.centre(images_BCHW), device.type)
    seconds = {"input": _median_s(lambda: net.centre(host.to(device, non_blocking=True)), device.type)}
    forward_s = _median_s(forward, device.type)
    both_s = _median_s(both, device.type)
    seconds |= {"forward": forward_s - centred_s, "backward": both_s - forward_s}
    rates = {name: trainer.schedule.rate(trainer.step, name) for name in trainer.flat.places}
    seconds["update"] = _median_s(lambda: trainer.optimizer.update(rates), device.type)
    return {part: round(1e3 * value, 2) for part, value in seconds.items()}


def _product_tflops(device: Device) -> float:
    """What one large matrix product reaches on this machine."""
    side, dtype = PRODUCT[device]
    left, right = torch.rand(2, side, side, dtype=dtype, device=device)
    out = torch.empty_like(left)
    return round(2 * side**3 / _median_s(lambda: torch.mm(left, right, out=out), device) / 1e12, 3)


def _median_s(work: Callable[[], object], device: str, repeats: int = 5) -> float:
    times = []
    for _ in range(1 + repeats):
        _wait_for(device)
        began = time.perf_counter()
        work()
        _wait_for(device)
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])


def _wait_for(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    name, seconds, folder, device, meeting, world, rank = sys.argv[1:]
    main(name, float(seconds), Path(folder), "cuda" if device == "cuda" else "cpu", meeting, int(world), int(rank))
