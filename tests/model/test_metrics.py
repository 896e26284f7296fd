"""Top-1 and top-5 error: plain cases, ties, merging."""

import pytest
import torch

from model.metrics import TopK


def top(scores, labels) -> TopK:
    result = TopK()
    result.update(torch.as_tensor(scores, dtype=torch.float64), torch.as_tensor(labels))
    return result


def test_errors_count_labels_outside_the_best_one_and_five():
    ascending = [[1.0, 2, 3, 4, 5, 6, 7]] * 4
    result = top(ascending, [6, 5, 2, 0])
    assert (result.top1_error, result.top5_error) == (0.75, 0.25)


def test_a_tie_shares_the_places_that_are_left():
    assert top([[2.0, 2, 1, 0, 0, 0]], [0]).top1_error == pytest.approx(1 / 2)
    assert top([[0.0] * 10], [3]).top1_error == pytest.approx(9 / 10)
    assert top([[0.0] * 10], [3]).top5_error == pytest.approx(5 / 10)
    # two better, then four tied for the remaining three places
    assert top([[5.0, 5, 1, 1, 1, 1, 0]], [3]).top5_error == pytest.approx(1 / 4)


def test_with_at_most_five_classes_nothing_is_outside_the_top_five():
    assert top([[3.0, 2, 1]], [2]).top5_error == 0


def test_scores_that_are_no_numbers_are_wrong():
    result = top([[float("nan")] * 6], [1])
    assert (result.top1_error, result.top5_error) == (1, 1)


def test_merging_does_not_depend_on_the_cut():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(50, 20, generator=generator)
    labels = torch.randint(20, (50,), generator=generator)
    whole = top(scores, labels)
    parts = [top(scores[rows], labels[rows]) for rows in (slice(0, 1), slice(1, 30), slice(30, 50))]
    assert TopK().merge(parts[2]).merge(parts[0]).merge(parts[1]) == whole
    assert whole.num_images == 50
    best = scores.argmax(1)
    assert whole.top1_error == pytest.approx((best != labels).float().mean().item())
