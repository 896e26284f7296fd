"""What lies beside a recognised source and is not read: it is named, so that nobody thinks that it was."""

from collections.abc import Iterable
from dataclasses import replace

from pipelines.names import split_of
from pipelines.sources.joined import find_pieces, stem_of
from pipelines.sources.source import Source
from pipelines.storage import Folder

_NAMED = 3


def with_beside(source: Source, folder: Folder, used: Iterable[str], among: Iterable[str] | None = None) -> Source:
    """The source with a note of the files and folders in its folder that are not used; hidden ones are no matter.

    Args:
        among: The names to look at, where the others are counted already.
    """
    kept = set(used)
    if among is None:
        among = [*(f"{name}/" for name in folder.folders()), *(entry.name for entry in folder.files())]
    names = [name for name in among if not name.startswith(".") and name.rstrip("/") not in kept]
    if not names:
        return source
    listed = ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else "")
    return replace(source, notes=(*source.notes, f"beside it and not used: {listed}"))


def with_other_splits(source: Source, folder: Folder, name: str) -> Source:
    """The source of this name in a folder, with a note of the other splits there if it is named as one itself."""
    own = split_of(stem_of(name))
    try:
        pieces = find_pieces(folder) if own else {}
    except OSError:  # not ours to list
        pieces = {}
    others = [other for split, names in pieces.items() if split != own for other in names]
    if not others:
        return source
    note = f"beside it and not used: {', '.join(others)}; name {folder.where()} to read all splits"
    return replace(source, notes=(*source.notes, note))
