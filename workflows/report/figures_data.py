"""Figures of the images: samples, mean image, histograms, principal colours, and what the augmentation does to them."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from workflows.report.figures import (
    COLUMN_COLOURS,
    GREY,
    INK,
    RGB,
    RUNS,
    canvas,
    centres,
    named,
    sheet,
    show,
    styled,
)

MAX_BARS = 40  # classes that a bar chart can name


@styled
def samples_by_class(images: Mapping[int, Sequence[np.ndarray]], titles: Sequence[str]) -> Figure:
    """One row of images for each of these classes; short rows stand in blocks side by side."""
    tile, widest = 96, max(map(len, images.values()), default=1)
    num_blocks = max(1, 8 // (widest + 1))
    block = -(-len(images) // num_blocks)
    figure, axes = canvas(num_blocks * (0.92 * widest + 1.7), 0.92 * block + 0.1, 1, num_blocks)
    for i, axis in enumerate(axes[0]):
        rows = dict(list(images.items())[i * block : (i + 1) * block])
        axis.set_axis_off() if not rows else _sample_rows(axis, rows, titles, tile)
    return figure


def _sample_rows(axis: Axes, images: Mapping[int, Sequence[np.ndarray]], titles: Sequence[str], tile_px: int) -> None:
    axis.imshow(sheet(list(images.values()), tile_px), interpolation="antialiased")
    axis.set_yticks(centres(len(images), tile_px), [named(titles, label, 20) for label in images])
    axis.set_xticks([])
    axis.tick_params(length=0, pad=8)
    axis.spines[:].set_visible(False)
    axis.set_anchor("N")


@styled
def mean_image(mean_HWC: np.ndarray) -> Figure:
    """The mean image as it is, with its contrast stretched, and each channel's departure from its own mean."""
    figure, axes = canvas(10, 2.5, 1, 5)
    show(axes[0, 0], mean_HWC.round().astype(np.uint8), "mean image")
    low, high = mean_HWC.min(), mean_HWC.max()
    stretched = (mean_HWC - low) / max(high - low, 1e-9)
    show(axes[0, 1], (stretched * 255).astype(np.uint8), f"stretched from {low:.0f}–{high:.0f}")
    departures = mean_HWC - mean_HWC.mean(axis=(0, 1))
    limit = max(np.abs(departures).max(), 1e-9)
    for c, name in enumerate(("red", "green", "blue")):
        axis = axes[0, 2 + c]
        drawn = axis.imshow(departures[..., c], cmap="PuOr_r", vmin=-limit, vmax=limit)
        axis.set_axis_off()
        axis.set_title(f"{name} {mean_HWC[..., c].mean():.1f}", loc="center", fontweight="normal")
    figure.colorbar(drawn, ax=axes[0, 2:], fraction=0.02, label="grey levels from the mean")
    return figure


@styled
def class_histogram(counts: Mapping[str, Mapping[int, int]], titles: Sequence[str]) -> Figure:
    """Images of each class, by split: bars with names, or for many classes the sorted counts."""
    if len(titles) <= MAX_BARS:
        return _class_bars(counts, titles)
    figure, axes = canvas(10, 2.8, 1, len(counts))
    for axis, (split, by_label) in zip(axes[0], counts.items(), strict=True):
        ordered = np.sort([by_label.get(label, 0) for label in range(len(titles))])[::-1]
        axis.fill_between(np.arange(len(ordered)), ordered, step="mid", color=COLUMN_COLOURS[0], alpha=0.75, lw=0)
        axis.set_title(f"{split}: {ordered.min():,} to {ordered.max():,} images in a class")
        axis.set(xlabel="classes, the largest first", xlim=(0, len(ordered) - 1), ylim=(0, None))
        axis.grid(axis="y")
    return figure


