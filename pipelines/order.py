"""Which sample comes when: index arithmetic on the manifest's row counts, without a byte of data.

The order of an epoch is a function of (rows per shard, seed, epoch). Shards are shuffled; then consecutive groups of
`window_shards` of them, the windows, are held in memory one after the other and the samples of a window are shuffled
among themselves. A position is a sample's place in the epoch. Only the window that holds a position is ever computed,
so starting in the middle of an epoch costs the same as starting it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pipelines.philox import permutation

SHARDS, SAMPLES = 1, 2  # what the random numbers are for; the augmentation has purposes of its own


class Window(NamedTuple):
    """Positions start .. start + len(rows) - 1: these rows of these shards laid end to end."""

    start: int
    shards: np.ndarray
    rows: np.ndarray


class EpochOrder:
    """The order of one epoch over shards of the given row counts; without a key (seed, epoch) it is the stored one."""

    def __init__(self, rows_per_shard: Sequence[int], window_shards: int, key: tuple[int, int] | None = None):
        self.window_shards, self.key = window_shards, key
        num_shards = len(rows_per_shard)
        self.shards = permutation(key, SHARDS, num_shards) if key else np.arange(num_shards)
        shard_ends = np.cumsum(np.asarray(rows_per_shard, dtype=np.int64)[self.shards])
        last_shards = np.arange(window_shards - 1, num_shards + window_shards - 1, window_shards)
        self.window_ends = shard_ends[np.minimum(last_shards, num_shards - 1)]

    def __len__(self) -> int:
        return int(self.window_ends[-1]) if len(self.window_ends) else 0

    @property
    def num_windows(self) -> int:
        return len(self.window_ends)

    def windows_at(self, positions: np.ndarray) -> np.ndarray:
        """The numbers of the windows that hold these positions."""
        return np.searchsorted(self.window_ends, positions, side="right")

    def window_shard_numbers(self, number: int) -> np.ndarray:
        return self.shards[number * self.window_shards : (number + 1) * self.window_shards]

    def window(self, number: int) -> Window:
        start = int(self.window_ends[number - 1]) if number else 0
        num_rows = int(self.window_ends[number]) - start
        rows = permutation(self.key, SAMPLES, num_rows, stream=number) if self.key else np.arange(num_rows)
        return Window(start, self.window_shard_numbers(number), rows)


def num_batches(num_samples: int, batch_size: int) -> int:
    """Global batches in an epoch; the last may be short and is kept."""
    return -(-num_samples // batch_size)


def share(start: int, stop: int, part: int, num_parts: int) -> tuple[int, int]:
    """The contiguous `part` of start..stop; the parts tile it, differ by one at most, the first is largest."""
    assert 0 <= part < num_parts, (part, num_parts)
    size = stop - start
    return start - (-size * part // num_parts), start - (-size * (part + 1) // num_parts)
