"""Ray Data as its documentation shows it: read_images, map, write_parquet."""

import shutil
from pathlib import Path

import numpy as np
import ray
from PIL import Image

from workflows.bench.peers.pillow_pool import squared


def write_parquet(files: list[str], folder: Path) -> None:
    """All files to Parquet, on the Ray that is running."""
    shutil.rmtree(folder, ignore_errors=True)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    ray.data.read_images(files, mode="RGB", ignore_missing_paths=False).map(_prepare).write_parquet(str(folder))


def _prepare(row: dict[str, np.ndarray]) -> dict[str, bytes]:
    return {"image": squared(Image.fromarray(row["image"]))}
