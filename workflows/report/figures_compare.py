"""Figures of a comparison: curves of several runs of each arm as bands, and errors as points with their intervals."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from workflows.report.figures import GREY, RUNS, canvas, styled, written

RUNS_BELOW = 0.22  # of a line, where the dots of an arm's runs are
Curve = tuple[Sequence[float], Sequence[float]]  # x, y


class Spread(NamedTuple):
    """The values of an arm's runs (0 or more), their mean, and the interval that it lies in, where there is one."""

    name: str
    values: Sequence[float]
    mean: float
    interval: tuple[float, float] | None


@styled
def bands(curves: Mapping[str, Sequence[Curve]], title: str, xlabel: str) -> Figure:
    """For each arm the mean of its runs' curves, in a band from the lowest to the highest, as far as all of them go.

    An arm without runs is not drawn; its colour is no other's.
    """
    figure, axes = canvas(10, 3.6)
    axis = axes[0, 0]
    for i, (name, runs) in enumerate(curves.items()):
        if not runs:
            continue
        x, y_RX = _in_common(runs)
        colour = RUNS[i % len(RUNS)]
        dashes = "solid" if i < len(RUNS) else (0, (4, 1.5))
        label = written(name, f"arm {i + 1}", 60)
        axis.plot(x, y_RX.mean(0), color=colour, ls=dashes, marker="o", ms=3.5, label=label)
        if len(runs) > 1:
            axis.fill_between(x, y_RX.min(0), y_RX.max(0), color=colour, alpha=0.18, lw=0)
    axis.set(title=title, xlabel=xlabel, ylim=(0, None))
    axis.grid(axis="y")
    axis.legend()
    return figure


def _in_common(runs: Sequence[Curve]) -> tuple[np.ndarray, np.ndarray]:
    """The x that all runs have, and their y there, one row a run."""
    by_x = [dict(zip(*run, strict=True)) for run in runs]
    x = sorted(set.intersection(*(set(points) for points in by_x)))
    return np.array(x), np.array([[points[value] for value in x] for points in by_x])


@styled
def points(spreads: Sequence[Spread], xlabel: str) -> Figure:
    """A line for each arm, the first on top: its mean with the interval, and its runs as small dots."""
    figure, axes = canvas(10, 0.9 + 0.42 * len(spreads))
    axis = axes[0, 0]
    for y, spread in enumerate(spreads):
        colour = RUNS[y % len(RUNS)]
        if spread.interval:
            axis.plot(spread.interval, (y, y), color=colour, lw=2.2, solid_capstyle="butt")
        axis.plot(spread.values, np.full(len(spread.values), y + RUNS_BELOW), ".", color=GREY, ms=5)
        axis.plot([spread.mean], [y], "o", color=colour, mec="white", mew=0.8, ms=8, zorder=4)
    axis.set_yticks(range(len(spreads)), [written(s.name, f"arm {i + 1}", 40) for i, s in enumerate(spreads)])
    axis.set(ylim=(len(spreads) - 0.4, -0.6), xlabel=xlabel)
    if all(spread.mean >= 0 for spread in spreads):
        axis.set_xlim(left=max(0, axis.get_xlim()[0]))
    else:  # differences, some of them the other way round
        axis.axvline(0, color=GREY, lw=0.8)
    axis.tick_params(axis="y", length=0)
    axis.grid(axis="x")
    return figure
