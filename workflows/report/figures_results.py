"""Figures of the results: training curves, eight images with their top five (the paper's Figure 4), confusions."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from model.schedules import Phase
from workflows.report.figures import (
    COLUMN_COLOURS,
    FAINT,
    GREY,
    INK,
    OTHER,
    RUNS,
    TRAIN,
    TRUE,
    VAL,
    VAL_TOP5,
    canvas,
    named,
    show,
    styled,
    written,
)

if TYPE_CHECKING:
    import pandas as pd

MAX_CONFUSION = 50  # classes that a confusion matrix can show


@styled
def training_curves(steps: "pd.DataFrame", epochs: "pd.DataFrame", phases: Sequence[Phase] = ()) -> Figure:
    """Loss, errors, learning rate and speed over the epochs, from the points of a training (see FinishedRun).

    The rates are those of all groups of parameters, by the phases of the schedule; without, those that were reported.
    """
    figure, axes = canvas(10, 5.6, 2, 2, sharex=True)
    _loss(axes[0, 0], steps)
    _errors(axes[0, 1], steps, epochs)
    _rates(axes[1, 0], steps, phases)
    axes[1, 1].plot(steps["epoch"], steps["images_per_s"], color=FAINT, lw=1)
    axes[1, 1].plot(steps["epoch"], _smooth(steps["images_per_s"]), color=INK)
    axes[1, 1].set(title="images/s", ylim=(0, None))
    for axis in axes.flat:
        axis.grid(axis="y")
        axis.set_xlim(0, None)
    for axis in axes[1]:
        axis.set_xlabel("epoch")
    return figure


def _rates(axis: Axes, steps: "pd.DataFrame", phases: Sequence[Phase]) -> None:
    """A line for each group of parameters, which ends where the group is frozen."""
    starts = [phase.epoch - 1 for phase in phases]
    for i, group in enumerate(phases[0].rates if phases else ()):
        rates = [phase.rates[group] or np.nan for phase in phases]
        dashes = (0, (4, i)) if i else "solid"  # lines may lie on each other
        ends = [*starts, steps["epoch"].max()], [*rates, rates[-1]]
        axis.plot(*ends, color=RUNS[i % len(RUNS)], ls=dashes, drawstyle="steps-post", label=group)
    for before, phase in pairwise(phases):
        if phase.light != before.light:
            axis.axvline(phase.epoch - 1, color=FAINT, lw=1, zorder=0)
            axis.annotate(f" light {phase.light:g}", (phase.epoch - 1, 1), xycoords=("data", "axes fraction"), va="top")
    if not phases:
        axis.plot(steps["epoch"], steps["lr"], color=INK, drawstyle="steps-pre")
    if len(phases) and len(phases[0].rates) > 1:
        axis.legend(loc="lower left")
    axis.set(yscale="log", title="learning rate")
    axis.yaxis.set_major_formatter(LogFormatter())  # plain text, where the default is a formula
    axis.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(2, 0.5)))


def _loss(axis: Axes, steps: "pd.DataFrame") -> None:
    dot = "." if len(steps) < 20 else ""
    axis.plot(steps["epoch"], steps["loss"], color=FAINT, lw=1, marker=dot, label="of a batch")
    axis.plot(steps["epoch"], _smooth(steps["loss"]), color=INK, label="running mean")
    axis.set(title="loss", ylim=(0, None))
    axis.legend()


def _errors(axis: Axes, steps: "pd.DataFrame", epochs: "pd.DataFrame") -> None:
    axis.plot(steps["epoch"], _smooth(steps["top1_error"]) * 100, color=TRAIN, label="training (augmented), top-1")
    for k, colour in ((1, VAL), (5, VAL_TOP5)):
        if f"val_top{k}_error" in epochs:
            error = epochs[f"val_top{k}_error"] * 100
            axis.plot(epochs["epoch"], error, color=colour, marker="o", ms=4, label=f"validation, top-{k}")
    axis.set(title="error, %", ylim=(0, None))
    axis.legend()


@styled
def compared(curves: Mapping[str, tuple[Sequence[float], Sequence[float]]], title: str, xlabel: str) -> Figure:
    """One line for each named run: its points (x, y)."""
    figure, axes = canvas(10, 3)
    axis = axes[0, 0]
    for i, (name, (x, y)) in enumerate(curves.items()):
        axis.plot(x, y, color=RUNS[i % len(RUNS)], marker="o", ms=3.5, label=written(name, f"run {i + 1}", 60))
    axis.set(title=title, xlabel=xlabel, ylim=(0, None))
    axis.grid(axis="y")
    axis.legend()
    return figure


def _smooth(values: "pd.Series") -> "pd.Series":
    """A running mean over a fiftieth of the run."""
    return values.rolling(max(1, len(values) // 50), min_periods=1, center=True).mean()


@styled
def top_five(
    images: Sequence[np.ndarray],
    labels: Sequence[int],
    classes_N5: Sequence[Sequence[int]],
    probabilities_N5: Sequence[Sequence[float]],
    titles: Sequence[str],
) -> Figure:
    """Images four in a row, each over its true label and the bars of its five likeliest classes, the true one's red."""
    rows = -(-len(images) // 4)
    figure, axes = canvas(10, 3.95 * rows, 2 * rows, 4, height_ratios=[2.4, 1] * rows)
    for axis in axes.flat:
        axis.set_axis_off()
    for i, image in enumerate(images):
        picture, bars = axes[2 * (i // 4), i % 4], axes[2 * (i // 4) + 1, i % 4]
        show(picture, image)
        _bars(bars, labels[i], classes_N5[i], probabilities_N5[i], titles)
    return figure


def _bars(
    axis: Axes, label: int, classes: Sequence[int], probabilities: Sequence[float], titles: Sequence[str]
) -> None:
    axis.set_title(named(titles, label), loc="center")
    colours = [TRUE if c == label else OTHER for c in classes]
    axis.barh(range(len(classes)), probabilities, color=colours, height=0.84)
    for i, c in enumerate(classes):
        axis.text(0.015, i, named(titles, c), va="center", fontsize=8.5)
    axis.set(xlim=(0, 1), ylim=(4.6, -0.6))


@styled
def neighbours(
    images: Sequence[np.ndarray],
    names: Sequence[str],
    neighbours_QK: Sequence[Sequence[np.ndarray]],
    names_QK: Sequence[Sequence[str]],
    right_QK: Sequence[Sequence[bool]] = (),
) -> Figure:
    """A row for each image: itself, then its neighbours, each under its name, red where it is of another class."""
    columns = 1 + max(map(len, neighbours_QK))
    figure, axes = canvas(1.45 * columns, 1.75 * len(images), len(images), columns)
    for axis in axes.flat:
        axis.set_axis_off()
    for y, row in enumerate(axes):
        show(row[0], images[y])
        row[0].set_title(names[y], loc="center")
        for x, image in enumerate(neighbours_QK[y]):
            show(row[x + 1], image, names_QK[y][x])
            if right_QK and not right_QK[y][x]:
                row[x + 1].title.set_color(COLUMN_COLOURS[1])
    return figure


@styled
def confusion(labels: np.ndarray, predicted: np.ndarray, titles: Sequence[str]) -> Figure:
    """How the images of each class (rows) were named (columns), in % of the row."""
    counts = np.zeros((len(titles), len(titles)), int)
    np.add.at(counts, (labels, predicted), 1)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1) * 100
    side = min(9.5, 2.2 + 0.42 * len(titles))
    figure, axes = canvas(side, side)
    axis = axes[0, 0]
    axis.imshow(share, cmap="Blues", vmin=0, vmax=100)
    if len(titles) <= 20:
        for (y, x), value in np.ndenumerate(share):
            if value:
                axis.text(x, y, f"{value:.0f}", ha="center", va="center", fontsize=8, color=_on(value))
    names = [named(titles, label, 16) for label in range(len(titles))]
    axis.set_xticks(range(len(titles)), names, rotation=50, ha="right", rotation_mode="anchor")
    axis.set_yticks(range(len(titles)), names)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    axis.set(xlabel="named", ylabel="true")
    return figure


def _on(percent: float) -> str:
    return "white" if percent > 55 else GREY
