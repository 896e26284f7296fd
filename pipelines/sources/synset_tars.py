"""ImageNet as a folder of one tar per synset, n00000000.tar, such as the whole of it (21,841 of them)."""

import re
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.names import TRAIN
from pipelines.sources.cache import Indexes
from pipelines.sources.layout import empty_notes, first_folders
from pipelines.sources.left_out import left_out_notes, only_images
from pipelines.sources.ranges import ArchiveReader
from pipelines.sources.source import Source, fingerprint_of, listing, with_val
from pipelines.sources.tar_index import index_tar
from pipelines.specs import IngestSpec
from pipelines.storage import FileEntry, Folder

_SYNSET_TAR = re.compile(r"^n\d{8}\.tar$")


def synset_tars(files: list[FileEntry]) -> list[FileEntry]:
    return [entry for entry in files if _SYNSET_TAR.match(entry.name)]


def open_synset_tars(folder: Folder, tars: list[FileEntry], spec: IngestSpec, cache: Indexes) -> Source:
    """A folder of n00000000.tar files, such as the whole of ImageNet (21,841 of them)."""
    index = cache.table(["synset tars"], folder, tars, lambda: _index_tars(folder, tars, cache))
    images, left_out = only_images(index)
    if not images.num_rows:
        raise ValueError(
            f"{folder.where()}: there are no images in its {len(tars):,} class tars, such as {tars[0].name}"
        )
    names = tuple(entry.name.removesuffix(".tar") for entry in tars)
    keys, codes, found = keys_and_synsets(images)
    label_of = {name: i for i, name in enumerate(names)}
    labels = np.array([label_of[wnid] for wnid in found], np.int32)[codes]
    files = pa.DictionaryArray.from_arrays(labels, pa.array([entry.name for entry in tars]))
    rows = listing(keys, labels, files, images["offset"], images["size"])
    return Source(
        kind="synset tars",
        fingerprint=fingerprint_of(["synset tars", [entry[:2] for entry in tars], *index.columns]),
        class_names=names,
        class_titles=names,
        splits=with_val({TRAIN: rows}, spec.val_fraction),
        reader=ArchiveReader(folder),
        notes=(*left_out_notes(left_out), *empty_notes(sorted(set(names) - set(found)))),
    )


def _index_tars(folder: Folder, tars: list[FileEntry], cache: Indexes) -> pa.Table:
    """One table of all, of which each is kept too: where one tar changes, only that one is indexed again."""
    return pa.concat_tables(cache.tables(["synset tar"], folder, tars, partial(_index_tar, folder))).combine_chunks()


def _index_tar(folder: Folder, name: str) -> pa.Table:
    index = index_tar(folder, name)
    return index.set_column(0, "path", pc.binary_join_element_wise(name, index["path"], "/"))


def keys_and_synsets(index: pa.Table) -> tuple[pa.ChunkedArray, np.ndarray, list[str]]:
    """From paths n01440764.tar/n01440764_1.JPEG: the keys without .tar, and their synsets as codes into a list."""
    keys = pc.replace_substring_regex(index["path"], r"^(?:.*?/)?([^/]+)\.tar/", r"\1/", max_replacements=1)
    return keys, *first_folders(keys)
