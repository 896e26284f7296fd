"""Ray Data: Parquet, Pillow in map_batches, iter_torch_batches."""

import logging
from collections.abc import Iterator

import numpy as np
import ray
import torch

from workflows.bench.loader_setting import BATCH_SIZE, BenchData
from workflows.bench.peers.pillow import augmented, decoded

_EPOCHS_IN_ONE = 16  # the same files again: starting an execution takes Ray Data seconds, which are not to be timed


def batches(data: BenchData, threads: int, device: str) -> Iterator[torch.Tensor]:
    ray.init(num_cpus=threads, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    paths = sorted(map(str, data.parquet.glob("data/*.parquet"))) * _EPOCHS_IN_ONE
    dataset = ray.data.read_parquet(paths, columns=["image", "label"], shuffle="files")
    dataset = dataset.map_batches(_augment, batch_size=BATCH_SIZE)
    try:
        while True:
            for batch in dataset.iter_torch_batches(batch_size=BATCH_SIZE, prefetch_batches=2, device=device):
                yield batch["images"]
    finally:
        ray.shutdown()


def _augment(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    images = [augmented(decoded(image["bytes"])).numpy() for image in batch["image"]]
    return {"images": np.stack(images), "labels": batch["label"]}
