"""A source that holds its images itself, for tests of what is made of them."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import pyarrow as pa

from pipelines.manifest import Manifest, write_manifest
from pipelines.plan import plan_shards
from pipelines.sources.source import Source, listing
from pipelines.specs import IngestSpec
from pipelines.storage import Folder
from pipelines.windows import write_shards
from tests.builders import jpeg


@dataclass(frozen=True)
class MemoryReader:
    contents: tuple[bytes, ...]

    def read(self, rows: pa.Table) -> Iterator[bytes]:
        for offset in rows["offset"].to_pylist():
            yield self.contents[offset]


def memory_source(splits: dict[str, list[bytes]], num_classes: int = 3) -> Source:
    """Images by split; the label of each is its place modulo the classes; two files, to be read in turns."""
    contents, tables = [], {}
    for split, images in splits.items():
        offsets = range(len(contents), len(contents) + len(images))
        contents += images
        files = pa.array([f"archive{i % 2}" for i in offsets]).dictionary_encode()
        keys = [f"{split}/{i}.jpg" for i in range(len(images))]
        labels = [i % num_classes for i in range(len(images))]
        tables[split] = listing(
            keys, labels, files, pa.array(offsets, pa.int64()), pa.array(map(len, images), pa.int64())
        )
    names = tuple("abcdefgh"[:num_classes])
    return Source("memory", "0" * 64, names, names, tables, MemoryReader(tuple(contents)))


def jpegs(count: int, first_seed: int = 0) -> list[bytes]:
    """Different JPEGs of different sizes."""
    return [jpeg(seed, 40 + seed % 7, 32 + seed % 5) for seed in range(first_seed, first_seed + count)]


def ingest(folder: Path | str, source: Source, /, **options) -> tuple[Folder, Manifest]:
    """All shards of a source and the manifest, written in this process."""
    spec = IngestSpec(**{"source": "memory", "size": 24, "rows_per_shard": 5, **options})
    target = Folder.at(folder)
    records = chain.from_iterable(map(write_shards, plan_shards(source, spec, target).windows()))
    return target, write_manifest(target, source, spec, records)
