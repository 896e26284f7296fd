"""Files that are listed, in a folder, a tar or a zip: what class folders and Tiny ImageNet are looked for in."""

import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.names import JUNK_FOLDER
from pipelines.sources.cache import Indexes
from pipelines.sources.left_out import only_images
from pipelines.sources.ranges import ArchiveReader, FileReader
from pipelines.sources.source import Reader, listing
from pipelines.sources.tar_index import dangling_links, open_index
from pipelines.sources.zip_index import ZipReader, open_zip_index
from pipelines.storage import Folder

_CHUNK = 65536


class Tree(NamedTuple):
    """Files with their places, not yet read."""

    kind: str  # "folder", "tar" ..
    where: str
    paths: pa.Table  # path, offset, size
    reader: Reader
    archive: str = ""  # its name; none for a folder
    identity: tuple = ()  # of the archive, as parts of a fingerprint
    notes: tuple[str, ...] = ()
    empty_in: Callable[[str], Iterable[str]] = lambda folder: ()  # names of the empty folders in a folder

    def size(self, path: str) -> int | None:
        """Bytes of one of the files; None where there is no such file."""
        found = self.paths["size"].filter(pc.equal(self.paths["path"], path))
        return found[0].as_py() if len(found) else None

    def read(self, path: str) -> bytes:
        """The content of one of the files."""
        rows = self.paths.filter(pc.equal(self.paths["path"], path))
        return next(self.reader.read(listing([path], [0], self.archive, rows["offset"], rows["size"])))


def folder_tree(folder: Folder) -> Tree:
    """A folder, here or in an object store, listed anew each time."""
    dangling: list[str] = []
    paths = list_paths(folder, dangling.append)
    notes = _of_links(sorted(dangling))
    empty = partial(_empty_folders, folder)
    return Tree("folder", folder.where(), paths, FileReader(folder), notes=notes, empty_in=empty)


def tar_tree(folder: Folder, name: str, cache: Indexes) -> Tree:
    """A tar, indexed once and read in place."""
    index = open_index(folder, name, cache)
    return Tree(
        kind="tar",
        where=folder.where(name),
        paths=_with_inner_tars_as_folders(index, folder.where(name)),
        reader=ArchiveReader(folder),
        archive=name,
        identity=(name, folder.size(name), *index.columns),
        notes=_of_links(dangling_links(index)),
    )


def _with_inner_tars_as_folders(index: pa.Table, where: str) -> pa.Table:
    """The paths as they would be if the tars in the tar were unpacked, each to a folder of its name."""
    is_inner = pc.match_substring(index["path"], ".tar/")
    if not pc.any(is_inner).as_py():
        return index
    outer, _ = only_images(index.filter(pc.invert(is_inner)))
    if outer.num_rows and (inner := only_images(index.filter(is_inner))[0]).num_rows:
        raise ValueError(
            f"{where} holds {inner.num_rows:,} images in tars, such as {inner['path'][0].as_py()!r}, and "
            f"{outer.num_rows:,} others, such as {outer['path'][0].as_py()!r}: unpacked half before it was packed? "
            "Unpack it, then what is packed in it, and name the folder"
        )
    paths = pc.replace_substring(index["path"], ".tar/", "/")
    return index.set_column(0, "path", paths)


def zip_tree(folder: Folder, name: str, cache: Indexes) -> Tree:
    """A zip, indexed once and read in place."""
    index = open_zip_index(folder, name, cache)
    identity = (name, folder.size(name), *index.columns)
    return Tree("zip", folder.where(name), index, ZipReader(folder), archive=name, identity=identity)


def list_paths(folder: Folder, on_dangling: Callable[[str], None] = lambda name: None) -> pa.Table:
    """Every file below the folder, sorted by path: columns path, offset (0), size."""
    chunks, paths, sizes = [], [], []
    for entry in folder.walk(on_dangling=on_dangling):
        paths.append(entry.name)
        sizes.append(entry.size)
        if len(paths) == _CHUNK:
            chunks.append(_chunk(paths, sizes, folder))
            paths, sizes = [], []
    chunks.append(_chunk(paths, sizes, folder))
    return pa.concat_tables(chunks).sort_by("path")


def _chunk(paths: list[str], sizes: list[int], folder: Folder) -> pa.Table:
    try:
        names = pa.array(paths, pa.string())
    except UnicodeEncodeError as error:
        raise ValueError(f"{folder.where()}: the file name {error.object!r} is not UTF-8; rename it") from error
    return pa.table(
        {"path": names, "offset": pa.array([0] * len(sizes), pa.int64()), "size": pa.array(sizes, pa.int64())}
    )


def _of_links(dangling: list[str]) -> tuple[str, ...]:
    return (f"{len(dangling):,} links lead to no file, such as {dangling[0]}",) if dangling else ()


def _empty_folders(folder: Folder, place: str) -> Iterator[str]:
    """Names of the folders in a place that hold nothing at all; an object store has none."""
    around = folder.child(place) if place else folder
    for name in around.folders() if folder.is_local else ():
        if not re.match(JUNK_FOLDER, f"{name}/") and next(around.child(name).walk(), None) is None:
            yield name
