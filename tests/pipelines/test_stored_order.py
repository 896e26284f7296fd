"""The stored order is arithmetic; where it goes by blocks, each is read once and a training batch cannot tell."""

import numpy as np
import pytest

from pipelines.order import EpochOrder
from pipelines.stored_order import WINDOW_ROWS, stored_in_blocks, stored_order, windows

GOLDEN = {"train": [5, 1, 7, 6, 2, 3, 0, 4], "val": [1, 5, 4, 3, 0, 7, 2, 6], "seed 1": [5, 7, 6, 2, 0, 3, 1, 4]}
GOLDEN_BLOCKS = [3, 9, 4, 10, 5, 11, 6, 0, 1, 7, 2, 8]
BATCH, SHARD_ROWS, WINDOW_SHARDS = 128, 1024, 8  # the recipes' and the loader's


def test_the_order_of_a_seed_never_changes():
    """Golden: whoever stored shards relies on it."""
    assert stored_order(8, 0, "train").tolist() == GOLDEN["train"]
    assert stored_order(8, 0, "val").tolist() == GOLDEN["val"]
    assert stored_order(8, 1, "train").tolist() == GOLDEN["seed 1"]
    assert stored_in_blocks(np.arange(12) // 3, 0, "train", rows_per_shard=2).tolist() == GOLDEN_BLOCKS


@pytest.mark.parametrize("num_rows", [0, 1, 2, 1000])
def test_the_order_is_a_permutation(num_rows):
    assert sorted(stored_order(num_rows, 3, "train").tolist()) == list(range(num_rows))


def test_any_run_of_the_order_is_mixed():
    """A tenth of the order has its share of every tenth of the listing."""
    counts = np.histogram(stored_order(100_000, 0, "train")[20_000:30_000], bins=10, range=(0, 100_000))[0]
    assert np.abs(counts - 1000).max() < 5 * np.sqrt(1000)


@pytest.mark.parametrize("block_rows", [1, 7, 100, 5000])
@pytest.mark.parametrize("rows_per_shard", [3, 1024, WINDOW_ROWS + 1])
@pytest.mark.parametrize("num_rows", [0, 1, 100, WINDOW_ROWS + 1, 3 * WINDOW_ROWS + 5])
def test_an_order_by_blocks_is_a_permutation_that_reads_few_blocks_twice(num_rows, rows_per_shard, block_rows):
    blocks = 10**12 + 7 * (np.arange(num_rows) // block_rows)  # any numbers
    order = stored_in_blocks(blocks, 0, "train", rows_per_shard)
    assert sorted(order.tolist()) == list(range(num_rows))
    cut = windows(num_rows, rows_per_shard)
    read = sum(len(np.unique(blocks[order[a * rows_per_shard : b * rows_per_shard]])) for a, b in cut)
    assert read <= len(np.unique(blocks)) + max(0, len(cut) - 1)  # one that lies across each boundary


@pytest.mark.parametrize("num_rows", [1, 1000, WINDOW_ROWS, WINDOW_ROWS + 1, 1_281_167])
def test_windows_tile_the_shards_and_are_no_larger_than_said(num_rows):
    cut = windows(num_rows, 1024)
    assert [shard for first, stop in cut for shard in range(first, stop)] == list(range(-(-num_rows // 1024)))
    sizes = [stop - first for first, stop in cut]
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) * 1024 <= WINDOW_ROWS


def test_a_few_images_read_a_few_blocks():
    """A look at 500 images reads some 40 row groups of 100, not the 328 of a window; 50,000 read what they need."""
    blocks = np.arange(200_000) // 100
    for limit, at_most in ((500, 40), (50_000, 501)):
        order = stored_in_blocks(blocks, 0, "train", 1024, limit)
        assert len(order) >= limit
        assert len(np.unique(blocks[order[:limit]])) <= at_most
    assert len(np.unique(blocks[stored_in_blocks(blocks, 0, "train", 1024, 500)[:500]])) > 35


def test_neighbours_part():
    """What lies side by side, frames of a video or doubles, comes into different shards of the window."""
    order = stored_in_blocks(np.arange(8192) // 100, 0, "train", 1024)
    shard_of = np.empty(8192, int)
    shard_of[order] = np.arange(8192) // 1024
    within = np.arange(8191)[np.arange(8191) % 100 != 99]
    assert (shard_of[within] != shard_of[within + 1]).all()


def classes_in_batches(order: np.ndarray, class_of_row: np.ndarray) -> np.ndarray:
    """How many classes there are in each batch of the first epoch, in windows of the loader."""
    starts = range(0, len(order), SHARD_ROWS)
    epoch = EpochOrder([len(order[start : start + SHARD_ROWS]) for start in starts], WINDOW_SHARDS, (0, 0))
    counts = []
    for number in range(0, epoch.num_windows - 1, 4):
        window = epoch.window(number)
        stored = np.concatenate([order[shard * SHARD_ROWS :][:SHARD_ROWS] for shard in window.shards])
        batches = class_of_row[stored[window.rows]].reshape(-1, BATCH)
        counts += [len(np.unique(batch)) for batch in batches]
    return np.array(counts)


@pytest.mark.parametrize("block_rows", [72, 100])
def test_a_batch_cannot_tell_that_a_source_sorted_by_class_was_mixed_by_blocks(block_rows):
    """ImageNet, 1000 classes one after the other: row groups of 100, or runs of 8 MB; 72 images of 110 kB."""
    rows = np.arange(1_281_167)
    class_of_row = rows * 1000 // len(rows)
    fully = classes_in_batches(stored_order(len(rows), 0, "train"), class_of_row)
    by_blocks = classes_in_batches(stored_in_blocks(rows // block_rows, 0, "train", SHARD_ROWS), class_of_row)
    assert abs(fully.mean() - 120.2) < 0.3  # 1000 * (1 - 0.999 ** 128)
    assert fully.mean() - by_blocks.mean() < fully.std()  # of a batch
