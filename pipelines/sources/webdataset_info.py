"""What a WebDataset says of itself beside its shards: timm's _info.json, and names of classes."""

import json
import re
from collections.abc import Iterator
from typing import NamedTuple

from pipelines.names import split_of
from pipelines.storage import Folder

_INFO = ("_info.json", "info.json")
_CLASS_FIELDS = ("class_names", "classes", "label_names")
_CLASS_FILES = ("classnames.txt", "classes.txt")
INFO_FILES = (*_INFO, *_CLASS_FILES)
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


class Stated(NamedTuple):
    """All of it is empty where nothing is said."""

    file: str
    shards: tuple[str, ...]
    samples: dict[str, int]  # by split
    class_titles: tuple[str, ...]  # by label


def read_stated(folder: Folder) -> Stated:
    file = next((name for name in _INFO if folder.size(name) is not None), "")
    info = _parsed(folder, file) if file else {}
    try:
        return _stated(file, info, folder)
    except (AttributeError, TypeError) as error:
        raise ValueError(f"{folder.where(file)} is not as timm writes it: {error}; take it away") from error


def _stated(file: str, info: dict, folder: Folder) -> Stated:
    splits = {split: part for name, part in info.get("splits", {}).items() if (split := split_of(name))}
    shards = [shard for part in splits.values() for name in part.get("filenames", ()) for shard in _expanded(name)]
    samples = {split: part["num_samples"] for split, part in splits.items() if "num_samples" in part}
    lists = [info[field] for field in _CLASS_FIELDS if isinstance(info.get(field), list)]
    lists += [_lines(folder, name) for name in _CLASS_FILES if folder.size(name) is not None]
    return Stated(file, tuple(shards), samples, tuple(map(str, lists[0])) if lists else ())


def _parsed(folder: Folder, file: str) -> dict:
    try:
        info = json.loads(folder.read(file))
        return info if isinstance(info, dict) else {}
    except ValueError as error:
        raise ValueError(f"{folder.where(file)} is no JSON: {error}; fetch it again, or take it away") from error


def _lines(folder: Folder, name: str) -> list[str]:
    try:
        return folder.read(name).decode().splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{folder.where(name)} is no text: {error}; fetch it again, or take it away") from error


def _expanded(name: str) -> Iterator[str]:
    """a-{00..12}.tar stands for thirteen names."""
    match = _RANGE.search(name)
    if not match:
        yield name
        return
    for number in range(int(match[1]), int(match[2]) + 1):
        yield from _expanded(f"{name[: match.start()]}{number:0{len(match[1])}d}{name[match.end() :]}")
