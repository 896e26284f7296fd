"""A tar of class folders: indexed once by its headers, read in place by offset."""

from pathlib import Path

from pipelines.sources.layout import class_layout
from pipelines.sources.ranges import ArchiveReader
from pipelines.sources.source import Source, fingerprint_of, with_val
from pipelines.sources.tar_index import open_index
from pipelines.storage import Folder


def open_tar(folder: Folder, name: str, val_fraction: float, cache: Path | None) -> Source:
    index = open_index(folder, name, cache)
    classes, splits = class_layout(index, folder.where(name), archive=name)
    return Source(
        kind="tar",
        fingerprint=fingerprint_of(["tar", name, folder.size(name), *index.columns]),
        class_names=classes,
        class_titles=classes,
        splits=with_val(splits, val_fraction),
        reader=ArchiveReader(folder),
    )
