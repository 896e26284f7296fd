"""Names are drawn as the text that they are, with the fonts that there are, and without a warning."""

import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
from conftest import REPOSITORY
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib.text import Text

from workflows.report import figures, figures_data, figures_results, fonts
from workflows.report.figures import named, short

TITLES = (
    *("under_$10_vs_$20", "a_^b", r"$\frac{1", r"\alpha%#&~{}", "x\ny\x1b[31m\u202e", "very " * 40, "a" * 99),
    *("naïve, café", "שלום", "السلام عليكم", "<script>&", "", " , ", "\u3042\U000e0001\U0001f468\u200d\U0001f469"),
)
NUMBER = len(TITLES)
IMAGE = np.zeros((8, 8, 3), np.uint8)


def drawings():
    five = [IMAGE] * 4, range(4), [range(5), range(5, 10)] * 2, [[0.2] * 5] * 4
    return {
        "samples": figures_data.samples_by_class({k: [IMAGE] * 2 for k in range(NUMBER)}, TITLES),
        "classes": figures_data.class_histogram({"train": {0: 3}, "val": {}}, TITLES),
        "top five": figures_results.top_five(*five, TITLES),
        "confusion": figures_results.confusion(np.arange(NUMBER), np.arange(NUMBER), TITLES),
        "compared": figures_results.compared({title: ([0, 1], [2, 3]) for title in TITLES}, TITLES[0], TITLES[1]),
    }  # fmt: skip


@pytest.mark.parametrize("name", ["samples", "classes", "top five", "confusion", "compared"])
def test_names_are_drawn_as_they_are_and_nothing_is_warned_of(name, caplog):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = drawings()[name]
        figures.png(figure)
    drawn = {text.get_text() for text in figure.findobj(Text)}
    assert {TITLES[0], TITLES[1], r"$\frac{1"} <= drawn
    assert not any(text.get_parse_math() for text in figure.findobj(Text) if text.get_text())
    assert not caplog.records


def test_a_figure_is_drawn_so_wherever_it_is_rendered():
    """By a notebook, which knows nothing of the style."""
    figure = figures_results.confusion(np.arange(NUMBER), np.arange(NUMBER), TITLES)
    figure.canvas.draw()
    figure.savefig(os.devnull, format="png", bbox_inches="tight")


def test_learning_rates_are_written_without_formulas():
    import pandas as pd

    rows = [{"epoch": e, "lr": 10.0**-e, "loss": 1, "top1_error": 1, "images_per_s": 9} for e in range(1, 5)]
    figure = figures_results.training_curves(pd.DataFrame(rows), pd.DataFrame({"epoch": [1]}))
    figures.png(figure)
    labels = [text.get_text() for text in figure.axes[2].get_yticklabels()]
    assert "1e−03" in labels
    assert not any("$" in label for label in labels)


def test_titles_are_shortened_to_a_line_of_limited_width():
    assert short("a\n  b\tc") == "a b c"
    assert short("tench, Tinca tinca") == "tench"
    assert short(", fish") == ", fish"
    assert short("x" * 99) == "x" * 23 + "…"
    assert short("日" * 99) == "日" * 11 + "…"
    assert short("red\x1b[31m") == r"red\u001b[31m"


def test_what_no_font_has_is_a_number_and_symbols_are_left_out():
    unwritable = "\U0001b170"  # Nüshu
    assert named(("a", unwritable), 1) == "class 1"
    assert named(("a", f"cat {chr(0x1FAE8)}\u200d"), 1) == "cat"  # a face of 2022
    for nothing in ("", chr(0x1FAE8), "\u200d", "  "):
        assert named((nothing,), 0) == "class 0"
    (line,) = fonts.missing([unwritable, unwritable * 2])
    assert line == f"pictures have no font for NUSHU as in “{unwritable}”: install fonts-noto-core"
    assert fonts.missing(["cat", "naïve", "a\x1b", "\u200d"]) == []


def test_a_font_that_was_installed_since_is_found(tmp_path):
    """Though matplotlib keeps a list of fonts from before."""
    (tmp_path / "fonts").mkdir()
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    pen.lineTo((500, 0))
    pen.lineTo((500, 500))
    pen.closePath()
    glyph = pen.glyph()
    font = FontBuilder(1000, isTTF=True)
    font.setupGlyphOrder([".notdef", "one"])
    font.setupCharacterMap({0x1B170: "one"})
    font.setupGlyf({".notdef": glyph, "one": glyph})
    font.setupHorizontalMetrics({".notdef": (600, 0), "one": (600, 0)})
    font.setupHorizontalHeader(ascent=800, descent=-200)
    font.setupNameTable({"familyName": "Nushu Test", "styleName": "Regular"})
    font.setupOS2()
    font.setupPost()
    font.save(tmp_path / "fonts" / "NushuTestSans.ttf")
    program = (
        "import warnings; warnings.simplefilter('error')\n"
        "from workflows.report import figures, figures_data, fonts\n"
        "figure = figures_data.class_histogram({'train': {0: 1}}, ['\\U0001b170 a'])\n"
        "figures.png(figure)\n"
        "print(fonts.families()[-1], figure.axes[0].get_yticklabels()[0].get_text() == '\\U0001b170 a')"
    )
    environment = {**os.environ, "XDG_DATA_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, cwd=REPOSITORY, check=False
    )
    assert (done.stdout, done.stderr) == ("Nushu Test True\n", "")
