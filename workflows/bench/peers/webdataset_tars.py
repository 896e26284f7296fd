"""WebDataset: tar shards, its shuffle buffer, Pillow in its workers."""

from collections.abc import Iterator

import torch
import webdataset

from workflows.bench.loader_setting import BATCH_SIZE, BenchData
from workflows.bench.peers.pillow import augmented


def batches(data: BenchData, threads: int, device: str) -> Iterator[torch.Tensor]:
    tars = sorted(map(str, data.tars.glob("*.tar")))
    dataset = (
        webdataset.WebDataset(tars, shardshuffle=len(tars))
        .shuffle(1024)
        .decode("pil")
        .to_tuple("jpg", "cls")
        .map_tuple(augmented, int)
        .batched(BATCH_SIZE)
    )
    loader = webdataset.WebLoader(
        dataset, batch_size=None, num_workers=threads, persistent_workers=True, pin_memory=device == "cuda"
    )
    while True:
        for images_BCHW, _ in loader:
            yield images_BCHW.to(device, non_blocking=True)
