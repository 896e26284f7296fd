"""Class folders: in a folder, here or in an object store, listed anew each time; or in a tar, indexed once.

Both are read in place.
"""

import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pyarrow as pa

from pipelines.names import JUNK_FOLDER
from pipelines.sources.layout import class_layout
from pipelines.sources.ranges import ArchiveReader, FileReader
from pipelines.sources.source import Source, fingerprint_of, listed, with_val
from pipelines.sources.tar_index import dangling_links, open_index
from pipelines.storage import Folder

_CHUNK = 65536


def open_folder(folder: Folder, val_fraction: float) -> Source:
    dangling: list[str] = []
    paths = list_paths(folder, dangling.append)
    names, splits, notes = class_layout(paths, folder.where(), empty_in=partial(_empty_folders, folder))
    return Source(
        kind="folder",
        fingerprint=fingerprint_of(["folder", *listed(splits)]),
        class_names=names,
        class_titles=names,
        splits=with_val(splits, val_fraction),
        reader=FileReader(folder),
        notes=(*notes, *_of_links(sorted(dangling))),
    )


def open_tar(folder: Folder, name: str, val_fraction: float, cache: Path | None) -> Source:
    index = open_index(folder, name, cache)
    names, splits, notes = class_layout(index, folder.where(name), archive=name)
    return Source(
        kind="tar",
        fingerprint=fingerprint_of(["tar", name, folder.size(name), *index.columns]),
        class_names=names,
        class_titles=names,
        splits=with_val(splits, val_fraction),
        reader=ArchiveReader(folder),
        notes=(*notes, *_of_links(dangling_links(index))),
    )


def _of_links(dangling: list[str]) -> list[str]:
    return [f"{len(dangling):,} links lead to no file, such as {dangling[0]}"] if dangling else []


def _empty_folders(folder: Folder, place: str) -> Iterator[str]:
    """Names of the folders in a place that hold nothing at all; an object store has none."""
    around = folder.child(place) if place else folder
    for name in around.folders() if folder.is_local else ():
        if not re.match(JUNK_FOLDER, f"{name}/") and next(around.child(name).walk(), None) is None:
            yield name


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