def _class_bars(counts: Mapping[str, Mapping[int, int]], titles: Sequence[str]) -> Figure:
    figure, axes = canvas(10, 0.7 + 0.24 * len(titles), 1, len(counts), sharey=True)
    for axis, (split, by_label) in zip(axes[0], counts.items(), strict=True):
        values = [by_label.get(label, 0) for label in range(len(titles))]
        bars = axis.barh(range(len(titles)), values, color=COLUMN_COLOURS[0], alpha=0.8, height=0.7)
        axis.bar_label(bars, [f"{value:,}" for value in values], padding=4, color=GREY, fontsize=8)
        axis.set_title(f"{split}: {sum(values):,} images")
        axis.set_yticks(range(len(titles)), [named(titles, label) for label in range(len(titles))])
        axis.set_ylim(len(titles) - 0.4, -0.6)
        axis.margins(x=0.12)
        axis.tick_params(axis="y", length=0)
        axis.set_xticks([])
        axis.spines["bottom"].set_visible(False)
    return figure


@styled
def channel_histogram(histogram_CV: np.ndarray) -> Figure:
    """How often each value 0..255 occurs in each channel."""
    figure, axes = canvas(10, 2.6)
    axis = axes[0, 0]
    share = histogram_CV / np.maximum(histogram_CV.sum(axis=1, keepdims=True), 1) * 100
    for values, colour, name in zip(share, RGB, ("red", "green", "blue"), strict=True):
        axis.plot(np.arange(256), values, color=colour, label=name, lw=1.2)
    axis.set(xlim=(0, 255), xlabel="value", ylabel="% of the pixels")
    axis.set_ylim(0, 1.15 * max(np.quantile(share, 0.995), 0.1 * share.max()))
    axis.grid(axis="y")
    axis.legend(ncols=3, loc="upper right")
    return figure


@styled
def original_sizes(width_histogram: np.ndarray, height_histogram: np.ndarray, bin_px: int) -> Figure:
    """Widths and heights of the images as they came, before they were made square; the last bin is open."""
    figure, axes = canvas(10, 2.4, 1, 2, sharey=True)
    used = int(np.flatnonzero(width_histogram + height_histogram).max(initial=0)) + 1
    for axis, histogram, name in zip(axes[0], (width_histogram, height_histogram), ("width", "height"), strict=True):
        middles = (np.arange(used) + 0.5) * bin_px
        axis.bar(middles, histogram[:used], width=bin_px * 0.92, color=COLUMN_COLOURS[0], alpha=0.8)
        axis.set(xlabel=f"{name}, px", xlim=(0, (used + 1) * bin_px))
        axis.grid(axis="y")
    axes[0, 0].set_ylabel("images")
    return figure


@styled
def principal_colours(
    channel_mean: np.ndarray, eigenvalues: np.ndarray, eigenvectors: np.ndarray, covariance: np.ndarray
) -> Figure:
    """The RGB covariance, its eigenvectors, and the mean colour moved along each by up to 2.5 standard deviations."""
    figure, axes = canvas(10, 2.7, 1, 3, width_ratios=(1, 1.25, 1.9))
    left, middle, right = axes[0]
    left.imshow(covariance, cmap="Blues", vmin=0, vmax=max(covariance.max(), 1e-9))
    for (y, x), value in np.ndenumerate(covariance):
        dark = value > 0.6 * covariance.max()
        left.text(x, y, f"{value:,.0f}", ha="center", va="center", color="white" if dark else INK, fontsize=8.5)
    left.set_xticks(range(3), ["R", "G", "B"])
    left.set_yticks(range(3), ["R", "G", "B"])
    left.tick_params(length=0)
    left.set_title("covariance")
    for i in range(3):
        middle.bar(np.arange(3) * 4 + i, eigenvectors[i], color=RGB[i], width=0.9)
    middle.axhline(0, color=GREY, lw=0.7)
    shares = eigenvalues / max(eigenvalues.sum(), 1e-9)
    middle.set_xticks(np.arange(3) * 4 + 1, [f"{i + 1}\n{share:.1%}" for i, share in enumerate(shares)])
    middle.tick_params(length=0)
    middle.set(title="eigenvectors, share of variance", ylim=(-1, 1))
    positions = np.linspace(-2.5, 2.5, 201)
    for i, sigma in enumerate(np.sqrt(np.maximum(eigenvalues, 0))):
        colours = channel_mean + positions[:, None] * sigma * eigenvectors[:, i]
        strip = np.clip(colours, 0, 255).astype(np.uint8)[None]
        right.imshow(strip, extent=(-2.5, 2.5, 2.6 - i, 3.4 - i), aspect="auto")
        right.text(2.62, 3 - i, f"σ = {sigma:.1f}", va="center", fontsize=8.5)
    right.set(xlim=(-2.5, 2.5), ylim=(0.5, 3.5), title="mean colour moved along each", xlabel="standard deviations")
    right.set_yticks([3, 2, 1], ["1", "2", "3"])
    right.tick_params(axis="y", length=0)
    right.spines[:].set_visible(False)
    return figure


