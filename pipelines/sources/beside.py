"""What lies beside a recognised source and is not read: it is named, so that nobody thinks that it was."""

from collections.abc import Iterable
from dataclasses import replace

from pipelines.sources.source import Source
from pipelines.storage import Folder

_NAMED = 3


def with_beside(source: Source, folder: Folder, used: Iterable[str], among: Iterable[str] | None = None) -> Source:
    """The source with the notes of `beside`."""
    return replace(source, notes=(*source.notes, *beside(folder, used, among)))


def beside(folder: Folder, used: Iterable[str], among: Iterable[str] | None = None) -> tuple[str, ...]:
    """A note of the files and folders in this one that are not used; hidden ones are no matter.

    Args:
        among: The names to look at, where the others are counted already.
    """
    kept = set(used)
    if among is None:
        among = [*(f"{name}/" for name in folder.folders()), *(entry.name for entry in folder.files())]
    names = [name for name in among if not name.startswith(".") and name.rstrip("/") not in kept]
    listed = ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else "")
    return (f"beside it and not used: {listed}",) if names else ()
