"""In which order the samples of a split are stored: a function of its rows and the seed, without a byte of data.

What is quick to reach in any order (files, archives on a disk) is stored in one permutation of the whole split, so
that every shard draws from everywhere. Elsewhere that would read a row group, or ask a store, for each image anew:
there blocks are permuted (row groups; runs of neighbouring members), then each window of WINDOW_ROWS is dealt to its
shards, as cards are, so that neighbours part, and each shard is permuted. One task writes a window and reads each block
once.

A window is so large that a training batch cannot tell. Where ImageNet is sorted by class and comes in row groups of
100, 128 images from the loader's window of 8 shards of 1024 are of 118.2 classes on average, of 120.2 +- 2.6 after one
permutation; from runs of 8 MB (72 images) of 119.1.
"""

from typing import TYPE_CHECKING

import numpy as np

from pipelines.names import TEST, TRAIN, VAL
from pipelines.order import share
from pipelines.philox import permutation

if TYPE_CHECKING:
    from pipelines.sources.source import Source

WINDOW_ROWS = 32_768  # at most, and at least one shard
ROWS_BEHIND_A_LIMIT = 8  # a few images are taken out of so many times their number, not out of a whole window
BLOCKS, STORED = 3, 4  # what the random numbers are for; the order of an epoch has purposes of its own
_SPLITS = (TRAIN, VAL, TEST)  # the place of a split is part of its key


def stored_order(num_rows: int, seed: int, split: str) -> np.ndarray:
    """Indices of a listing's rows, uint32, in one permutation."""
    return permutation((seed, _SPLITS.index(split)), STORED, num_rows).astype(np.uint32)


def stored_in_blocks(blocks_N: np.ndarray, seed: int, split: str, rows_per_shard: int, limit: int = 0) -> np.ndarray:
    """The same for rows that lie in these blocks (any numbers, equal for rows of one): mixed within windows."""
    key = seed, _SPLITS.index(split)
    _, block_N = np.unique(blocks_N, return_inverse=True)
    place_of_block = permutation(key, BLOCKS, int(block_N.max(initial=-1)) + 1)
    order = np.argsort(place_of_block[block_N], kind="stable").astype(np.uint32)
    order = order[: max(limit, min(limit * ROWS_BEHIND_A_LIMIT, WINDOW_ROWS)) or None]
    for first, stop in windows(len(order), rows_per_shard):
        window = order[first * rows_per_shard : stop * rows_per_shard]
        window[:] = np.concatenate([window[number :: stop - first] for number in range(stop - first)])
    for number in range(-(-len(order) // rows_per_shard)):
        shard = order[number * rows_per_shard : (number + 1) * rows_per_shard]
        shard[:] = shard[permutation(key, STORED, len(shard), stream=number)]
    return order


def windows(num_rows: int, rows_per_shard: int) -> list[tuple[int, int]]:
    """The shards of each window, first to behind the last; windows differ by one shard at most."""
    num_shards = -(-num_rows // rows_per_shard)
    shards_each = max(1, WINDOW_ROWS // rows_per_shard)
    count = -(-num_shards // shards_each)
    return [share(0, num_shards, number, count) for number in range(count)]


def blocks_of(source: "Source", split: str) -> np.ndarray | None:
    """The block of each row of a split; None where its reader is as quick in any order."""
    from pipelines.sources.source import BlockReader

    reader = source.reader
    return reader.blocks(source.splits[split]) if isinstance(reader, BlockReader) else None
