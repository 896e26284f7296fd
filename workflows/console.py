"""What the user sees: lines, tables and results, and while work runs a bar on a terminal, plain lines elsewhere.

The only place that prints. Names of files and classes are anybody's text; whatever in them would steer a terminal is
shown, not sent.
"""

import io
import sys
import textwrap
import time
import unicodedata
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pipelines.storage import redacted

if TYPE_CHECKING:
    from rich.console import Console as Terminal
    from rich.progress import Progress as Bar

PLAIN_LINE_EVERY_S = 10.0
WINDOW_S, WINDOW_RESULTS = 30.0, 16  # that a rate looks back on, whichever is longer
UNSURE_S = 1.0  # the first workers end together: a window shorter than this says nothing
UNCUT = 100_000  # columns
MIN_TEXT_COLUMNS = 30  # of a table's last column, before it goes beneath
_STEERING = ("Cc", "Cs", "Zl", "Zp")  # controls, lone surrogates, line and paragraph separators
_DIRECTIONS = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def visible(text: str) -> str:
    """The text in one line, with what would steer a terminal (or is no text at all) escaped: \\u001b, \\n, \\xff."""
    return "".join(_escaped(c) if unicodedata.category(c) in _STEERING or c in _DIRECTIONS else c for c in text)


def _escaped(c: str) -> str:
    if 0xDC80 <= ord(c) <= 0xDCFF:  # a byte of a file name that is not UTF-8, as Python hands it on
        return f"\\x{ord(c) - 0xDC00:02x}"
    return _SHORT.get(c, f"\\u{ord(c):04x}")


def tell(*lines: str, file=None) -> None:
    """Prints lines, by default on standard output."""
    print("\n".join(redacted(visible(line)) for line in lines), file=file, flush=True)


