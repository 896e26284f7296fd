"""What all figures share: one style, colours that the colour-blind tell apart, PNG, and sheets of small images.

A figure is a function of plain data that returns a matplotlib Figure. Names are text: `$` and `_` are no formulas.
The figures themselves are in figures_data.py (images and their statistics), figures_net.py (kernels and columns) and
figures_results.py (training and errors).
"""

import functools
import io
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from workflows.console import visible
from workflows.report import fonts

INK, GREY, FAINT, PALE = "#1c2430", "#6b7480", "#c3cad3", "#d9dee5"
COLUMN_COLOURS = ("#0072b2", "#d55e00")  # column 1, column 2 (Okabe and Ito's blue and vermilion)
TRAIN, VAL, VAL_TOP5 = "#8a94a3", "#0072b2", "#56b4e9"
TRUE, OTHER = "#f08469", "#b4c8dc"  # Figure 4's bars: the true label's, and the others'
RUNS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
RGB = ("#c8443c", "#3c9450", "#3c68c8")
DPI = 120  # of the report's PNGs
_STYLE: dict[Any, Any] = {
    "text.parse_math": False,
    "text.usetex": False,
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.axisbelow": True,
    "grid.color": PALE,
    "grid.linewidth": 0.6,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.5,
    "lines.solid_capstyle": "round",
    "figure.dpi": 100,
    "figure.facecolor": "white",
}


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Draws in the common style, again where a name needed one more font; leaves matplotlib's settings as they were."""

    @functools.wraps(draw)
    def in_style(*args, **options) -> Figure:
        families = fonts.families()
        with _style():
            figure = draw(*args, **options)
        return figure if families == fonts.families() else in_style(*args, **options)

    return in_style


def _style():
    return matplotlib.rc_context({**_STYLE, "font.family": fonts.families()})


class Drawing(Figure):
    """A figure that keeps the common style wherever it is rendered: ticks get their texts no earlier."""

    def draw(self, renderer) -> None:
        with _style():
            super().draw(renderer)


def canvas(width_in: float, height_in: float, rows: int = 1, columns: int = 1, **options) -> tuple[Figure, np.ndarray]:
    """A figure and its axes, an array of rows x columns; belongs to no window and no global list."""
    figure = Drawing(figsize=(width_in, height_in), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=DPI)
    return file.getvalue()


def show(axes: Axes, pixels_HWC: np.ndarray, title: str = "") -> None:
    """An image without axes; small ones keep their pixels."""
    axes.imshow(pixels_HWC, interpolation="nearest" if max(pixels_HWC.shape[:2]) <= 96 else "antialiased")
    axes.set_axis_off()
    axes.set_title(title, loc="center", fontweight="normal")


def resized(pixels_HWC: np.ndarray, side_px: int) -> np.ndarray:
    """The image with this side, px."""
    from PIL import Image

    return np.asarray(Image.fromarray(pixels_HWC).resize((side_px, side_px), Image.Resampling.BICUBIC))


def sheet(rows: Sequence[Sequence[np.ndarray]], tile_px: int, gap_px: int = 4) -> np.ndarray:
    """Rows of images as one image, on white; a row may be shorter than the others."""
    step = tile_px + gap_px
    width = max(map(len, rows), default=1)
    page = np.full((len(rows) * step - gap_px, width * step - gap_px, 3), 255, np.uint8)
    for y, row in enumerate(rows):
        for x, image in enumerate(row):
            page[y * step : y * step + tile_px, x * step : x * step + tile_px] = resized(image, tile_px)
    return page


def centres(count: int, tile_px: int, gap_px: int = 4) -> np.ndarray:
    """Where the middles of a sheet's tiles are, px."""
    return np.arange(count) * (tile_px + gap_px) + tile_px / 2 - 0.5


def short(text: str, max_chars: int = 24) -> str:
    """A class title for a narrow place: its first synonym, in one line, cut where it is still too long."""
    from rich.cells import cell_len, set_cell_size

    whole = visible(" ".join(text.split()))
    head = whole.split(",")[0].strip() or whole
    return head if cell_len(head) <= max_chars else set_cell_size(head, max_chars - 1).rstrip() + "…"


def named(titles: Sequence[str], label: int, max_chars: int = 24) -> str:
    """A class in a picture: its title in short, or its number where no font here can write that."""
    return written(titles[label], f"class {label}", max_chars)


def written(text: str, otherwise: str, max_chars: int = 24) -> str:
    """Anybody's text as it can be drawn: in short, without emoji that no font has; or what stands for it."""
    drawn = fonts.without_symbols(short(text, max_chars))
    return drawn if drawn != "…" and fonts.writable(drawn) else otherwise
