"""What stays of a failure: one line for the terminal, and its whole trace in a file, for who wants to mend it."""

import contextlib
import os
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

from pipelines.storage import redacted

LOGS = "logs"  # in the root
KEPT = 20  # log files in a folder


def line(error: Exception) -> str:
    """The error in one line, with its notes; its type too, where its message is not meant for the user."""
    said = next(iter(str(error).strip().splitlines()), "")
    what = said if said and isinstance(error, ValueError | OSError) else f"{type(error).__name__}: {said}".rstrip(": ")
    return what + "".join(f" ({note})" for note in getattr(error, "__notes__", ()))


def keep_trace(error: Exception, root: Path | None) -> list[str]:
    """Writes the trace to a new private file; the line that names it, or the trace's where nothing is writable."""
    text = redacted("".join(traceback.format_exception(error)))
    for folder, prefix in _places(root):
        with contextlib.suppress(OSError):
            return [f"the whole trace is in {_write(folder, prefix, text)}"]
    return text.rstrip().splitlines()


def _places(root: Path | None) -> Iterator[tuple[Path, str]]:
    """Folders that may take the file, the best first, and what the names of our files begin with there."""
    if root is not None and root.is_dir():
        yield root.absolute() / LOGS, ""
    with contextlib.suppress(FileNotFoundError):  # no temporary folder either
        yield Path(tempfile.gettempdir()), "alexnet-"


def _write(folder: Path, prefix: str, text: str) -> Path:
    """`DATE-PID-*.log`, of mode 0600; only the newest of those before it stay."""
    folder.mkdir(exist_ok=True)
    begins = f"{prefix}{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}-"
    descriptor, name = tempfile.mkstemp(".log", begins, folder)
    try:
        with open(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
    except OSError:
        Path(name).unlink()
        raise
    for old in sorted(folder.glob(f"{prefix}[0-9]*.log"))[:-KEPT]:
        with contextlib.suppress(OSError):  # another user's, in a shared temporary folder
            old.unlink()
    return Path(name)
