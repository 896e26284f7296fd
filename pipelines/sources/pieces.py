"""Splits that each have an archive or a folder of their own: which they are, by their names, and where one is not."""

import re
import shlex
from dataclasses import replace
from itertools import islice

from pipelines.names import EXTENSIONS, TRAIN, VAL, split_of
from pipelines.sources.several import how_to_unpack_parts
from pipelines.sources.source import Source
from pipelines.sources.synset_tars import class_tars
from pipelines.storage import Folder

ARCHIVES = (".tar", ".zip")
_NUMBERED = re.compile(rf"(?i)ILSVRC\d{{4}}_val_\d+\.({'|'.join(EXTENSIONS)})$")
_PEEKED = 20  # files of a folder


def is_archive(name: str) -> bool:
    return name[-4:].lower() in ARCHIVES


def stem_of(name: str) -> str:
    return name[:-4] if is_archive(name) else name


def find_pieces(folder: Folder) -> dict[str, list[str]]:
    """What is named as a split is, by split: the archives, then the folders."""
    pieces: dict[str, list[str]] = {}
    archives = [entry.name for entry in folder.files() if is_archive(entry.name)]
    for name in archives + folder.folders():
        if split := split_of(stem_of(name)):
            pieces.setdefault(split, []).append(name)
    return pieces


def choose_pieces(folder: Folder) -> dict[str, str] | None:
    """The archive or folder of each split, where some are archives; None where folders are enough.

    ValueError: There is no train, or one split twice.
    """
    found = find_pieces(folder)
    unpacked = {name for name in folder.folders() if split_of(name) and not class_tars(folder.child(name).files())}
    packed = [name for names in found.values() for name in names if name not in unpacked]
    if not packed or (TRAIN in found and all(unpacked & set(names) for names in found.values())):
        return None
    if TRAIN not in found:
        how = how_to_unpack_parts(folder, [entry.name for entry in folder.files() if is_archive(entry.name)])
        raise ValueError(
            f"{folder.where()} has {packed[0]}, which looks like a split, but nothing to train on beside it: "
            f"{how or 'put train/ or train.tar there, with the class folders in it'}"
        )
    pieces = {split: only_one(folder, names) for split, names in found.items()}
    if VAL not in pieces:
        require_no_stray_val(folder, [*pieces.values()])
    return pieces


def only_one(folder: Folder, names: list[str]) -> str:
    if len(names) > 1:
        raise ValueError(f"{folder.where()} has both {names[0]} and {names[1]}; keep one of them there")
    return names[0]


def require_no_split(folder: Folder, source: str) -> None:
    """ValueError where something beside this source, which has no splits, is named as one."""
    if found := [name for names in find_pieces(folder).values() for name in names]:
        raise ValueError(
            f"{folder.where()} holds {source} beside {found[0]}, which looks like a split: if those are to train on, "
            "move them into train/ beside it, else name a folder that holds nothing else"
        )


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


def require_no_stray_val(folder: Folder, used: list[str]) -> None:
    """ValueError where validation images lie that nothing reads: loose, or in a folder of another name."""
    here = str(folder.local_path()) if folder.is_local else "THERE"
    command = ""
    if any(_NUMBERED.match(entry.name) for entry in folder.files()):
        command = (
            f"cd {shlex.quote(here)} && mkdir val && find . -maxdepth 1 -name 'ILSVRC*_val_*' -exec mv -t val {{}} +"
        )
    for name in folder.folders():
        files = islice(folder.child(name).walk(recursive=False), _PEEKED)
        if name not in used and any(_NUMBERED.match(entry.name) for entry in files):
            command = f"mv {shlex.quote(f'{here}/{name}')} {shlex.quote(f'{here}/val')}"
    if command:
        raise ValueError(f"{folder.where()} holds validation images elsewhere than in val/; run `{command}`")
