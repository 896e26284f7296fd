"""Which images go into which shard: the stored order of each split, cut by listed rows.

The cut does not depend on the format or the encoding. A sample's id is its place in the stored order, before anything
is set aside, so that any run of shards is already mixed.
"""

import hashlib
import json
from collections.abc import Container, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from pipelines.manifest import content_config
from pipelines.specs import IngestSpec
from pipelines.storage import Folder
from pipelines.stored_order import blocks_of, stored_in_blocks, stored_order, windows

if TYPE_CHECKING:
    import pyarrow as pa

    from pipelines.sources.source import Reader, Source

DATA = "data"  # the folder of the shards; the Hub's name for it
_QUALITIES = (1, 50, 75, 85, 90, 95, 100)
_BYTES_PER_PIXEL = (
    0.04,
    0.14,
    0.22,
    0.30,
    0.37,
    0.55,
    1.3,
)  # of a JPEG of such a quality: ImageNet's, and a fifth more
_ROW_BYTES = 1200  # besides the image's pixels: features, tables of a JPEG


@dataclass(frozen=True)
class ShardTask:
    """All that a worker needs to write one shard."""

    name: str  # "data/train-00003-of-00012.tfrecord", the path in the output
    split: str
    first_id: int
    rows: "pa.Table"  # of the source, in the order of their ids
    reader: "Reader"
    spec: IngestSpec
    folder: Folder
    origin: str  # of the plan
    class_names: tuple[str, ...]  # for the files that name them


@dataclass(frozen=True)
class ShardPlan:
    """The tasks of all shards, each made when it is asked for: 15 million rows are never cut at once."""

    source: "Source"
    spec: IngestSpec
    folder: Folder

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> ShardTask:
        from pipelines.sources.source import take_rows

        split, number, name = self._shards[index]
        first_id = number * self.spec.rows_per_shard
        chosen = self._orders[split][first_id : first_id + self.spec.rows_per_shard]
        rows = take_rows(self._listings[split], chosen)
        names = self.source.class_names if self.spec.format == "parquet" else ()
        return ShardTask(name, split, first_id, rows, self.source.reader, self.spec, self.folder, self.origin, names)

    def __iter__(self) -> Iterator[ShardTask]:
        return (self[index] for index in range(len(self)))

    def windows(self, done: Container[str] = ()) -> Iterator[list[ShardTask]]:
        """The tasks that are left, those together that read the same blocks of the source (`write_shards`)."""
        for first, stop in self._windows:
            if left := [self[index] for index in range(first, stop) if self.names[index] not in done]:
                yield left

    @cached_property
    def names(self) -> list[str]:
        return [name for _, _, name in self._shards]

    @cached_property
    def num_rows(self) -> int:
        return sum(len(order) for order in self._orders.values())

    @cached_property
    def origin(self) -> str:
        """Digest of the source and the configuration: shards of another origin are not of this plan."""
        identity = [self.source.fingerprint, content_config(self.spec), sorted(self._blocks)]
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]

    @cached_property
    def _listings(self) -> "dict[str, pa.Table]":
        """In one chunk per column: taking rows from many would copy the column each time."""
        return {split: rows.combine_chunks() for split, rows in self.source.splits.items()}

    @cached_property
    def _blocks(self) -> dict[str, np.ndarray]:
        """By split, where the order of reading matters: an archive has the one order on a disk, another in a store."""
        found = {split: blocks_of(self.source, split) for split in self.source.splits}
        return {split: blocks_N for split, blocks_N in found.items() if blocks_N is not None}

    @cached_property
    def _orders(self) -> dict[str, np.ndarray]:
        limit = self.spec.limit or None
        return {split: self._order(split, len(rows))[:limit] for split, rows in self.source.splits.items()}

    def _order(self, split: str, num_rows: int) -> np.ndarray:
        spec = self.spec
        if split not in self._blocks:
            return stored_order(num_rows, spec.seed, split)
        return stored_in_blocks(self._blocks[split], spec.seed, split, spec.rows_per_shard, spec.limit)

    @cached_property
    def _shards(self) -> list[tuple[str, int, str]]:
        """(split, number in the split, name) of each."""
        shards = []
        for split, order in self._orders.items():
            count = -(-len(order) // self.spec.rows_per_shard)
            names = (f"{DATA}/{split}-{number:05d}-of-{count:05d}.{self.spec.format}" for number in range(count))
            shards += [(split, number, name) for number, name in enumerate(names)]
        return shards

    @cached_property
    def _windows(self) -> list[tuple[int, int]]:
        """The shards that one task writes, first to behind the last."""
        ranges, start = [], 0
        for split, order in self._orders.items():
            count, rows = len(order), self.spec.rows_per_shard
            num_shards = -(-count // rows)
            alone = ((number, number + 1) for number in range(num_shards))
            own = windows(count, rows) if split in self._blocks else alone
            ranges += [(start + first, start + stop) for first, stop in own]
            start += num_shards
        return ranges


def plan_shards(source: "Source", spec: IngestSpec, folder: Folder) -> ShardPlan:
    return ShardPlan(source, spec, folder)


def predicted_bytes(num_rows: int, spec: IngestSpec) -> int:
    """About how much the shards of so many images take; for photographs on the high side."""
    per_pixel = np.interp(spec.quality, _QUALITIES, _BYTES_PER_PIXEL) if spec.encoding == "jpeg" else 3
    return int(num_rows * (spec.size**2 * per_pixel + _ROW_BYTES))
