"""Which fonts write the names of classes: those of the style, and for other scripts what else is installed here.

matplotlib would draw boxes, and warn of each, for letters that its fonts lack. What no font here has is told by
`missing`, and figures show something else instead (see `figures.named`).
"""

import logging
import unicodedata
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from matplotlib import font_manager

from workflows.console import visible

_STYLE = ("Inter", "Helvetica Neue", "Arial", "Liberation Sans", "DejaVu Sans")  # the last comes with matplotlib
logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # it misses a bold one where a title is bold
_added: list[str] = []  # families beside those of the style, in the order in which they were first needed
_PACKAGES = {"EMOJI": "fonts-symbola", **dict.fromkeys(("CJK", "HANGUL", "HIRAGANA", "KATAKANA"), "fonts-noto-cjk")}


def families() -> list[str]:
    """The fonts to write with; a letter is taken from the first that has it."""
    return [*_of_style(), *_added]


def writable(text: str) -> bool:
    """Whether there is something to see, and a font for every letter; from now on it is among the families."""
    lacking = [c for c in text if not _find(c)]
    return not lacking and any(unicodedata.category(c)[0] in "LNPS" for c in text)


def missing(texts: Iterable[str]) -> list[str]:
    """A line for each script that cannot be written here: which one, where, and what to install."""
    found: dict[str, str] = {}
    for text in map(visible, texts):
        for c in text:
            if not _is_invisible(c) and not _find(c):
                found.setdefault(_script(c), text)
    return [
        f"pictures have no font for {script} as in “{text}”: install {_PACKAGES.get(script, 'fonts-noto-core')}"
        for script, text in found.items()
    ]


def without_symbols(text: str) -> str:
    """The text without what is no letter and has no font here, such as emoji and what joins them."""
    kept = (c for c in text if _find(c) or not (_is_symbol(c) or _is_invisible(c)))
    return " ".join("".join(kept).strip("\u200d\ufe0e\ufe0f ").split())


def _is_invisible(c: str) -> bool:
    return unicodedata.category(c) == "Cf" or "VARIATION SELECTOR" in unicodedata.name(c, "")


def _is_symbol(c: str) -> bool:
    category = unicodedata.category(c)
    return category[0] == "S" or category == "Cn"  # one that is younger than this Python is an emoji, as a rule


def _script(c: str) -> str:
    return "EMOJI" if _is_symbol(c) else unicodedata.name(c, "UNNAMED").partition(" ")[0]


@cache
def _of_style() -> list[str]:
    installed = {font.name for font in font_manager.fontManager.ttflist}
    return [name for name in _STYLE if name in installed]


@cache
def _find(c: str) -> bool:
    """Whether some font has the character; one that the style lacks joins the families."""
    if c.isspace() or any(ord(c) in _letters(font_manager.findfont(name)) for name in families()):
        return True
    path = next((path for path in _installed() if ord(c) in _letters(path)), None)
    if path is None:
        return False
    font_manager.fontManager.addfont(path)
    _added.append(font_manager.get_font(path).family_name)
    return True


@cache
def _installed() -> list[str]:
    """Files of all fonts here, upright sans-serif ones first; matplotlib's own list may be older than they are."""
    return sorted(font_manager.findSystemFonts(), key=_is_odd)


def _is_odd(path: str) -> tuple[bool, bool, str]:
    name = Path(path).name.lower()
    return not ("sans" in name or "gothic" in name), any(w in name for w in ("bold", "italic", "oblique", "mono")), name


@cache
def _letters(path: str) -> frozenset[int]:
    """None for what matplotlib cannot draw with, such as coloured bitmaps."""
    try:
        font = font_manager.get_font(path)
        return frozenset(font.get_charmap()) if font.scalable else frozenset()
    except (RuntimeError, OSError):
        return frozenset()
