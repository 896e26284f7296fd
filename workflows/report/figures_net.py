"""Figures of the network: conv1's kernels by column (the paper's Figure 3), their colour, and the bytes exchanged."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from model.shapes import Layer
from workflows.report.figures import COLUMN_COLOURS, GREY, canvas, styled

_PER_ROW = 16  # kernels, as in the paper
_GAP_PX = 1


@styled
def conv1_kernels(columns: Sequence[np.ndarray]) -> Figure:
    """Each column's kernels [N, 3, k, k], column 1 on top, drawn as in 2012.

    Each kernel is brought to mean 0 and variance 1, then all to one scale, from the least value to the greatest.
    """
    columns = [_standardised(kernels) for kernels in columns]
    low = min(kernels.min() for kernels in columns)
    high = max(kernels.max() for kernels in columns)
    grids = [_grid((kernels - low) / max(high - low, 1e-12)) for kernels in columns]
    heights = [len(grid) for grid in grids]
    width_in = 10
    inches = [width_in * height / grids[0].shape[1] for height in heights]
    figure, axes = canvas(width_in, sum(inches) + 0.35 * len(grids), len(grids), 1, height_ratios=inches)
    for i, (axis, grid) in enumerate(zip(axes[:, 0], grids, strict=True)):
        axis.imshow(grid, interpolation="nearest")
        axis.set_axis_off()
        if len(columns) > 1:
            axis.set_title(f"column {i + 1}", color=COLUMN_COLOURS[i])
    return figure


def _standardised(kernels_NCHW: np.ndarray) -> np.ndarray:
    centred = kernels_NCHW - kernels_NCHW.mean(axis=(1, 2, 3), keepdims=True)
    return centred / np.maximum(centred.std(axis=(1, 2, 3), keepdims=True), 1e-12)


def _grid(kernels_NCHW: np.ndarray) -> np.ndarray:
    """Kernels in rows, on white, HWC."""
    count, _, side, _ = kernels_NCHW.shape
    per_row = min(_PER_ROW, count)
    rows, step = -(-count // per_row), side + _GAP_PX
    page = np.ones((rows * step - _GAP_PX, per_row * step - _GAP_PX, 3))
    for i, kernel in enumerate(kernels_NCHW):
        y, x = i // per_row * step, i % per_row * step
        page[y : y + side, x : x + side] = kernel.transpose(1, 2, 0)
    return page


def chroma_share(kernels_NCHW: np.ndarray) -> np.ndarray:
    """Of each kernel's energy, the part that is colour: what is left after taking the mean of R, G and B away."""
    colour = kernels_NCHW - kernels_NCHW.mean(axis=1, keepdims=True)
    energy = np.square(kernels_NCHW).sum(axis=(1, 2, 3))
    return np.square(colour).sum(axis=(1, 2, 3)) / np.maximum(energy, 1e-30)


@styled
def chroma_by_column(columns: Sequence[np.ndarray]) -> Figure:
    """Every kernel's share of colour, one row of dots for each column; the bar is the median."""
    figure, axes = canvas(10, 0.75 + 0.55 * len(columns))
    axis = axes[0, 0]
    for i, kernels in enumerate(columns):
        share = np.sort(chroma_share(kernels)) * 100
        lift = 0.16 * np.sin(np.arange(len(share)) * 2.4)  # so that equal kernels stay apart
        axis.scatter(share, i + lift, s=26, color=COLUMN_COLOURS[i], alpha=0.6, lw=0)
        axis.plot([np.median(share)] * 2, [i - 0.32, i + 0.32], color=COLUMN_COLOURS[i], lw=2.5)
    names = [f"column {i + 1}" for i in range(len(columns))] if len(columns) > 1 else [""]
    axis.set_yticks(range(len(columns)), names)
    axis.set(xlim=(-1, 101), ylim=(len(columns) - 0.5, -0.5), xlabel="colour's share of a kernel's energy, %")
    axis.tick_params(axis="y", length=0)
    axis.grid(axis="x")
    return figure


@styled
def exchanged(layers: Sequence[Layer]) -> Figure:
    """What the columns send each other for one image, forward, before each layer."""
    figure, axes = canvas(10, 0.5 + 0.26 * len(layers))
    axis = axes[0, 0]
    kib = [layer.exchanged_bytes / 1024 for layer in layers]
    bars = axis.barh(range(len(layers)), kib, color=COLUMN_COLOURS[0], alpha=0.8, height=0.65)
    words = [
        "its own column" if not layer.shared else f"{value:,.1f} KiB" if value else ""
        for layer, value in zip(layers, kib, strict=True)
    ]
    axis.bar_label(bars, words, padding=5, color=GREY)
    axis.set_yticks(range(len(layers)), [layer.name for layer in layers])
    axis.set_ylim(len(layers) - 0.4, -0.6)
    axis.set_xticks([])
    axis.margins(x=0.15)
    axis.spines["bottom"].set_visible(False)
    axis.tick_params(axis="y", length=0)
    return figure