class Console:
    """Lines and progress on standard error; results go to standard output by whoever has them."""

    def __init__(self, stream=None):
        self._stream = stream or sys.stderr
        self._terminal = _terminal(self._stream) if self._stream.isatty() else None
        self._said: set[str] = set()

    def say(self, text: str) -> None:
        """A line; on a terminal it goes above the bar, if there is one."""
        if self._terminal is None:
            tell(text, file=self._stream)
        else:
            self._terminal.print(redacted(visible(text)), soft_wrap=True)

    def say_once(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self.say(text)

    @contextmanager
    def progress(self, title: str, total: int, unit: str, done: int = 0) -> Iterator["Progress"]:
        """Shows the progress of a piece of long work, counted in units."""
        if self._terminal is None:
            yield _Lines(title, total, unit, done, self)
            return
        with _bar(self._terminal) as bar:
            yield _OnBar(title, total, unit, done, bar)


class Progress:
    """One piece of long work: how much is done, how fast it goes, how long it will take."""

    def __init__(self, title: str, total: int, unit: str, done: int):
        self.title, self.total, self.unit, self.done = title, total, unit, done
        self._pace = Pace()

    def update(self, done: int, note: str = "") -> None:
        """The units done so far, and a word on how it goes."""
        self.done = done
        self._pace.add(done, time.monotonic())
        self._show(note)

    def _show(self, note: str) -> None:
        raise NotImplementedError

    @property
    def rate(self) -> str:
        per_s = self._pace.per_s
        return "" if per_s is None else f"{per_s:.3g} {self.unit}/s"

    @property
    def left(self) -> str:
        per_s = self._pace.per_s
        return f"{duration((self.total - self.done) / per_s)} left" if per_s else "time left unknown"


class Pace:
    """Units a second, over a recent window that begins with a result: what came before the first was no work."""

    def __init__(self):
        self._seen: deque[tuple[float, int]] = deque()

    def add(self, done: int, now_s: float) -> None:
        self._seen.append((now_s, done))
        while len(self._seen) > WINDOW_RESULTS and now_s - self._seen[0][0] > WINDOW_S:
            self._seen.popleft()

    @property
    def per_s(self) -> float | None:
        """None where it cannot be told yet."""
        if not self._seen:
            return None
        (began, first), (ended, last) = self._seen[0], self._seen[-1]
        return (last - first) / (ended - began) if ended - began >= UNSURE_S else None


class _Lines(Progress):
    """A line now and then."""

    def __init__(self, title: str, total: int, unit: str, done: int, console: Console):
        super().__init__(title, total, unit, done)
        self._console, self._last_line = console, time.monotonic()

    def _show(self, note: str) -> None:
        if time.monotonic() - self._last_line >= PLAIN_LINE_EVERY_S:
            self._last_line = time.monotonic()
            parts = [f"{self.done}/{self.total} {self.unit}", self.rate, self.left, note]
            self._console.say(f"  {self.title}: {', '.join(filter(None, parts))}")


class _OnBar(Progress):
    """A bar that moves."""

    def __init__(self, title: str, total: int, unit: str, done: int, bar: "Bar"):
        super().__init__(title, total, unit, done)
        self._bar = bar
        self._task = bar.add_task(title, total=total, completed=done, rate="", left="", note="")

    def _show(self, note: str) -> None:
        self._bar.update(self._task, completed=self.done, rate=self.rate, left=self.left, note=note)


def _terminal(stream) -> "Terminal":
    from rich.console import Console as Terminal

    return Terminal(file=stream, markup=False, highlight=False, emoji=False)


def _bar(terminal: "Terminal") -> "Bar":
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.table import Column

    texts = [TextColumn(f"{{task.fields[{name}]}}", markup=False) for name in ("rate", "left", "note")]
    bar = BarColumn(bar_width=None, table_column=Column(ratio=1))  # as wide as the texts leave it
    title = TextColumn("{task.description}", markup=False)
    return Progress(title, bar, MofNCompleteColumn(), *texts, console=terminal, transient=True, expand=True)


def duration(seconds: float) -> str:
    """12 s, 3 min 20 s, 2 h 05 min, 3 d 4 h."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 48 * 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def size(num_bytes: float) -> str:
    """12 bytes, 3.4 MB, 138.0 GB (powers of 1000)."""
    from rich.filesize import decimal

    return decimal(round(num_bytes))


def table(rows: list[list[str]]) -> list[str]:
    """Rows of text as lines of aligned columns; the first row is the heading.

    On a terminal the last column wraps, or goes beneath its row where little room is left for it; nothing is cut.
    """
    from rich.cells import cell_len

    rows = [list(map(visible, row)) for row in rows]
    if not sys.stdout.isatty():
        return _grid(rows, UNCUT)
    width = _terminal(sys.stdout).width
    *others, last = (max(map(cell_len, column)) for column in zip(*rows, strict=True))
    room = width - sum(others) - 2 * len(others)
    return _grid(rows, width) if room >= min(last, MIN_TEXT_COLUMNS) else _beneath(rows, width)


def _grid(rows: list[list[str]], width: int) -> list[str]:
    from rich.box import Box
    from rich.console import Console as Terminal
    from rich.table import Table
    from rich.text import Text

    rule = Box("    \n    \n -  \n    \n    \n    \n    \n    \n", ascii=True)
    grid = Table(box=rule, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for number, title in enumerate(rows[0], 1):
        grid.add_column(Text(title), no_wrap=number < len(rows[0]), overflow="fold")
    for row in rows[1:]:
        grid.add_row(*map(Text, row))
    page = io.StringIO()
    Terminal(file=page, width=width, color_system=None).print(grid)
    return [line.rstrip() for line in page.getvalue().splitlines()]


def _beneath(rows: list[list[str]], width: int) -> list[str]:
    """The last column's texts under their rows."""
    title, rule, *lines = _grid([row[:-1] for row in rows], UNCUT)
    texts = [textwrap.wrap(row[-1], width, initial_indent="    ", subsequent_indent="    ") for row in rows]
    under = [part for line, text in zip(lines, texts[1:], strict=True) for part in (line, *text)]
    return [title, *texts[0], rule, *under]
