"""Splits that each have an archive or a folder of their own, train.tar and val/ for one, as one tree."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.names import split_of
from pipelines.sources.beside import beside
from pipelines.sources.cache import Indexes
from pipelines.sources.contents import Identity
from pipelines.sources.layout import common_folders, first_folders, without
from pipelines.sources.left_out import by_kind, left_out_notes, only_images
from pipelines.sources.numbered import numbered_folders
from pipelines.sources.pieces import ARCHIVES, is_archive
from pipelines.sources.ranges import ArchiveReader, FileReader
from pipelines.sources.synset_tars import class_tars, class_tars_tree, require_one_form
from pipelines.sources.tree import Tree, folder_tree, tar_tree, zip_tree
from pipelines.sources.zip_index import ZipReader
from pipelines.storage import Folder

_READERS = dict(zip(ARCHIVES, (ArchiveReader, ZipReader), strict=True))


@dataclass(frozen=True)
class JoinedReader:
    """A row's `file` is an archive in `folder`, by its ending, or a folder in it."""

    folder: Folder

    def blocks(self, rows: pa.Table) -> np.ndarray | None:
        is_packed = all(map(is_archive, pc.unique(rows["file"].cast(pa.string())).to_pylist()))
        return ArchiveReader(self.folder).blocks(rows) if is_packed else None  # a folder's files are read one by one

    def files(self, rows: pa.Table) -> Iterator[tuple[str, Iterable[Identity]]]:
        is_packed = pc.match_substring_regex(
            rows["file"].cast(pa.string()), rf"(?i)({'|'.join(map(re.escape, ARCHIVES))})$"
        )
        yield from ArchiveReader(self.folder).files(rows.filter(is_packed))
        yield from FileReader(self.folder).files(rows.filter(pc.invert(is_packed)))

    def read(self, rows: pa.Table) -> Iterator[bytes]:
        kinds = [name[-4:].lower() if is_archive(name) else "" for name in rows["file"].to_pylist()]
        images = {
            kind: _READERS.get(kind, FileReader)(self.folder).read(rows.filter(pa.array([k == kind for k in kinds])))
            for kind in set(kinds)
        }
        return (next(images[kind]) for kind in kinds)


def joined_tree(folder: Folder, pieces: Mapping[str, str], cache: Indexes) -> Tree:
    """A tree with a folder for each split; `pieces` are names of archives and folders by split."""
    trees = {split: _piece_tree(folder, name, cache) for split, name in pieces.items()}
    tables, around, left_out = [], {}, Counter[str]()
    for split, tree in trees.items():
        images, others = only_images(tree.paths)
        left_out += others
        if not images.num_rows:
            raise ValueError(
                f"{tree.where} holds no images: found {by_kind(others) or 'nothing'}; move it away, or fill it"
            )
        around[split] = _folders_around(images["path"], tree.where)
        tables.append(_placed(without(around[split], images), split, tree.archive, f"{pieces[split]}/{around[split]}"))
    by_name = sorted(trees, key=pieces.__getitem__)
    return Tree(
        kind="splits",
        where=folder.where(),
        paths=pa.concat_tables(tables).unify_dictionaries(),
        reader=JoinedReader(folder),
        identity=tuple(part for split in by_name for part in _identity(trees[split], pieces[split])),
        empty_in=lambda split: trees[split].empty_in(around[split].rstrip("/")) if split in trees else (),
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
    if not tars:
        return folder_tree(inside)
    others = beside(inside, [entry.name for entry in tars])
    return class_tars_tree(inside, tars, cache)._replace(notes=tuple(f"{name}/: {note}" for note in others))


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
