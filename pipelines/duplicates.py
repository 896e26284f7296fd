"""Images that are stored more than once: the same bytes, in one split or in several, with one label or several.

An image's place is its split's number and its id in one integer, so that millions are compared as sorted arrays.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pipelines.formats.rows import ShardRows
from pipelines.shard_record import ShardRecord
from pipelines.shards import read_shard
from pipelines.storage import Folder

if TYPE_CHECKING:
    import pyarrow as pa

DUPLICATES = "duplicates.parquet"
_ID_BITS = 48


class Wanted(NamedTuple):
    """A shard, and the places in it of which the keys are wanted, ascending."""

    record: ShardRecord
    places_N: np.ndarray


def digests(rows: ShardRows) -> np.ndarray:
    """uint64 [N, 3]: sha256 of the stored bytes (its first 16 bytes), id."""
    found = np.empty((len(rows), 3), np.uint64)
    found[:, 2] = rows.ids
    for number, image in enumerate(rows.images):
        found[number, :2] = np.frombuffer(hashlib.sha256(image.data).digest(), np.uint64, 2)
    return found


def digest_shard(folder: Folder, record: ShardRecord) -> np.ndarray:
    """The same of a shard of which nothing else is wanted."""
    return digests(read_shard(folder, record))


def find_duplicates(images: Mapping[str, np.ndarray]) -> np.ndarray:
    """int64 [D, 2], by place: that of an image whose bytes an earlier one has, and that of the first which has them.

    `images` are the digests [N, 3] by split; the first split comes before the others, and in a split the lower id.
    """
    twice = _found_twice(np.concatenate([images_N3[:, 0] for images_N3 in images.values()]))
    alike = [images_N3[np.isin(images_N3[:, 0], twice)] for images_N3 in images.values()]
    words_N2 = np.concatenate([images_N3[:, :2] for images_N3 in alike])
    places_N = np.concatenate([images_N3[:, 2] + _start(number) for number, images_N3 in enumerate(alike)])
    order = np.lexsort((places_N, words_N2[:, 1], words_N2[:, 0]))
    words_N2, places_N = words_N2[order], places_N[order].astype(np.int64)
    is_repeat = np.r_[False, (words_N2[1:] == words_N2[:-1]).all(axis=1)][: len(places_N)]
    first = np.maximum.accumulate(np.where(is_repeat, 0, np.arange(len(places_N))))
    pairs_D2 = np.stack([places_N, places_N[first]], axis=1)[is_repeat]
    return pairs_D2[np.argsort(pairs_D2[:, 0])]


def shards_of(pairs_D2: np.ndarray, splits: Mapping[str, Sequence[ShardRecord]]) -> Iterator[Wanted]:
    """The shards that hold images of these pairs."""
    places_N = np.unique(pairs_D2)
    for number, records in enumerate(splits.values()):
        for record in records:
            start = int(_start(number)) + record.first_id
            first, stop = np.searchsorted(places_N, [start, start + record.listed])
            if first < stop:
                yield Wanted(record, places_N[first:stop])


def keys_of(folder: Folder, wanted: Wanted) -> "pa.Table":
    """Columns place, key and label."""
    import pyarrow as pa

    rows = read_shard(folder, wanted.record)
    found = np.searchsorted(rows.ids, wanted.places_N & ((1 << _ID_BITS) - 1))
    return pa.table({"place": wanted.places_N, "key": [rows.keys[i] for i in found], "label": rows.labels[found]})


def named(pairs_D2: np.ndarray, splits: Sequence[str], keys: Iterable["pa.Table"]) -> "pa.Table":
    """Columns split, id, key, label, first_split, first_id, first_key, first_label: a row for each pair."""
    import pyarrow as pa

    empty = pa.table({"place": pa.array([], pa.int64()), "key": pa.array([], pa.string()), "label": np.zeros(0, "i4")})
    known = pa.concat_tables([empty, *keys]).sort_by("place")
    columns = {}
    for prefix, places_D in (("", pairs_D2[:, 0]), ("first_", pairs_D2[:, 1])):
        rows = known.take(np.searchsorted(known["place"].to_numpy(), places_D))
        columns[f"{prefix}split"] = pa.array(splits, pa.string()).take(pa.array(places_D >> _ID_BITS))
        columns[f"{prefix}id"] = pa.array(places_D & ((1 << _ID_BITS) - 1))
        columns |= {f"{prefix}{name}": rows[name] for name in ("key", "label")}
    return pa.table(columns)


def listed_in(data: bytes, split: str) -> dict[int, str]:
    """A split's images that such a table, as a file, lists for being in another split too: their keys, by id.

    Of other tables that have columns split, id and key, all that they list. ValueError where it is none.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(pa.BufferReader(data)) as file:
            table = file.read(use_threads=False)
        wanted = pc.equal(table["split"], split)
        if "first_split" in table.column_names:
            wanted = pc.and_(wanted, pc.not_equal(table["first_split"], split))
        found = table.filter(wanted)
        return dict(zip(found["id"].to_pylist(), found["key"].to_pylist(), strict=True))
    except (pa.ArrowException, KeyError) as error:
        raise ValueError(f"no Parquet table with columns split, id and key ({str(error).splitlines()[0]})") from error


def summary(table: "pa.Table") -> str:
    """How many there are, in which splits, and with other labels; nothing where there are none."""
    import pyarrow.compute as pc

    if not len(table):
        return ""
    pairs = table.group_by(["split", "first_split"], use_threads=False).aggregate([([], "count_all")]).to_pylist()
    where = [f"{pair['count_all']:,} of {pair['split']} {_as_in(pair['split'], pair['first_split'])}" for pair in pairs]
    others = pc.sum(pc.not_equal(table["label"], table["first_label"])).as_py()
    labels = f"; {others:,} with another label" if others else ""
    return f"{len(table):,} images are stored again with the same bytes ({', '.join(where)}{labels})"


def _as_in(split: str, first_split: str) -> str:
    return "as another there" if split == first_split else f"as one of {first_split}"


def write_duplicates(folder: Folder, table: "pa.Table") -> None:
    import pyarrow.parquet as pq

    folder.publish(DUPLICATES, lambda file: pq.write_table(table, file))


def _start(split_number: int) -> np.uint64:
    return np.uint64(split_number << _ID_BITS)


def _found_twice(words_N: np.ndarray) -> np.ndarray:
    """The values that are there more than once; sorts in place."""
    words_N.sort()
    return np.unique(words_N[1:][words_N[1:] == words_N[:-1]])
