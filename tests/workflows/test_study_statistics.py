"""Error bars are those of the textbooks, and nothing is called significant more often than it may be."""

import numpy as np
import pytest

from workflows.studies.statistics import Difference, binomial_se, difference, mean, quantile


def wrongs(runs: int, images: int, seed: int = 0, share: float = 0.3) -> np.ndarray:
    return (np.random.default_rng(seed).random((runs, images)) < share).astype(np.int8)


def test_quantiles_are_the_tables():
    table = {2: 12.706, 3: 4.303, 5: 2.776, 31: 2.042, None: 1.960}
    assert {n: round(quantile(n), 3) for n in table} == table


def test_one_run_has_the_test_images_standard_error_and_says_so():
    wrong_RN = wrongs(1, 400)
    found = mean([wrong_RN.mean()], wrong_RN)
    assert (found.n, found.se_seeds, found.se_of) == (1, None, "test images")
    assert found.se == pytest.approx(binomial_se(wrong_RN.mean(), 400), rel=2e-3)  # N-1 for N
    half = (found.interval[1] - found.interval[0]) / 2
    assert half == pytest.approx(1.96 * found.se, rel=1e-4)
    assert mean([0.2], num_images=100).se == pytest.approx(0.04)


def test_several_runs_have_the_standard_error_over_seeds_and_that_of_the_images_beside_it():
    wrong_RN = wrongs(3, 500)
    found = mean(wrong_RN.mean(1).tolist(), wrong_RN)
    assert (found.value, found.se_of) == (pytest.approx(wrong_RN.mean()), "seeds")
    assert found.se == pytest.approx(wrong_RN.mean(1).std(ddof=1) / 3**0.5)
    assert found.se_images == pytest.approx(wrong_RN.mean(0).std(ddof=1) / 500**0.5)
    assert found.interval[1] - found.value == pytest.approx(4.3027 * found.se, rel=1e-4)


def test_what_is_no_share_of_images_has_no_error_bar_from_them():
    assert mean([12.0]).se is None
    assert (mean([12.0]).se_of, mean([12.0]).interval) == ("nothing", None)
    assert mean([12.0, 13.0], num_images=100).se_images is None


def test_the_difference_of_one_seed_has_mcnemar_s_variance():
    first_RN, second_RN = wrongs(1, 300, seed=1), wrongs(1, 300, seed=2, share=0.4)
    found = difference(first_RN.mean(1), second_RN.mean(1), first_RN, second_RN)
    b = int(((first_RN == 0) & (second_RN == 1)).sum())  # only the second is wrong
    c = int(((first_RN == 1) & (second_RN == 0)).sum())
    assert found.value == pytest.approx((b - c) / 300)
    assert found.se_images == pytest.approx(((b + c - (b - c) ** 2 / 300) / (300 * 299)) ** 0.5)
    assert (found.se_seeds, found.verdict) == (None, "one seed: not called significant")


def test_pairing_takes_out_what_seeds_and_images_share():
    easy_N = np.random.default_rng(0).random(2000) < 0.5  # images that all runs have right
    first_RN = np.where(easy_N, 0, wrongs(4, 2000, seed=1, share=0.9))
    second_RN = np.where(easy_N, 0, wrongs(4, 2000, seed=2, share=0.9))
    found = difference(first_RN.mean(1), second_RN.mean(1), first_RN, second_RN)
    unpaired = (
        mean(first_RN.mean(1), first_RN).se_images ** 2 + mean(second_RN.mean(1), second_RN).se_images ** 2
    ) ** 0.5
    assert found.se_images < unpaired / 2
    shift = np.array([0.0, 0.1, 0.2, 0.3])
    assert difference(0.2 + shift, 0.3 + shift + [0, 0.01, 0, 0.01]).se_seeds == pytest.approx(0.01 / 12**0.5)


def test_two_seeds_are_never_significant_and_neither_are_seeds_that_agree_to_the_digit():
    assert not Difference(2, 1.0, 1e-9, 1e-9).is_significant
    assert Difference(2, 1.0, 1e-9, 1e-9).verdict == "two seeds: not called significant"
    assert not difference([0.2, 0.3, 0.4], [0.3, 0.4, 0.5]).is_significant
    assert Difference(3, 1.0, 0.1, 0.1).verdict == "significant"
    assert Difference(3, 0.4, 0.1, 0.1).verdict == "not significant"  # 4.3 standard errors are 0.43
    assert Difference(3, 0.5, 0.1, 0.3).verdict == "significant on these test images; others may say otherwise"


@pytest.mark.parametrize("n", [3, 5])
def test_of_differences_that_are_none_one_in_twenty_is_called_significant(n):
    draws = np.random.default_rng(n).normal(size=(20_000, n))
    called = np.mean([Difference(n, d.mean(), d.std(ddof=1) / n**0.5, None).is_significant for d in draws])
    assert called == pytest.approx(0.05, abs=0.006)  # 4 standard errors


def test_intervals_from_the_images_hold_the_truth_nineteen_times_in_twenty():
    rng, inside = np.random.default_rng(0), 0
    for _ in range(2000):
        hard_N = rng.random(400)  # how likely each image is to be missed; the second arm misses 0.03 more
        first, second = (rng.random(400) < hard_N * 0.5), (rng.random(400) < hard_N * 0.5 + 0.03)
        low, high = difference([first.mean()], [second.mean()], first[None], second[None]).interval_images
        inside += low <= 0.03 <= high
    assert inside / 2000 == pytest.approx(0.95, abs=0.02)
