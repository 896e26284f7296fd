"""Our loader, as the training stage uses it: lighting on, order and augmentation functions of seed and epoch."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import torch

from pipelines.batches import Batch, lit
from pipelines.loader import TrainLoader
from pipelines.manifest import Manifest
from pipelines.names import Device
from pipelines.specs import LoaderSpec
from pipelines.storage import Folder
from workflows.bench.loader_setting import BATCH_SIZE, CROP_PX, EIGENVALUES, EIGENVECTORS, WINDOW_SHARDS, BenchData


def batches(data: BenchData, threads: int, device: Device) -> Iterator[torch.Tensor]:
    return _batches(data.tfrecord, threads, device)


def raw_batches(data: BenchData, threads: int, device: Device) -> Iterator[torch.Tensor]:
    return _batches(data.raw, threads, device)


def open_loader(
    folder: Path, manifest: Manifest, threads: int, device: Device, batch_size: int = BATCH_SIZE
) -> TrainLoader:
    return TrainLoader(
        Folder.at(folder),
        manifest,
        LoaderSpec(threads=threads, window_shards=WINDOW_SHARDS),
        crop_px=CROP_PX,
        batch_size=batch_size,
        epochs=10**6,
        eigenvalues=EIGENVALUES,
        eigenvectors=EIGENVECTORS,
        device=device,
    )


def loaded(folder: Path, threads: int, device: Device) -> Iterator[Batch]:
    """Batches as the loader hands them to a trainer, epoch after epoch."""
    loader = open_loader(folder, Manifest.load(Folder.at(folder)), threads, device)
    return (batch for epoch in count() for batch in loader.epoch(epoch))


def _batches(folder: Path, threads: int, device: Device) -> Iterator[torch.Tensor]:
    room = torch.empty(BATCH_SIZE, CROP_PX, CROP_PX, 3, device=device).permute(0, 3, 1, 2)
    for batch in loaded(folder, threads, device):
        here = room[: len(batch.crops_BCHW)]  # no new memory for each batch: as in a training
        yield lit(here.copy_(batch.crops_BCHW), batch.shift_B3)
