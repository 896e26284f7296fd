"""ImageNet as downloaded: the ILSVRC archives of 2012 or 2010. Nothing is extracted.

Training images lie in a tar of class tars, which one index of headers flattens; labels of the others are in the
development kit, by the number in the image's name.
"""

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.names import TEST, TRAIN, VAL
from pipelines.sources.cache import Indexes
from pipelines.sources.devkit import Devkit, find_devkit, open_devkit, parse_ground_truth
from pipelines.sources.left_out import by_kind, left_out_notes, only_images
from pipelines.sources.numbered import list_numbered
from pipelines.sources.ranges import ArchiveReader
from pipelines.sources.source import SCHEMA, Source, fingerprint_of, listing, with_val
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
    num_train: int  # published images
    num_test: int = 0
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
        num_train=1_281_167,
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
        num_train=1_261_406,
        num_test=150_000,
        test="ILSVRC2010_images_test.tar",
        test_truth="ILSVRC2010_test_ground_truth.txt",
        patch="patch_images.tar",
    ),
)


def find_edition(files: set[str]) -> Edition | None:
    return next((edition for edition in EDITIONS if edition.train in files), None)


def open_ilsvrc(folder: Folder, edition: Edition, spec: IngestSpec, cache: Indexes) -> Source:
    files = {entry.name: entry for entry in folder.files()}
    kit = _open_kit(folder, edition, cache)
    if edition.test in files and edition.test_truth not in files:
        raise _lacks(folder, edition, edition.test_truth, "labels the test images")
    if spec.check_md5:
        _check_md5(folder, edition, files, cache)
    order = kit.order(spec.labels)
    indexes = {
        name: open_index(folder, name, cache)
        for name in (edition.train, edition.val, edition.test, edition.patch)
        if name in files
    }
    splits, notes = _list_splits(folder, edition, indexes, kit)
    label_of_id = np.argsort(order).astype(np.int32)  # by ILSVRC id - 1
    splits = {name: _with_labels(rows, label_of_id[rows["label"].to_numpy() - 1]) for name, rows in splits.items()}
    if edition.patch in files:
        splits = {name: _patched(rows, indexes[edition.patch], edition.patch) for name, rows in splits.items()}
    return Source(
        kind=f"ilsvrc{edition.year}",
        fingerprint=_fingerprint(f"ilsvrc{edition.year}", files, indexes, splits),
        class_names=tuple(kit.wnids[i] for i in order),
        class_titles=tuple(kit.titles[i] for i in order),
        splits=with_val(splits, spec.val_fraction),
        reader=ArchiveReader(folder),
        notes=tuple(notes),
    )


def _lacks(folder: Folder, edition: Edition, name: str, use: str) -> ValueError:
    return ValueError(f"{folder.where()} lacks {name}, which {use}; put it beside {edition.train}")


def _open_kit(folder: Folder, edition: Edition, cache: Indexes) -> Devkit:
    name = find_devkit(folder, edition.year)
    if name is None:
        raise _lacks(folder, edition, edition.devkit, "says which class is which")
    kit = open_devkit(folder, name, cache)
    if kit.year != edition.year:
        raise ValueError(
            f"{folder.where(name)} is the kit of ILSVRC{kit.year}; put {edition.devkit} beside {edition.train}"
        )
    return kit


def _list_splits(
    folder: Folder, edition: Edition, indexes: dict[str, pa.Table], kit: Devkit
) -> tuple[dict[str, pa.Table], list[str]]:
    """Rows of each split with ILSVRC ids as labels; and what is left out or missing."""
    images, left_out = {}, Counter[str]()
    for name, index in indexes.items():
        images[name], others = only_images(index)
        left_out += others
        if not images[name].num_rows:
            raise ValueError(f"{folder.where(name)} holds no images{f': found {by_kind(others)}' if others else ''}")
    splits = {TRAIN: _list_train(images[edition.train], edition.train, kit, folder)}
    notes = left_out_notes(left_out)
    if kit.is_published:
        notes += missing_notes(TRAIN, splits[TRAIN].num_rows, edition.num_train)
    for split, name, stem in (
        (VAL, edition.val, f"ILSVRC{edition.year}_val"),
        (TEST, edition.test, f"ILSVRC{edition.year}_test"),
    ):
        if name in indexes:
            ids = kit.val_ids if split == VAL else _read_test_truth(folder, edition, kit)
            splits[split], missing = list_numbered(images[name], ids, stem, folder.where(name), name)
            notes += missing
    return splits, notes


def _read_test_truth(folder: Folder, edition: Edition, kit: Devkit) -> np.ndarray:
    where = folder.where(edition.test_truth)
    ids = parse_ground_truth(folder.read(edition.test_truth), where, len(kit.wnids))
    if kit.is_published and len(ids) != edition.num_test:
        raise ValueError(f"{where} has {len(ids):,} lines, not {edition.num_test:,} as published; fetch it again")
    return ids


def missing_notes(split: str, found: int, published: int) -> list[str]:
    """How many images there are less, or more, than were published."""
    if found == published:
        return []
    return [
        f"{split}: {published - found:,} of {published:,} published images are missing"
        if found < published
        else f"{split}: {found - published:,} images more than the {published:,} published"
    ]


def _list_train(index: pa.Table, name: str, kit: Devkit, folder: Folder) -> pa.Table:
    keys, codes, found = keys_and_synsets(index)
    ids = {wnid: i + 1 for i, wnid in enumerate(kit.wnids)}
    if unknown := [wnid for wnid in found if wnid not in ids]:
        raise ValueError(f"{folder.where(name)} holds {unknown[0]!r}, which is no class of the development kit")
    labels = np.array([ids[wnid] for wnid in found], np.int32)[codes]
    return listing(keys, labels, name, index["offset"], index["size"])


def _with_labels(rows: pa.Table, labels: np.ndarray) -> pa.Table:
    return rows.set_column(1, SCHEMA.field("label"), pa.array(labels))


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


def _check_md5(folder: Folder, edition: Edition, files: dict[str, FileEntry], cache: Indexes) -> None:
    if not edition.md5:
        raise ValueError(f"ingest.check_md5: no MD5 sums are known for ILSVRC{edition.year}; leave it false")
    for name, published in edition.md5.items():
        if name in files:
            kept = cache.table(["md5"], folder, [files[name]], partial(_md5, folder, name))
            if (found := kept["md5"][0].as_py()) != published:
                raise ValueError(f"{folder.where(name)} has the MD5 sum {found}, not {published}; fetch it again")


def _md5(folder: Folder, name: str) -> pa.Table:
    digest = hashlib.md5(usedforsecurity=False)
    with folder.open(name) as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return pa.table({"md5": [digest.hexdigest()]})
