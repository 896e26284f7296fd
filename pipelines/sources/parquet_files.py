"""Which Parquet files of a folder are of which split, in the layouts of Hugging Face.

train-00000-of-00014.parquet and the like, in the folder or in data/; folders of splits, as the Hub converts data sets
(default/train/0000.parquet); and one folder for each configuration around either.
"""

import re
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from pipelines.names import JUNK_FOLDER, SPLIT_WORDS, TRAIN, split_of
from pipelines.storage import FileEntry, Folder

_FILE = re.compile(rf"(?i)^({'|'.join(SPLIT_WORDS)})(?:[-_.].*)?\.parquet$")
_PART = re.compile(r"-(\d+)-of-(\d+)")
_NUMBER = re.compile(r"(\d{4,})\.parquet$")
_PARTIAL = "partial-"  # before the name of a split that the Hub did not convert to its end
_MAX_CONFIGURATIONS = 50  # more folders than that are no configurations, and not looked into
_PEEKED = 20


class ParquetFiles(NamedTuple):
    folder: Folder
    splits: dict[str, list[FileEntry]]  # names from the folder on
    notes: tuple[str, ...] = ()
    inside: str = ""  # the name of this folder in the one that was asked for, if it is another

    @property
    def used(self) -> set[str]:
        """Names in the folder that was asked for, of what is read or counted already."""
        names = {entry.name.partition("/")[0] for entries in self.splits.values() for entry in entries}
        return {self.inside} if self.inside else names | {entry.name for entry in _parquet(self.folder)}


def find_files(folder: Folder) -> ParquetFiles | None:
    """The Parquet files by split; None where there are none. ValueError where there are several configurations."""
    for inside in ("", "data"):
        place = folder.child(inside) if inside else folder
        if found := _by_name(place) or _by_folder(place):
            return found._replace(inside=inside)
    names = [name for name in folder.folders() if not re.match(JUNK_FOLDER, f"{name}/")]
    places = {name: folder.child(name) for name in names if len(names) <= _MAX_CONFIGURATIONS}
    found_in = {name: found for name, place in places.items() if (found := _configuration(place, name))}
    if len(found_in) > 1:
        example = folder.where(next(iter(found_in)))
        raise ValueError(
            f"{folder.where()} holds several configurations: {', '.join(found_in)}; name one, such as {example}"
        )
    return next(iter(found_in.values()), None) or (None if names else _all_train(folder))


def folder_to_name(folder: Folder) -> Folder:
    """The folder that holds the data set of which a Parquet file in `folder` is a part."""
    around, name = folder.split()
    return around if split_of(name.removeprefix(_PARTIAL)) or name == "data" else folder


def require_complete(entries: list[FileEntry], folder: Folder) -> None:
    """ValueError where files are missing by names such as train-00003-of-00014.parquet, or train/0003.parquet."""
    parts = {(int(match[1]), int(match[2])) for entry in entries if (match := _PART.search(entry.name))}
    missing = {number for _, count in parts for number in range(count)} - {number for number, _ in parts}
    if missing:
        example = _PART.sub(f"-{min(missing):05d}-of-{max(parts)[1]:05d}", entries[0].name)
    else:
        numbers = {int(match[1]) for entry in entries if not parts and (match := _NUMBER.search(entry.name))}
        missing = set(range(max(numbers, default=0))) - numbers
        example = _NUMBER.sub(f"{min(missing, default=0):04d}.parquet", entries[0].name)
    if missing:
        raise ValueError(f"{folder.where()} lacks {len(missing)} of its Parquet files, such as {example}; fetch them")


def _configuration(folder: Folder, name: str) -> ParquetFiles | None:
    found = (_by_name(folder) if _has_parquet(folder) else None) or _by_folder(folder)
    return found._replace(inside=name) if found else None


def _by_name(folder: Folder) -> ParquetFiles | None:
    """Files whose names begin with that of a split."""
    splits: dict[str, list[FileEntry]] = {}
    others = []
    for entry in _parquet(folder):
        if match := _FILE.match(entry.name):
            splits.setdefault(SPLIT_WORDS[match[1].lower()], []).append(entry)
        else:
            others.append(entry.name)
    note = f"{len(others):,} Parquet files left out, whose names say no split, such as {others[0]}" if others else ""
    return ParquetFiles(folder, splits, (note,) if note else ()) if splits else None


def _by_folder(folder: Folder) -> ParquetFiles | None:
    """Files in folders of splits."""
    splits: dict[str, list[FileEntry]] = {}
    notes = []
    for name in folder.folders():
        split, inside = split_of(name.removeprefix(_PARTIAL)), folder.child(name)
        if split is None or not _has_parquet(inside):
            continue
        if split in splits:
            raise ValueError(f"{folder.where()} has two folders of the split {split}, one of them {name}/; keep one")
        splits[split] = [entry._replace(name=f"{name}/{entry.name}") for entry in _parquet(inside)]
        if name.startswith(_PARTIAL):
            notes.append(f"{name}/ is a part of its split: the Hub did not convert it to its end")
    return ParquetFiles(folder, splits, tuple(notes)) if splits else None


def _all_train(folder: Folder) -> ParquetFiles | None:
    entries = list(_parquet(folder))
    note = f"{entries[0].name} names no split, so all rows are taken to train on" if entries else ""
    return ParquetFiles(folder, {TRAIN: entries}, (note,)) if entries else None


def _parquet(folder: Folder) -> Iterator[FileEntry]:
    return (entry for entry in folder.files() if re.match(r"(?i)[^._].*\.parquet$", entry.name))


def _has_parquet(folder: Folder) -> bool:
    """Whether there is a Parquet file among the first files: a folder of a million images is not listed for that."""
    return any(entry.name.lower().endswith(".parquet") for entry in islice(folder.walk(recursive=False), _PEEKED))
