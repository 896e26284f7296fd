"""The smallest workflow that is still whole: 120 drawn images of four classes, a network of 28 px, seconds to train."""

from pathlib import Path

from builders import class_folders, write_files

from workflows import recipes
from workflows.config import RunConfig, dump, with_values

SETTINGS = {
    "ingest.size": 32,
    "ingest.rows_per_shard": 16,
    "ingest.encoding": "raw",
    "loader.window_shards": 4,
    "net.input_px": 28,
    "net.kernels": "16,16,16,16,16",
    "net.fc": "32,32",
    "net.conv1_kernel": 5,
    "net.conv1_stride": 1,
    "net.conv1_pad": 2,
    "train.epochs": 4,
    "train.batch_size": 8,
    "train.checkpoint_every_steps": 5,
    "ray.num_cpus": 2,
}


def write_source(folder: Path) -> Path:
    return write_files(folder, class_folders(classes="abcd", images=30))


def config(source: Path | str, **settings) -> RunConfig:
    """The tiny configuration; `train__epochs=3` sets train.epochs."""
    given = {name.replace("__", "."): value for name, value in settings.items()}
    return with_values(recipes.demo(), {**SETTINGS, "ingest.source": str(source), **given})


def write_config(path: Path, source: Path | str, **settings) -> Path:
    path.write_text(dump(config(source, **settings)))
    return path
