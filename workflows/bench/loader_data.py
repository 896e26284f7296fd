"""The same 256 px images in the layouts that the compared loaders read, written once into a temporary folder."""

import tarfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np

from pipelines.manifest import Manifest, write_manifest
from pipelines.shards import plan_shards, read_shard, write_shard
from pipelines.sources.catalog import open_source
from pipelines.sources.source import Source
from pipelines.specs import IngestSpec
from pipelines.storage import Folder
from workflows.bench.loader_setting import NUM_IMAGES, ROWS_PER_SHARD, BenchData


def write_data(images: str, folder: Path) -> BenchData:
    data = BenchData(*(folder / name for name in BenchData._fields))
    for target, format, encoding in [
        (data.tfrecord, "tfrecord", "jpeg"),
        (data.raw, "tfrecord", "raw"),
        (data.parquet, "parquet", "jpeg"),
    ]:
        spec = IngestSpec(
            source=images, val_fraction=0, format=format, encoding=encoding, rows_per_shard=ROWS_PER_SHARD
        )
        _write_shards(spec, Folder.at(target), folder)
    _write_tars_and_files(data)
    return data


def _write_shards(spec: IngestSpec, folder: Folder, cache: Path) -> None:
    source = _repeated(open_source(spec, cache))
    plan = plan_shards(source, spec, folder)
    with ThreadPoolExecutor(2) as pool:
        write_manifest(folder, source, spec, pool.map(write_shard, plan))


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
