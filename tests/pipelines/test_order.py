import sys

import numpy as np
import pytest

from pipelines.order import EpochOrder, num_batches, share


def epoch_of(rows_per_shard, window_shards=2, key=(0, 0)) -> list[tuple[int, int]]:
    """(shard, row) at each position."""
    order = EpochOrder(rows_per_shard, window_shards, key)
    taken = []
    for number in range(order.num_windows):
        window = order.window(number)
        assert window.start == len(taken)
        laid = [(int(shard), row) for shard in window.shards for row in range(rows_per_shard[shard])]
        taken += [laid[row] for row in window.rows]
    assert len(taken) == len(order)
    return taken


@pytest.mark.parametrize("window_shards", [1, 2, 3, 100])
@pytest.mark.parametrize("rows_per_shard", [[7], [4, 4, 4], [5, 0, 3, 1], [0, 0, 2], [3] * 11])
def test_an_epoch_holds_every_sample_once(rows_per_shard, window_shards):
    everything = [(shard, row) for shard, rows in enumerate(rows_per_shard) for row in range(rows)]
    for key in [(0, 0), (0, 1), (5, 0), None]:
        taken = epoch_of(rows_per_shard, window_shards, key)
        assert sorted(taken) == everything
        assert key is not None or taken == everything


def test_order_is_what_it_was_when_runs_were_recorded():
    assert EpochOrder([3] * 6, 2, (0, 0)).shards.tolist() == [3, 0, 2, 1, 4, 5]
    first_window = [(0, 1), (1, 0), (1, 2), (0, 2), (1, 1), (1, 3), (0, 0)]
    assert epoch_of([3, 4, 5], 2, (7, 3)) == [*first_window, (2, 1), (2, 0), (2, 3), (2, 2), (2, 4)]


def test_seed_and_epoch_do_not_add_up():
    """seed + epoch would let run 1 repeat, one epoch later, what run 0 did."""
    sizes = [20] * 20
    assert epoch_of(sizes, key=(0, 1)) != epoch_of(sizes, key=(1, 0))
    assert epoch_of(sizes, key=(0, 1)) != epoch_of(sizes, key=(0, 0))


def test_a_window_is_found_by_any_of_its_positions():
    sizes = [5, 0, 3, 1, 8, 2]
    order = EpochOrder(sizes, 2, (1, 1))
    found = order.windows_at(np.arange(len(order)))
    for number in range(order.num_windows):
        window = order.window(number)
        assert (found == number).nonzero()[0].tolist() == list(range(window.start, window.start + len(window.rows)))


def test_the_middle_of_an_epoch_is_as_near_as_its_start():
    """15 million samples: the last window is reached without the ones before it."""
    order = EpochOrder([1024] * 15_000, 8, (0, 0))
    calls = []
    sys.setprofile(lambda frame, event, argument: calls.append(event))
    number = int(order.windows_at(np.array([len(order) - 1]))[0])
    window = order.window(number)
    sys.setprofile(None)
    assert number == order.num_windows - 1
    assert window.start + len(window.rows) == len(order)
    assert len(calls) < order.num_windows / 10


def test_samples_mix_as_well_as_in_a_full_shuffle():
    """64 shards of 128, windows of 8: where a sample comes, and whom it meets, tell nothing of where it is stored."""
    taken = np.array(epoch_of([128] * 64, window_shards=8))
    stored_at = taken[:, 0] * 128 + taken[:, 1]
    assert abs(np.corrcoef(stored_at, np.arange(8192))[0, 1]) < 0.25  # of 64 shuffled shards: standard deviation 0.13
    assert abs(stored_at - np.arange(8192)).mean() > 0.8 * 8192 / 3  # a full shuffle: a third of the length
    batches = stored_at.reshape(64, 128)
    assert all(len(np.unique(batch // 128)) == 8 for batch in batches)  # all shards of its window
    within = [np.corrcoef(taken[start : start + 1024, 1], np.arange(1024))[0, 1] for start in range(0, 8192, 1024)]
    assert abs(np.array(within)).max() < 0.13  # 4 standard deviations of 1024 independent draws
    again = np.array(epoch_of([128] * 64, window_shards=8, key=(0, 1)))
    companions, later = (neighbours(epoch) for epoch in (taken, again))
    assert len(companions & later) < 8  # of 8,128 neighbouring pairs, chance repeats about two


def neighbours(taken: np.ndarray) -> set:
    stored_at = (taken[:, 0] * 128 + taken[:, 1]).tolist()
    return {frozenset(pair) for pair in zip(stored_at, stored_at[1:], strict=False)}


@pytest.mark.parametrize("num_parts", [1, 2, 3, 8])
@pytest.mark.parametrize(("start", "stop"), [(0, 128), (128, 131), (5, 5), (7, 8)])
def test_shares_tile_a_batch(start, stop, num_parts):
    shares = [share(start, stop, part, num_parts) for part in range(num_parts)]
    assert [position for a, b in shares for position in range(a, b)] == list(range(start, stop))
    sizes = [b - a for a, b in shares]
    assert max(sizes) == sizes[0]
    assert sizes[0] - min(sizes) <= 1


def test_the_last_short_batch_is_kept():
    assert [num_batches(n, 128) for n in (1, 127, 128, 129, 1_281_167)] == [1, 1, 1, 2, 10_010]
