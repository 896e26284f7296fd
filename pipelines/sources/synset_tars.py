"""ImageNet as a folder of one tar per synset, n00000000.tar, such as the whole of it (21,841 of them)."""

import re
import shlex
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.names import TRAIN
from pipelines.sources.cache import Indexes
from pipelines.sources.layout import empty_notes, first_folders
from pipelines.sources.left_out import left_out_notes, only_images
from pipelines.sources.ranges import ArchiveReader
from pipelines.sources.source import Source, fingerprint_of, listing
from pipelines.sources.tar_index import index_tar
from pipelines.sources.tree import Tree
from pipelines.storage import FileEntry, Folder

_SYNSET_TAR = re.compile(r"^n\d{8}\.tar$")


def class_tars(files: list[FileEntry]) -> list[FileEntry]:
    return [entry for entry in files if _SYNSET_TAR.match(entry.name)]


def require_one_form(folder: Folder, tars: list[FileEntry]) -> None:
    """ValueError where class tars lie beside class folders, as when a script that unpacks them stopped."""
    folders = [name for name in folder.folders() if _SYNSET_TAR.match(f"{name}.tar")]
    if tars and folders:
        here = shlex.quote(str(folder.local_path())) if folder.is_local else "THERE"
        raise ValueError(
            f"{folder.where()} holds {len(tars):,} class tars, such as {tars[0].name}, beside {len(folders):,} class "
            f"folders, such as {folders[0]}/: unpacked in part. To unpack the rest, run `cd {here} && for t in n*.tar; "
            'do mkdir -p "${t%.tar}" && tar xf "$t" -C "${t%.tar}" && rm "$t"; done`'
        )


def open_synset_tars(tree: Tree) -> Source:
    """A folder of n00000000.tar files, such as the whole of ImageNet (21,841 of them)."""
    images, left_out = only_images(tree.paths)
    if not images.num_rows:
        raise ValueError(f"{tree.where}: there are no images in its class tars")
    codes, found = first_folders(images["path"])
    empty = sorted(tree.empty_in(""))
    names = tuple(sorted({*found, *empty}))
    label_of = {name: i for i, name in enumerate(names)}
    labels = np.array([label_of[wnid] for wnid in found], np.int32)[codes]
    rows = listing(images["path"], labels, images["file"], images["offset"], images["size"])
    return Source(
        kind=tree.kind,
        fingerprint=fingerprint_of([tree.kind, *tree.identity]),
        class_names=names,
        class_titles=names,
        splits={TRAIN: rows},
        reader=tree.reader,
        notes=(*left_out_notes(left_out), *empty_notes(empty)),
    )


def class_tars_tree(folder: Folder, tars: list[FileEntry], cache: Indexes) -> Tree:
    """The files in all these tars, as they would be if each were unpacked to a folder of its name."""
    index = cache.table(["synset tars"], folder, tars, lambda: _index_tars(folder, tars, cache))
    tops, names = first_folders(index["path"])
    files = pa.DictionaryArray.from_arrays(pa.array(tops, pa.int32()), pa.array(names))
    images, _ = only_images(index)
    return Tree(
        kind="synset tars",
        where=folder.where(),
        paths=_as_folders(index).append_column("file", files),
        reader=ArchiveReader(folder),
        identity=([entry[:2] for entry in tars], *index.columns),
        empty_in=partial(_empty_tars, {entry.name for entry in tars} - set(first_folders(images["path"])[1])),
    )


def _index_tars(folder: Folder, tars: list[FileEntry], cache: Indexes) -> pa.Table:
    """One table of all, of which each is kept too: where one tar changes, only that one is indexed again."""
    return pa.concat_tables(cache.tables(["synset tar"], folder, tars, partial(_index_tar, folder))).combine_chunks()


def _index_tar(folder: Folder, name: str) -> pa.Table:
    index = index_tar(folder, name)
    return index.set_column(0, "path", pc.binary_join_element_wise(name, index["path"], "/"))


def _as_folders(index: pa.Table) -> pa.Table:
    return index.set_column(0, "path", pc.replace_substring(index["path"], ".tar/", "/", max_replacements=1))


def _empty_tars(names: set[str], place: str) -> list[str]:
    return sorted(name.removesuffix(".tar") for name in names)
