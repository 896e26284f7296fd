"""Means over runs with their error bars: over seeds where there are several, from the test images always.

Two things make an error uncertain. Another seed would have trained another network: the spread over seeds shows it, on
these test images. Other test images would have been hit otherwise: the spread over images shows it, for these networks.
R is runs (seeds), N test images; `wrong_RN` is 1 where a run was wrong. Standard errors are of means, intervals of 95 %
(LEVEL).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

LEVEL = 0.95
SEEDS_TO_TELL = 3  # with fewer nothing is called significant
DIGIT = 1e-12
Interval = tuple[float, float]


@dataclass(frozen=True)
class Mean:
    """The mean of a measure over the runs of an arm.

    Attributes:
        se_seeds: Its standard error over seeds; None with one run.
        se_images: Its standard error from the test images; None where the measure is none of theirs.
    """

    n: int
    value: float
    se_seeds: float | None
    se_images: float | None

    @property
    def se(self) -> float | None:
        """The one that is shown: over seeds where there are two or more, else from the test images."""
        return self.se_images if self.n == 1 else self.se_seeds

    @property
    def se_of(self) -> str:
        return "nothing" if self.se is None else "test images" if self.n == 1 else "seeds"

    @property
    def interval(self) -> Interval | None:
        return _interval(self.value, self.se, self.n if self.n > 1 else None)

    def as_json(self) -> dict[str, Any]:
        return {
            "n": self.n,
            "mean": self.value,
            "se": self.se,
            "se_of": self.se_of,
            "interval": self.interval,
            "se_seeds": self.se_seeds,
            "se_images": self.se_images,
        }


@dataclass(frozen=True)
class Difference:
    """The mean of a measure's differences, second arm less first, over the seeds that both have."""

    n: int
    value: float
    se_seeds: float | None
    se_images: float | None

    @property
    def interval_seeds(self) -> Interval | None:
        return _interval(self.value, self.se_seeds, self.n)

    @property
    def interval_images(self) -> Interval | None:
        return _interval(self.value, self.se_images, None)

    @property
    def is_significant(self) -> bool:
        """Whether the interval over three seeds or more leaves out zero; seeds that agree to the digit tell nothing."""
        agree = (self.se_seeds or 0) < DIGIT
        return self.n >= SEEDS_TO_TELL and not agree and not _holds_zero(self.interval_seeds)

    @property
    def verdict(self) -> str:
        if self.n < SEEDS_TO_TELL:
            return f"{'one seed' if self.n == 1 else 'two seeds'}: not called significant"
        if not self.is_significant:
            return "not significant"
        if self.interval_images and _holds_zero(self.interval_images):
            return "significant on these test images; others may say otherwise"
        return "significant"

    def as_json(self) -> dict[str, Any]:
        return {
            "n": self.n,
            "difference": self.value,
            "se_seeds": self.se_seeds,
            "interval_seeds": self.interval_seeds,
            "se_images": self.se_images,
            "interval_images": self.interval_images,
            "significant": self.is_significant,
            "verdict": self.verdict,
        }


def mean(values_R: Sequence[float], wrong_RN: np.ndarray | None = None, num_images: int | None = None) -> Mean:
    """Over runs. The images' part comes from `wrong_RN`, or for one run from the share of so many images that it is."""
    value = float(np.mean(values_R))
    if wrong_RN is not None:
        of_images = _se(wrong_RN.mean(0))
    else:
        of_images = binomial_se(value, num_images) if num_images and len(values_R) == 1 else None
    return Mean(len(values_R), value, _se(values_R), of_images)


def difference(
    first_R: Sequence[float],
    second_R: Sequence[float],
    first_RN: np.ndarray | None = None,
    second_RN: np.ndarray | None = None,
) -> Difference:
    """Second less first, paired by seed and by image: rows and columns of both are of the same seeds and images."""
    by_seed = np.subtract(second_R, first_R)
    of_images = None
    if first_RN is not None and second_RN is not None:  # of one seed: McNemar's variance
        of_images = _se((second_RN.astype(float) - first_RN).mean(0))
    return Difference(len(by_seed), float(by_seed.mean()), _se(by_seed), of_images)


def binomial_se(share: float, num_images: int) -> float:
    """Of a share of so many independent images."""
    return float(np.sqrt(max(0.0, share * (1 - share)) / num_images))


def _se(values: Sequence[float] | np.ndarray) -> float | None:
    """Of their mean; None of fewer than two."""
    return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None


def _interval(middle: float, se: float | None, n: int | None) -> Interval | None:
    """Student's t for the mean of n values; the normal one for that of many (None)."""
    if se is None:
        return None
    half = quantile(n) * se
    return middle - half, middle + half


def quantile(n: int | None) -> float:
    """How many standard errors the interval reaches to each side."""
    from scipy.special import ndtri, stdtrit

    p = (1 + LEVEL) / 2
    return float(ndtri(p) if n is None else stdtrit(n - 1, p))


def _holds_zero(interval: Interval | None) -> bool:
    return interval is not None and interval[0] <= 0 <= interval[1]
