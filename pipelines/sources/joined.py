"""Splits that each have an archive or a folder of their own, train.tar and val/ for one, as one tree."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.names import TRAIN, split_of
from pipelines.sources.cache import Indexes
from pipelines.sources.contents import Identity
from pipelines.sources.layout import EXPECTED, common_folders, first_folders, without
from pipelines.sources.left_out import by_kind, left_out_notes, only_images
from pipelines.sources.numbered import numbered_folders
from pipelines.sources.ranges import ArchiveReader, FileReader
from pipelines.sources.synset_tars import class_tars, class_tars_tree, require_one_form
from pipelines.sources.tree import Tree, folder_tree, tar_tree, zip_tree
from pipelines.sources.zip_index import ZipReader
from pipelines.storage import Folder

_ARCHIVES = {".tar": ArchiveReader, ".zip": ZipReader}


@dataclass(frozen=True)
class JoinedReader:
    """A row's `file` is an archive in `folder`, by its ending, or a folder in it."""

    folder: Folder

    def blocks(self, rows: pa.Table) -> np.ndarray | None:
        is_packed = all(map(is_archive, pc.unique(rows["file"].cast(pa.string())).to_pylist()))
        return ArchiveReader(self.folder).blocks(rows) if is_packed else None  # a folder's files are read one by one

    def files(self, rows: pa.Table) -> Iterator[tuple[str, Iterable[Identity]]]:
        is_packed = pc.match_substring_regex(
            rows["file"].cast(pa.string()), rf"(?i)({'|'.join(map(re.escape, _ARCHIVES))})$"
        )
        yield from ArchiveReader(self.folder).files(rows.filter(is_packed))
        yield from FileReader(self.folder).files(rows.filter(pc.invert(is_packed)))

    def read(self, rows: pa.Table) -> Iterator[bytes]:
        kinds = [name[-4:].lower() if is_archive(name) else "" for name in rows["file"].to_pylist()]
        images = {
            kind: _ARCHIVES.get(kind, FileReader)(self.folder).read(rows.filter(pa.array([k == kind for k in kinds])))
            for kind in set(kinds)
        }
        return (next(images[kind]) for kind in kinds)


def is_archive(name: str) -> bool:
    return name[-4:].lower() in _ARCHIVES


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
        raise ValueError(
            f"{folder.where()} has {packed[0]}, which looks like a split, but nothing to train on beside it: put "
            "train/ or train.tar there, with the class folders in it"
        )
    return {split: only_one(folder, names) for split, names in found.items()}


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


def joined_tree(folder: Folder, pieces: Mapping[str, str], cache: Indexes) -> Tree:
    """A tree with a folder for each split; `pieces` are names of archives and folders by split."""
    trees = {split: _piece_tree(folder, name, cache) for split, name in pieces.items()}
    tables, around, left_out = [], {}, Counter[str]()
    for split, tree in trees.items():
        images, others = only_images(tree.paths)
        left_out += others
        if not images.num_rows:
            raise ValueError(f"{tree.where} holds no images: found {by_kind(others) or 'nothing'}; {EXPECTED}")
        around[split] = _folders_around(images["path"], tree.where)
        tables.append(_placed(without(around[split], images), split, tree.archive, f"{pieces[split]}/{around[split]}"))
    by_name = sorted(trees, key=pieces.__getitem__)
    return Tree(
        kind="splits",
        where=folder.where(),
        paths=pa.concat_tables(tables).unify_dictionaries(),
        reader=JoinedReader(folder),
        identity=tuple(part for split in by_name for part in _identity(trees[split], pieces[split])),
        empty_in=lambda split: trees[split].empty_in(around[split].rstrip("/")),
        notes=(*left_out_notes(left_out), *(note for tree in trees.values() for note in tree.notes)),
    )


def archive_tree(folder: Folder, name: str, cache: Indexes) -> Tree:
    return (tar_tree if name.lower().endswith(".tar") else zip_tree)(folder, name, cache)


def _piece_tree(folder: Folder, name: str, cache: Indexes) -> Tree:
    if is_archive(name):
        return archive_tree(folder, name, cache)
    inside = folder.child(name)
    tars = class_tars(inside.files())
    require_one_form(inside, tars)
    return class_tars_tree(inside, tars, cache) if tars else folder_tree(inside)


def _folders_around(paths: pa.ChunkedArray, where: str) -> str:
    """The folders that all images of a split begin with: around its classes, or down to where they lie flat."""
    if len(flat := numbered_folders(paths)) == 1 and pc.all(pc.starts_with(paths, flat[0])).as_py():
        return flat[0]
    around = common_folders(paths, through_splits=True)
    tops = first_folders(pc.utf8_slice_codeunits(paths, len(around)))[1]
    if splits := sorted(name for name in tops if split_of(name)):
        raise ValueError(f"{where} holds splits itself, such as {splits[0]}/: name it alone as the source")
    return around


def _placed(images: pa.Table, split: str, archive: str, folder: str) -> pa.Table:
    """Images of a piece below a folder of their split, with where they are read from."""
    files = _same(archive or folder.rstrip("/"), images.num_rows)
    if "file" in images.column_names:  # archives in a folder
        files = pc.binary_join_element_wise(folder, images["file"].cast(pa.string()), "").dictionary_encode()
    paths = pc.binary_join_element_wise(f"{split}/", images["path"], "")
    return pa.table({"path": paths, "offset": images["offset"], "size": images["size"], "file": files})


def _same(file: str, count: int) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.repeat(pa.scalar(0, pa.int32()), count), pa.array([file]))


def _identity(tree: Tree, name: str) -> tuple:
    return tree.identity or (name, tree.paths["path"], tree.paths["size"])
