"""Ray Data: as its documentation shows it, and as somebody writes it who knows where the time goes."""

import shutil
from pathlib import Path

import numpy as np
import ray
from PIL import Image

from pipelines.images import encode_jpeg, to_square
from pipelines.specs import IngestSpec
from workflows.bench.peers.pillow_pool import squared


def write_parquet(files: list[str], folder: Path) -> None:
    """read_images, map, write_parquet: all files to Parquet, on the Ray that is running."""
    _begin(folder)
    ray.data.read_images(files, mode="RGB", ignore_missing_paths=False).map(_prepare).write_parquet(str(folder))


def write_parquet_of_batches(files: list[str], folder: Path) -> None:
    """The same of encoded bytes in batches, with our decoding and resize."""
    _begin(folder)
    ray.data.read_binary_files(files).map_batches(_prepare_batch, batch_size=64).write_parquet(str(folder))


def _begin(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    ray.data.DataContext.get_current().enable_progress_bars = False


def _prepare(row: dict[str, np.ndarray]) -> dict[str, bytes]:
    return {"image": squared(Image.fromarray(row["image"]))}


def _prepare_batch(batch: dict[str, np.ndarray]) -> dict[str, list[bytes]]:
    import torch

    torch.set_num_threads(1)
    spec = IngestSpec()
    squares = (to_square(data, spec.size, spec.max_pixels) for data in batch["bytes"])
    return {"image": [encode_jpeg(square.pixels_HWC, spec.quality) for square in squares]}