@styled
def titled_rows(rows: Sequence[Sequence[np.ndarray]], titles: Sequence[str], tile_px: int = 112) -> Figure:
    """Images in rows, with a title over each column: an image beside what was made of it."""
    figure, axes = canvas(10, 10 / len(titles) * len(rows) + 0.35)
    axis = axes[0, 0]
    axis.imshow(sheet(rows, tile_px), interpolation="antialiased")
    axis.xaxis.tick_top()
    axis.set_xticks(centres(len(titles), tile_px), titles)
    axis.set_yticks([])
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    return figure


@styled
def crop_frames(image_HWC: np.ndarray, corners: Sequence[tuple[int, int]], crop_px: int, offsets: int) -> Figure:
    """The frames of some crops (y, x of their corners) in a stored image, and the area where corners may lie."""
    figure, axes = canvas(4.2, 4.2)
    axis = axes[0, 0]
    show(axis, image_HWC)
    for i, (y, x) in enumerate(corners):
        axis.add_patch(Rectangle((x - 0.5, y - 0.5), crop_px, crop_px, fill=False, ec=RUNS[i % len(RUNS)], lw=1.6))
    axis.add_patch(Rectangle((-0.5, -0.5), offsets, offsets, fc="white", ec=INK, alpha=0.6, lw=0.8))
    return figure


@styled
def drawn_parameters(y: np.ndarray, x: np.ndarray, shift_N3: np.ndarray, std_3: np.ndarray) -> Figure:
    """Many draws: how often each crop offset came, and the shifts of each channel beside the normal curve expected."""
    figure, axes = canvas(10, 2.9, 1, 2, width_ratios=(1, 2.2))
    side = int(max(y.max(), x.max())) + 1
    counts, *_ = np.histogram2d(y, x, bins=side, range=((0, side), (0, side)))
    drawn = axes[0, 0].imshow(counts, cmap="Blues", vmin=0)
    axes[0, 0].set(title="crops by offset", xlabel="x, px", ylabel="y, px")
    figure.colorbar(drawn, ax=axes[0, 0], label="images")
    limit = max(4 * std_3.max(), 1)
    levels = np.linspace(-limit, limit, 201)
    for shift, std, colour, name in zip(shift_N3.T, std_3, RGB, ("red", "green", "blue"), strict=True):
        axes[0, 1].hist(shift, bins=61, range=(-limit, limit), density=True, color=colour, alpha=0.28)
        width = max(std, 1e-9)  # 0 where the lighting is off
        expected = np.exp(-0.5 * (levels / width) ** 2) / (width * np.sqrt(2 * np.pi))
        axes[0, 1].plot(levels, expected, color=colour, label=f"{name}, std {std:.1f}")
    axes[0, 1].set(title="lighting by channel", xlabel="shift, grey levels", yticks=[])
    axes[0, 1].legend()
    return figure
