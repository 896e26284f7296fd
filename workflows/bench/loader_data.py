"""The same 256 px images in the layouts that the compared loaders read, written once into a temporary folder."""

import tarfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import Literal

import numpy as np

from pipelines.manifest import Manifest, write_manifest
from pipelines.plan import plan_shards
from pipelines.shards import read_shard
from pipelines.sources.catalog import open_source
from pipelines.sources.source import Source
from pipelines.specs import IngestSpec
from pipelines.storage import Folder
from pipelines.windows import write_shards
from workflows.bench.loader_setting import NUM_IMAGES, ROWS_PER_SHARD, BenchData


def write_data(images: str, folder: Path) -> BenchData:
    data = BenchData(*(folder / name for name in BenchData._fields))
    write_tfrecords(images, data.tfrecord)
    _write_shards(images, data.raw, encoding="raw", format="tfrecord")
    _write_shards(images, data.parquet, encoding="jpeg", format="parquet")
    _write_tars_and_files(data)
    return data


def write_tfrecords(images: str, target: Path) -> None:
    """NUM_IMAGES JPEGs as our own shards."""
    _write_shards(images, target, encoding="jpeg", format="tfrecord")


def _write_shards(
    images: str, target: Path, encoding: Literal["jpeg", "raw"], format: Literal["parquet", "tfrecord"]
) -> None:
    spec = IngestSpec(source=images, val_fraction=0, format=format, encoding=encoding, rows_per_shard=ROWS_PER_SHARD)
    folder = Folder.at(target)
    source = _repeated(open_source(spec, target))
    plan = plan_shards(source, spec, folder)
    with ThreadPoolExecutor(2) as pool:
        write_manifest(folder, source, spec, chain.from_iterable(pool.map(write_shards, plan.windows())))


def _repeated(source: Source) -> Source:
    """The training images of a source, over and over, until there are NUM_IMAGES."""
    rows = source.splits["train"]
    return replace(source, splits={"train": rows.take(np.arange(NUM_IMAGES) % len(rows))})


def _write_tars_and_files(data: BenchData) -> None:
    manifest, folder = Manifest.load(Folder.at(data.tfrecord)), Folder.at(data.tfrecord)
    data.tars.mkdir()
    for number, record in enumerate(manifest.splits["train"]):
        rows = read_shard(folder, record)
        with tarfile.open(data.tars / f"{number:04d}.tar", "w") as archive:
            for id, label, image in zip(rows.ids, rows.labels, rows.images, strict=True):
                _add(archive, f"{id:07d}.jpg", image.tobytes())
                _add(archive, f"{id:07d}.cls", str(label).encode())
                path = data.files / f"{label:04d}" / f"{id:07d}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(image.tobytes())


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    archive.addfile(info, BytesIO(content))
