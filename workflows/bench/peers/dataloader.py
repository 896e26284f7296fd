"""torch.utils.data.DataLoader with Pillow on a folder of JPEGs: what most people start from."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Dataset

from workflows.bench.loader_setting import BATCH_SIZE, BenchData
from workflows.bench.peers.pillow import augmented, decoded


class JpegFiles(Dataset):
    """(image, label) of each file LABEL/NAME.jpg."""

    def __init__(self, folder: Path):
        self.paths = sorted(folder.glob("*/*.jpg"))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        path = self.paths[index]
        return augmented(decoded(path.read_bytes())), int(path.parent.name)


def batches(data: BenchData, threads: int, device: str) -> Iterator[torch.Tensor]:
    loader = DataLoader(
        JpegFiles(data.files),
        BATCH_SIZE,
        shuffle=True,
        num_workers=threads,
        persistent_workers=True,
        pin_memory=device == "cuda",
    )
    while True:
        for images_BCHW, _ in loader:
            yield images_BCHW.to(device, non_blocking=True)
