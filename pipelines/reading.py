"""Samples by their position in an epoch: the shards in use, and those that come next, fetched by threads meanwhile.

The same for a local folder and an object store. Two shuffle windows are held: the one in use and the next.
"""

from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain
from typing import NamedTuple

import numpy as np

from pipelines.formats.rows import ShardRows
from pipelines.order import EpochOrder
from pipelines.shard_record import ShardRecord
from pipelines.shards import read_shard
from pipelines.storage import Folder

_THREADS = 4


class ShardReader:
    """Reads shards by their number in a split, ahead of their use, each once while it is held."""

    def __init__(self, folder: Folder, records: Sequence[ShardRecord]):
        self.folder, self.records = folder, records
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="shards")
        self._held: dict[int, Future[ShardRows]] = {}

    def hold(self, numbers: Iterable[int]) -> None:
        """Keep or begin to fetch these, in this order, and let go of all others."""
        wanted = [int(number) for number in numbers]
        for number in self._held.keys() - set(wanted):
            self._held.pop(number).cancel()
        for number in wanted:
            if number not in self._held:
                self._held[number] = self._pool.submit(read_shard, self.folder, self.records[number])

    def rows(self, number: int) -> ShardRows:
        """A held shard; waits until it is there."""
        return self._held[int(number)].result()

    def describe(self, number: int, row: int, id: int) -> str:
        return f"{self.folder.where(self.records[number].name)} row {row} (id {id})"


class Samples(NamedTuple):
    """As many stored samples, and where each lies."""

    images: list[np.ndarray]  # uint8: a JPEG's bytes, or [H, W, 3]
    labels_B: np.ndarray  # int64
    ids_B: np.ndarray  # int64
    shards_B: np.ndarray  # number of the shard in the split
    rows_B: np.ndarray  # row in the shard


class OrderedSamples:
    """The samples of an order by position, a window at a time; `then` are the shards to fetch behind the last one."""

    def __init__(self, reader: ShardReader, order: EpochOrder, then: Iterable[int] = ()):
        self.reader, self.order, self._then = reader, order, then
        self._number: int | None = None

    def take(self, positions_B: np.ndarray) -> Samples:
        """The samples at ascending positions."""
        window_B = self.order.windows_at(positions_B)
        parts = [self._take_from(int(number), positions_B[window_B == number]) for number in np.unique(window_B)]
        return Samples(
            [image for part in parts for image in part.images],
            *(np.concatenate([part[column] for part in parts] or [np.empty(0, np.int64)]) for column in range(1, 5)),
        )

    def _take_from(self, number: int, positions_B: np.ndarray) -> Samples:
        if number != self._number:
            self._open(number)
        index_B = self._window.rows[positions_B - self._window.start]
        shard_B = np.searchsorted(self._ends, index_B, side="right")
        row_B = index_B - (self._ends[shard_B] - self._sizes[shard_B])
        return Samples(
            [self._images[index] for index in index_B.tolist()],
            self._labels[index_B],
            self._ids[index_B],
            self._window.shards[shard_B],
            row_B,
        )

    def _open(self, number: int) -> None:
        """Lay the shards of a window end to end, and have the next fetched."""
        is_last = number + 1 == self.order.num_windows
        later = self._then if is_last else self.order.window_shard_numbers(number + 1)
        self.reader.hold(chain(self.order.window_shard_numbers(number), later))
        self._number, self._window = number, self.order.window(number)
        shards = [self.reader.rows(shard) for shard in self._window.shards]
        self._sizes = np.array([len(shard) for shard in shards])
        self._ends = np.cumsum(self._sizes)
        self._images = [image for shard in shards for image in shard.images]
        self._labels = np.concatenate([shard.labels for shard in shards]).astype(np.int64)
        self._ids = np.concatenate([shard.ids for shard in shards])
