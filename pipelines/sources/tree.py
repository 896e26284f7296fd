"""Files that are listed, in a folder, a tar or a zip: what class folders and Tiny ImageNet are looked for in."""

import functools
import posixpath
import re
from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.names import JUNK_FOLDER
from pipelines.sources.cache import Indexes
from pipelines.sources.layout import first_folders, without
from pipelines.sources.left_out import only_images
from pipelines.sources.members import empty_folders
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
    empty_in: Callable[[str], Iterable[str]] = lambda folder: ()  # names of folders in a folder that hold no image

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
    empty = _empty_in(paths, partial(_folders_in, folder))
    return Tree("folder", folder.where(), paths, FileReader(folder), notes=notes, empty_in=empty)


def tar_tree(folder: Folder, name: str, cache: Indexes) -> Tree:
    """A tar, indexed once and read in place."""
    index = open_index(folder, name, cache)
    paths = _with_inner_tars_as_folders(index, folder.where(name))
    empty = [path.replace(".tar/", "/").removesuffix(".tar") for path in empty_folders(index)]
    return Tree(
        kind="tar",
        where=folder.where(name),
        paths=paths,
        reader=ArchiveReader(folder),
        archive=name,
        identity=(name, folder.size(name), *index.columns),
        notes=_of_links(dangling_links(index)),
        empty_in=_empty_in(paths, partial(_first_below, empty)),
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
    empty = _empty_in(index, partial(_first_below, empty_folders(index)))
    where = folder.where(name)
    return Tree("zip", where, index, ZipReader(folder), archive=name, identity=identity, empty_in=empty)


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


def _empty_in(paths: pa.Table, folders_in: Callable[[str], Iterable[str]]) -> Callable[[str], list[str]]:
    """`Tree.empty_in`: folders with other files, and those that no path shows; each place is looked at once."""

    @functools.cache
    def names_in(place: str) -> list[str]:
        around = f"{place}/" if place else ""
        inside = without(around, paths.filter(pc.starts_with(paths["path"], around)))
        inside = inside.filter(pc.match_substring(inside["path"], "/"))
        with_images = first_folders(only_images(inside)[0]["path"])[1]
        names = {*first_folders(inside["path"])[1], *folders_in(place)}.difference(with_images)
        return sorted(name for name in names if not re.match(JUNK_FOLDER, f"{name}/"))

    return names_in


def _folders_in(folder: Folder, place: str) -> list[str]:
    """Those in a place, as far as no path shows them; an object store has no others."""
    return (folder.child(place) if place else folder).folders() if folder.is_local else []


def _first_below(folders: Iterable[str], place: str) -> list[str]:
    """Names of the folders in a place that are among these, or around one of them."""
    place = posixpath.normpath(place)
    around = "" if place == "." else f"{place}/"
    return [path.removeprefix(around).partition("/")[0] for path in folders if path.startswith(around)]
