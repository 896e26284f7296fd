"""WebDataset shards, here or in folders of splits, such as timm's sets of ImageNet-12k and -22k.

Their names, or those of their folders, say which split they are of (imagenet12k-train-0000.tar, val/000.tar). Labels
that are numbers are taken as they are; words are numbered by the alphabet.
"""

import re
from collections import Counter
from functools import partial
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.names import TRAIN, split_of
from pipelines.sources.cache import Indexes
from pipelines.sources.layout import in_order
from pipelines.sources.left_out import left_out_notes
from pipelines.sources.ranges import ArchiveReader
from pipelines.sources.source import MOST_CLASSES, Source, fingerprint_of, listed, listing
from pipelines.sources.webdataset_info import Stated, read_stated
from pipelines.sources.webdataset_shard import LABEL_KINDS, has_long_endings, index_shard, is_shard, left_out
from pipelines.storage import FileEntry, Folder

Names = tuple[str, ...]
_PEEKED = 20  # files that show what a folder holds: one of a million images is not listed for that
_NUMBER = re.compile(r"^(.*?)(\d+)(?:-of-(\d+))?\.tar$")


def find_shards(folder: Folder) -> list[FileEntry]:
    """The tars of a WebDataset, in the folder or in those of its splits; none where it is another layout."""
    files = folder.files()
    for name in filter(split_of, folder.folders()):
        inside = folder.child(name)
        if any(entry.name.endswith(".tar") for entry in islice(inside.walk(recursive=False), _PEEKED)):
            files += [entry._replace(name=f"{name}/{entry.name}") for entry in inside.files()]
    shards = [entry for entry in files if entry.name.endswith(".tar")]
    return shards if shards and is_shard(folder, shards[0].name) else []


def open_webdataset(folder: Folder, shards: list[FileEntry], cache: Indexes) -> Source:
    where, stated = folder.where(), read_stated(folder)
    _require_all_shards(shards, stated, where)
    long = has_long_endings(folder, shards[0].name)
    what = ["webdataset", "long endings"] if long else ["webdataset"]
    parts = cache.tables(what, folder, shards, partial(index_shard, folder, long))
    samples, incomplete = _whole_samples(_all_samples(shards, parts, where), where)
    names, titles, labels = _classes(samples, stated.class_titles, where)
    rows = listing(samples["key"], labels, samples["file"].combine_chunks(), samples["offset"], samples["size"])
    splits = {split: rows.filter(pc.equal(samples["split"], split)) for split in samples["split"].unique().to_pylist()}
    others = sum(map(left_out, parts), Counter[str]())
    return Source(
        kind="webdataset",
        fingerprint=fingerprint_of(["webdataset", [entry[:2] for entry in shards], names, titles, *listed(splits)]),
        class_names=names,
        class_titles=titles,
        splits=splits,
        reader=ArchiveReader(folder),
        notes=(
            *left_out_notes(others),
            *incomplete,
            *_untrained(splits, names),
            *_missing_shards(shards),
            *_missing_samples(splits, stated),
        ),
    )


def _all_samples(shards: list[FileEntry], parts: list[pa.Table], where: str) -> pa.Table:
    """The samples of all shards, with columns key, file and split."""
    counts = [part.num_rows for part in parts]
    if 0 in counts:
        raise ValueError(f"{where}: {shards[counts.index(0)].name} holds no samples, beside shards that do; move it")
    codes = np.repeat(np.arange(len(shards), dtype=np.int32), counts)
    splits = _splits_of([entry.name for entry in shards], where)
    files = pa.DictionaryArray.from_arrays(codes, pa.array([entry.name for entry in shards]))
    stems = pa.array([entry.name.removesuffix(".tar") for entry in shards]).take(pa.array(codes))
    samples = pa.concat_tables(parts).replace_schema_metadata()
    keys = pc.binary_join_element_wise(stems, samples["path"].combine_chunks(), "/")
    samples = samples.append_column("key", keys).append_column("file", files)
    return samples.append_column("split", pa.array(splits).take(pa.array(codes)))


def _splits_of(names: list[str], where: str) -> list[str]:
    """The split of each shard, by a word in its path; train where no shard has such a word."""
    splits = [_split_of_shard(name, where) for name in names]
    if any(splits) and None in splits:
        raise ValueError(f"{where}: {names[splits.index(None)]} names no split, and other shards do; move it away")
    return [split or TRAIN for split in splits]


def _split_of_shard(name: str, where: str) -> str | None:
    found = {split_of(word) for word in re.split(r"[^A-Za-z]+", name.removesuffix(".tar"))} - {None}
    if len(found) > 1:
        raise ValueError(f"{where}: {name} names several splits, so which is it of? Rename it")
    return found.pop() if found else None


