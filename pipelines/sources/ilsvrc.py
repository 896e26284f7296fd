"""ImageNet as downloaded: the ILSVRC archives of 2012 or 2010. Nothing is extracted.

Training images lie in a tar of class tars, which one index of headers flattens; labels of the others are in the
development kit, by the number in the image's name.
"""

import hashlib
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.names import TEST, TRAIN, VAL
from pipelines.sources.cache import cached_table
from pipelines.sources.devkit import Devkit, open_devkit, parse_ground_truth
from pipelines.sources.ranges import ArchiveReader
from pipelines.sources.source import Source, fingerprint_of, listing, with_val
from pipelines.sources.synset_tars import keys_and_synsets
from pipelines.sources.tar_index import open_index
from pipelines.specs import IngestSpec
from pipelines.storage import FileEntry, Folder


@dataclass(frozen=True)
class Edition:
    year: int
    train: str
    val: str
    devkit: str
    test: str = ""  # only where its labels are published
    test_truth: str = ""
    patch: str = ""  # replacements of images that are blank in the other archives
    md5: dict[str, str] = field(default_factory=dict)  # as published beside the downloads


EDITIONS = (
    Edition(
        year=2012,
        train="ILSVRC2012_img_train.tar",
        val="ILSVRC2012_img_val.tar",
        devkit="ILSVRC2012_devkit_t12.tar.gz",
        md5={
            "ILSVRC2012_img_train.tar": "1d675b47d978889d74fa0da5fadfb00e",
            "ILSVRC2012_img_val.tar": "29b22e2961454d5413ddabcf34fc5622",
            "ILSVRC2012_devkit_t12.tar.gz": "fa75699e90414af021442c21a62c3abf",
        },
    ),
    Edition(
        year=2010,
        train="ILSVRC2010_images_train.tar",
        val="ILSVRC2010_images_val.tar",
        devkit="ILSVRC2010_devkit-1.0.tar.gz",
        test="ILSVRC2010_images_test.tar",
        test_truth="ILSVRC2010_test_ground_truth.txt",
        patch="patch_images.tar",
    ),
)


def find_edition(files: set[str]) -> Edition | None:
    return next((edition for edition in EDITIONS if edition.train in files), None)


def open_ilsvrc(folder: Folder, edition: Edition, spec: IngestSpec, cache: Path | None) -> Source:
    files = {entry.name: entry for entry in folder.files()}
    for name, use in ((edition.devkit, "says which class is which"), (edition.test_truth, "labels the test images")):
        if name and name not in files and (name == edition.devkit or edition.test in files):
            raise ValueError(f"{folder.where()} lacks {name}, which {use}; put it beside {edition.train}")
    if spec.check_md5:
        _check_md5(folder, edition, files, cache)
    kit = open_devkit(folder, edition.devkit, edition.year, cache)
    order = sorted(range(len(kit.wnids)), key=lambda i: kit.wnids[i] if spec.labels == "wnid" else i)
    label_of_id = np.argsort(order).astype(np.int32)  # by ILSVRC id - 1
    indexes = {
        name: open_index(folder, name, cache)
        for name in (edition.train, edition.val, edition.test, edition.patch)
        if name in files
    }
    splits = {TRAIN: _list_train(indexes[edition.train], edition.train, kit, label_of_id, folder)}
    if edition.val in files:
        splits[VAL] = _list_numbered(indexes[edition.val], edition.val, kit.val_ids, label_of_id, folder)
    if edition.test in files:
        truth = folder.read(edition.test_truth)
        ids = parse_ground_truth(truth, folder.where(edition.test_truth), len(kit.wnids))
        splits[TEST] = _list_numbered(indexes[edition.test], edition.test, ids, label_of_id, folder)
    if edition.patch in files:
        splits = {name: _patched(rows, indexes[edition.patch], edition.patch) for name, rows in splits.items()}
    return Source(
        kind=f"ilsvrc{edition.year}",
        fingerprint=_fingerprint(f"ilsvrc{edition.year}", files, indexes, splits),
        class_names=tuple(kit.wnids[i] for i in order),
        class_titles=tuple(kit.titles[i] for i in order),
        splits=with_val(splits, spec.val_fraction),
        reader=ArchiveReader(folder),
    )


