"""Compressed archives: no member can be read in place, so they are refused with the command that unpacks them."""

import re
import shlex
from collections.abc import Iterable
from typing import NamedTuple

from pipelines.names import split_of
from pipelines.storage import Folder


class _Tool(NamedTuple):
    mark: bytes  # of the first bytes
    command: str  # replaces NAME.ENDING by NAME, and NAME.tgz by NAME.tar
    endings: tuple[str, ...]


_TOOLS = (
    _Tool(b"\x1f\x8b", "gunzip", (".gz", ".tgz")),
    _Tool(b"BZh", "bunzip2", (".bz2", ".tbz2", ".tbz")),
    _Tool(b"\xfd7zXZ\0", "unxz", (".xz", ".txz")),
    _Tool(b"\x28\xb5\x2f\xfd", "unzstd --rm", (".zst", ".tzst")),
)
_ARCHIVES = (".tar", ".zip")
_ENDINGS = tuple(ending for tool in _TOOLS for ending in tool.endings)
_MARK_BYTES = 6


def is_compressed(name: str) -> bool:
    return name.lower().endswith(_ENDINGS)


def compressed_splits(names: Iterable[str]) -> list[str]:
    """The compressed files that are named as a split or a class of ImageNet is."""
    return sorted(name for name in names if is_compressed(name) and _is_part(unpacked_name(name).removesuffix(".tar")))


def _is_part(stem: str) -> bool:
    return bool(split_of(stem) or re.match(r"(n\d{8}|ILSVRC2012_img_(train|val)|ILSVRC2010_images_[a-z]+)$", stem))


def unpacked_name(name: str) -> str:
    """The name of what the command makes of a compressed file."""
    stem, _, ending = name.rpartition(".")
    if f".{ending.lower()}" not in _ENDINGS:
        return name
    return stem if stem.lower().endswith(_ARCHIVES) else f"{stem}.tar"


def require_uncompressed(folder: Folder, *names: str, then: str = "") -> None:
    """ValueError, with the command that helps, where one of these files is compressed, by its content.

    Args:
        then: What to name as the source afterwards; the unpacked file itself where nothing is given.
    """
    for name in names:
        has_twins = sum(other.endswith(_ending(name)) for other in names) > 1
        with folder.open(name) as file:
            refuse_compressed(folder, name, file.read(_MARK_BYTES), then, has_twins)


def refuse_compressed(folder: Folder, name: str, start: bytes, then: str = "", has_twins: bool = False) -> None:
    """The same for a file that begins with these bytes; also where it is not compressed, as its name says.

    Args:
        has_twins: Whether there are others with the same ending, which the command unpacks too.
    """
    tool = next((tool for tool in _TOOLS if start.startswith(tool.mark)), None)
    if tool is None and not is_compressed(name):
        return
    is_what = "is compressed, so its members cannot be read in place" if tool else "is named as compressed and is not"
    command = _command(folder, name, tool, has_twins) if tool else _rename(folder, name, unpacked_name(name))
    where = "" if folder.is_local else " on a copy of it, put the result there"
    raise ValueError(
        f"{folder.where(name)} {is_what}; run `{command}`{where}, and name {then or folder.where(unpacked_name(name))}"
    )


def _command(folder: Folder, name: str, tool: _Tool, has_twins: bool) -> str:
    """What unpacks the file to its `unpacked_name`."""
    stem, _, ending = name.rpartition(".")
    if f".{ending.lower()}" not in tool.endings:
        packed = f"{name}{tool.endings[0]}"
        return f"{_rename(folder, name, packed)} && {tool.command} {_quoted(folder, packed)}"
    command = f"{tool.command} {_quoted(folder, name)}"
    if not ending.lower().startswith("t") and stem != unpacked_name(name):
        return f"{command} && {_rename(folder, stem, unpacked_name(name))}"
    return f"{tool.command} {_quoted(folder, '.')}/*{_ending(name)}" if has_twins else command


def _ending(name: str) -> str:
    """Such as .tar.gz or .tgz."""
    return name[len(unpacked_name(name)[:-4]) :]


def _rename(folder: Folder, name: str, new: str) -> str:
    return f"mv {_quoted(folder, name)} {_quoted(folder, new)}"


def _quoted(folder: Folder, name: str) -> str:
    return shlex.quote(str(folder.local_path() / name) if folder.is_local else name)
