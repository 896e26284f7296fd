"""What the user sees while work runs: a bar with rate and time left on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

PLAIN_LINE_EVERY_S = 10.0


class Progress:
    """One piece of long work, counted in units."""

    def __init__(self, title: str, total: int, unit: str, done: int = 0, stream=None):
        self._title, self._total, self._unit = title, total, unit
        self._done = self._first = done
        self._stream = stream or sys.stderr
        self._began = self._last_line = time.monotonic()
        self._bar = self._task = None

    def open(self) -> None:
        if self._stream.isatty():
            from rich.console import Console as RichConsole
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as RichProgress

            self._bar = RichProgress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=RichConsole(file=self._stream),
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task(self._title, total=self._total, completed=self._done, rate="", note="")

    def update(self, done: int, note: str = "") -> None:
        """The units done so far, and a word on how it goes."""
        self._done = done
        if self._bar is not None:
            self._bar.update(self._task, completed=done, rate=self._rate(), note=note)
        elif time.monotonic() - self._last_line >= PLAIN_LINE_EVERY_S:
            self._last_line = time.monotonic()
            line = f"  {self._title}: {done}/{self._total} {self._unit}, {self._rate()}, {self._left()}  {note}"
            print(line.rstrip(), file=self._stream, flush=True)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _per_s(self) -> float:
        return (self._done - self._first) / max(time.monotonic() - self._began, 1e-9)

    def _rate(self) -> str:
        return f"{self._per_s():.3g} {self._unit}/s"

    def _left(self) -> str:
        rate = self._per_s()
        return f"{duration((self._total - self._done) / rate)} left" if rate > 0 else "time left unknown"


class Console:
    """Lines and progress on standard error; results go to standard output by whoever has them."""

    def __init__(self, stream=None):
        self._stream = stream or sys.stderr

    def say(self, text: str) -> None:
        print(text, file=self._stream, flush=True)

    @contextmanager
    def progress(self, title: str, total: int, unit: str, done: int = 0) -> Iterator[Progress]:
        bar = Progress(title, total, unit, done, self._stream)
        bar.open()
        try:
            yield bar
        finally:
            bar.close()


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
    """12 B, 3.4 MB, 138 GB (powers of 1000)."""
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.3g} TB"


def table(rows: list[list[str]]) -> str:
    """Rows of text in aligned columns; the first row is the heading."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "  ".join("-" * w for w in widths), *lines[1:]])