def _whole_samples(samples: pa.Table, where: str) -> tuple[pa.Table, list[str]]:
    """Those with an image and a label; and a line on those without either."""
    samples = _labelled_alike(samples)
    notes, is_whole = [], None
    for column, what in (("offset", "an image"), ("label", "a label")):
        has = pc.is_valid(samples[column])
        lacking = samples.filter(pc.invert(has))
        if lacking.num_rows:
            notes.append(f"{lacking.num_rows:,} samples without {what} left out, such as {lacking['key'][0].as_py()}")
        is_whole = has if is_whole is None else pc.and_(is_whole, has)
    whole = samples.filter(is_whole)
    if not whole.num_rows:
        raise ValueError(f"{where}: no sample has both an image and a label in .cls, .json or .txt")
    return whole, notes


def _labelled_alike(samples: pa.Table) -> pa.Table:
    """With the labels of one kind of file, the first that any sample has: two kinds may count differently."""
    said_in = samples["said_in"].unique().to_pylist()
    kind = next((kind for kind in LABEL_KINDS if kind in said_in), None)
    labels = pc.if_else(pc.equal(samples["said_in"], kind), samples["label"], None)
    return samples.set_column(samples.schema.get_field_index("label"), "label", labels)


def _classes(
    samples: pa.Table, stated: tuple[str, ...], where: str
) -> tuple[tuple[str, ...], tuple[str, ...], pa.Array]:
    """Names and titles of the classes, and the label of each sample."""
    is_number = pc.match_substring_regex(samples["label"], r"^\d+$")
    if not pc.any(is_number).as_py():
        names = tuple(in_order(samples["label"].unique().to_pylist()))
        return names, names, pc.index_in(samples["label"], pa.array(names)).combine_chunks()
    if not pc.all(is_number).as_py():
        word = samples["label"].filter(pc.invert(is_number))[0].as_py()
        raise ValueError(f"{where}: some labels are numbers and others are not, such as {word!r}")
    labels = samples["label"].cast(pa.int64()).combine_chunks()
    if (largest := pc.max(labels).as_py()) >= MOST_CLASSES:
        raise ValueError(f"{where} has the label {largest}, which is no number of a class")
    numbers = tuple(map(str, range(largest + 1)))
    if stated and len(stated) <= largest:
        raise ValueError(f"{where} has the label {largest}, but there are {len(stated)} names of classes beside it")
    titles = stated or _titles(samples, labels, numbers)
    is_unique = len(set(titles)) == len(titles)  # ImageNet has two cranes and two maillots
    names = titles if is_unique else tuple(map(str, range(len(titles))))
    return names, titles, labels


def _titles(samples: pa.Table, labels: pa.Array, numbers: Names) -> Names:
    """What the samples call their class; the numbers where they do not agree, such as captions."""
    pairs = pa.table({"label": labels, "title": samples["title"]}).group_by(["label", "title"]).aggregate([])
    labelled = dict(zip(pairs["label"].to_pylist(), pairs["title"].to_pylist(), strict=True))
    if len(labelled) < pairs.num_rows or None in labelled.values() or len(set(labelled.values())) < len(labelled):
        return numbers
    return tuple(labelled.get(label, number) for label, number in enumerate(numbers))


def _require_all_shards(shards: list[FileEntry], stated: Stated, where: str) -> None:
    if missing := sorted(set(stated.shards) - {entry.name for entry in shards}):
        raise ValueError(
            f"{where} lacks {len(missing):,} of the shards that {stated.file} lists, such as {missing[0]}; fetch them, "
            f"or take {stated.file} away if that is meant"
        )


def _missing_shards(shards: list[FileEntry]) -> list[str]:
    """A line where numbers are missing between those of the shards, or up to the last that their names tell of."""
    found: dict[str, set[int]] = {}
    last: dict[str, int] = {}
    for prefix, number, count in (match.groups() for entry in shards if (match := _NUMBER.match(entry.name))):
        found.setdefault(prefix, set()).add(int(number))
        last[prefix] = max(last.get(prefix, 0), int(count) - 1 if count else int(number))
    missing = [
        f"{prefix}{number}" for prefix in found for number in range(1, last[prefix] + 1) if number not in found[prefix]
    ]
    return [f"{len(missing):,} shards are missing by their numbers, such as {missing[0]}"] if missing else []


def _untrained(splits: dict[str, pa.Table], names: Names) -> list[str]:
    trained = set(splits[TRAIN]["label"].to_numpy()) if TRAIN in splits else set()
    lacking = [name for label, name in enumerate(names) if label not in trained]
    if not lacking:
        return []
    return [f"{len(lacking):,} classes have no image to train on, such as {lacking[0]!r}; each keeps its label"]


def _missing_samples(splits: dict[str, pa.Table], stated: Stated) -> list[str]:
    return [
        f"{split} has {splits[split].num_rows:,} images, and {stated.file} says {count:,}"
        for split, count in stated.samples.items()
        if split in splits and splits[split].num_rows != count
    ]