def _list_train(index: pa.Table, name: str, kit: Devkit, label_of_id: np.ndarray, folder: Folder) -> pa.Table:
    if not index.num_rows:
        raise ValueError(f"{folder.where(name)} holds no images; it should be a tar of {len(kit.wnids)} class tars")
    keys, codes, found = keys_and_synsets(index)
    ids = {wnid: i for i, wnid in enumerate(kit.wnids)}
    if unknown := [wnid for wnid in found if wnid not in ids]:
        raise ValueError(f"{folder.where(name)} holds {unknown[0]!r}, which is no class of the development kit")
    labels = label_of_id[[ids[wnid] for wnid in found]][codes]
    return listing(keys, labels, name, index["offset"], index["size"])


def _list_numbered(index: pa.Table, name: str, ids: np.ndarray, label_of_id: np.ndarray, folder: Folder) -> pa.Table:
    """Images such as ILSVRC2012_val_00000001.JPEG, sorted by number; the truth has one id for each number."""
    match = pc.extract_regex(index["path"], r"(?P<key>[^/]+_(?P<number>\d+)\.JPEG)$").combine_chunks()
    if match.null_count or not len(match):
        odd = index.filter(pc.is_null(match))["path"].slice(0, 1).to_pylist()
        raise ValueError(f"{folder.where(name)} should hold numbered .JPEG files only, but has {odd or 'none'}")
    numbers = match.field("number").cast(pa.int64()).to_numpy()
    if numbers.min() < 1 or numbers.max() > len(ids):
        raise ValueError(
            f"{folder.where(name)} has an image number {numbers.max()}, but the ground truth has {len(ids)} lines"
        )
    order = np.argsort(numbers, kind="stable")
    labels = label_of_id[ids[numbers[order] - 1] - 1]
    index = index.take(order)
    return listing(match.field("key").take(pa.array(order)), labels, name, index["offset"], index["size"])


def _patched(rows: pa.Table, patch: pa.Table, name: str) -> pa.Table:
    """The rows with those images read from the patch archive that it has a better version of."""
    patch_names = pc.replace_substring_regex(patch["path"], r"^.*/", "").combine_chunks()
    found = pc.index_in(pc.replace_substring_regex(rows["key"], r"^.*/", ""), value_set=patch_names)
    at = found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found
    is_patched = pc.is_valid(at)
    if not pc.any(is_patched).as_py():
        return rows
    offsets = pc.if_else(is_patched, patch["offset"].combine_chunks().take(at), rows["offset"].combine_chunks())
    sizes = pc.if_else(is_patched, patch["size"].combine_chunks().take(at), rows["size"].combine_chunks())
    files = pa.DictionaryArray.from_arrays(is_patched.cast(pa.int32()), pa.array([rows["file"][0].as_py(), name]))
    return listing(rows["key"], rows["label"], files, offsets, sizes)


def _fingerprint(kind: str, files: dict[str, FileEntry], indexes: dict[str, pa.Table], splits: dict) -> str:
    archives = [part for name in sorted(indexes) for part in (name, files[name].size, *indexes[name].columns)]
    return fingerprint_of([kind, *archives, *(splits[name]["label"] for name in sorted(splits))])


def _check_md5(folder: Folder, edition: Edition, files: dict[str, FileEntry], cache: Path | None) -> None:
    if not edition.md5:
        raise ValueError(f"ingest.check_md5: no MD5 sums are known for ILSVRC{edition.year}; leave it false")
    for name, published in edition.md5.items():
        if name in files:
            kept = cached_table(cache, ["md5", *files[name]], partial(_md5, folder, name))
            if (found := kept["md5"][0].as_py()) != published:
                raise ValueError(f"{folder.where(name)} has the MD5 sum {found}, not {published}; fetch it again")


def _md5(folder: Folder, name: str) -> pa.Table:
    digest = hashlib.md5(usedforsecurity=False)
    with folder.open(name) as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return pa.table({"md5": [digest.hexdigest()]})
