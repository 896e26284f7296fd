"""What every source is: classes, one table of rows per split, and a reader that turns rows into encoded bytes.

A listing stays in Arrow columns (about 70 bytes a row), never in Python objects: it may hold fifteen million rows.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable
from zlib import crc32

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.names import TEST, TRAIN, VAL

SCHEMA = pa.schema(
    [
        ("key", pa.string()),  # unique in its split
        ("label", pa.int32()),
        ("file", pa.dictionary(pa.int32(), pa.string())),  # where the reader finds it; each kind's own meaning
        ("offset", pa.int64()),
        ("size", pa.int64()),  # bytes of the encoded image; an estimate in Parquet files, 0 where not known
    ]
)

MOST_CLASSES = 100_000  # larger numbers are identifiers of something, not of classes


class Unreadable(bytes):
    """In place of an image's bytes: none, and why, where its archive says that they are not those that it was given."""

    def __new__(cls, why: str):
        self = super().__new__(cls)
        self.why = why
        return self

    why: str


class Reader(Protocol):
    """Small and picklable: it travels with the rows of a shard to the process that writes it."""

    def read(self, rows: pa.Table) -> Iterator[bytes]:
        """The encoded bytes of each row (or `Unreadable`), in the order of `rows`."""


@runtime_checkable
class BlockReader(Reader, Protocol):
    """One that reads neighbours together, and would read much of them again in any other order."""

    def blocks(self, rows: pa.Table) -> np.ndarray | None:
        """A number for each row, equal for rows that are read at once; None where the order costs nothing."""


@dataclass(frozen=True)
class Source:
    kind: str
    fingerprint: str  # sha256 of what identifies the content: names, sizes, index, a sample; not where it lies
    class_names: tuple[str, ...]  # index is the label
    class_titles: tuple[str, ...]  # in words, where known; else the names
    splits: dict[str, pa.Table]  # rows of SCHEMA, in an order that the file system has no part in
    reader: Reader
    notes: tuple[str, ...] = ()  # what is left out, and what is odd, a line each


def listing(keys, labels, files, offsets, sizes) -> pa.Table:
    """Rows of SCHEMA. `files` is an array of SCHEMA's dictionary type, or one name for all rows."""
    keys = pa.array(keys, pa.string()) if not isinstance(keys, (pa.Array, pa.ChunkedArray)) else keys
    if isinstance(files, str):
        files = pa.DictionaryArray.from_arrays(np.zeros(len(keys), np.int32), pa.array([files]))
    return pa.table([keys, pa.array(labels, pa.int32()), files, offsets, sizes], schema=SCHEMA)


def take_rows(rows: pa.Table, indices) -> pa.Table:
    """The rows at `indices`, with a `file` dictionary of only the files they name, so that they travel light."""
    taken = rows.take(pa.array(indices)).combine_chunks()
    file = pc.dictionary_encode(taken["file"].cast(pa.string()))
    return taken.set_column(taken.schema.get_field_index("file"), "file", file.cast(SCHEMA.field("file").type))


def with_val(splits: dict[str, pa.Table], fraction: float, of_train: bool = False) -> dict[str, pa.Table]:
    """Splits in the order train, val, test. Where val is missing, test serves as val, else a share of train does.

    `of_train`: it is a share of train in any case; a val that there is becomes test where there is none, else it is
    left out. The share leaves every class an image to train on.
    """
    splits = {name: table for name, table in splits.items() if table.num_rows}
    if of_train and VAL in splits:
        splits.setdefault(TEST, splits.pop(VAL))
    if not of_train and VAL not in splits and TEST in splits:
        splits[VAL] = splits.pop(TEST)
    elif VAL not in splits and TRAIN in splits and fraction > 0:
        is_val = _chosen(splits[TRAIN], fraction)
        train, val = splits[TRAIN].filter(pa.array(~is_val)), splits[TRAIN].filter(pa.array(is_val))
        splits |= {TRAIN: train, VAL: val} if val.num_rows else {}
    return {name: splits[name] for name in (TRAIN, VAL, TEST) if name in splits}


def _chosen(rows: pa.Table, fraction: float) -> np.ndarray:
    """Which rows are in this share, by their keys."""
    hashes, labels = _hashes(rows["key"]), rows["label"].to_numpy()
    is_chosen = hashes < fraction * 2**32
    robbed = np.setdiff1d(labels, labels[~is_chosen])
    if len(robbed):  # each is left the row that would be chosen last
        order = np.lexsort((hashes, labels))
        is_chosen[order[np.searchsorted(labels[order], robbed, side="right") - 1]] = False
    return is_chosen


def _hashes(keys: pa.ChunkedArray) -> np.ndarray:
    """CRC-32 of each key: the choice of val depends on nothing but the key."""
    batches = (keys.slice(start, 65536).to_pylist() for start in range(0, len(keys), 65536))
    return np.fromiter((crc32(key.encode()) for batch in batches for key in batch), np.uint32, len(keys))


def fingerprint_of(parts: Iterable[str | bytes | int | pa.ChunkedArray | pa.Array]) -> str:
    """sha256 over parts, each preceded by its length so that no two lists of parts look alike."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, (pa.Array, pa.ChunkedArray)):
            part = hash_column(part)
        data = part if isinstance(part, bytes) else str(part).encode()
        digest.update(b"%d:" % len(data))
        digest.update(data)
    return digest.hexdigest()


def listed(splits: dict[str, pa.Table]) -> list[str | pa.ChunkedArray]:
    """What identifies a listing of files, as parts of a fingerprint."""
    return [part for name in sorted(splits) for part in (name, *splits[name].select(["key", "label", "size"]).columns)]


def hash_column(column: pa.Array | pa.ChunkedArray) -> bytes:
    """sha256 of a column of integers or strings; how it is cut into chunks does not matter."""
    numbers, text = hashlib.sha256(), hashlib.sha256()
    for chunk in column.chunks if isinstance(column, pa.ChunkedArray) else [column]:
        if pa.types.is_string(chunk.type) and len(chunk):
            _, offsets, data = chunk.buffers()
            ends = np.frombuffer(offsets, np.int32)[chunk.offset : chunk.offset + len(chunk) + 1]
            numbers.update(np.diff(ends).astype("<i8").data)
            text.update(memoryview(data)[ends[0] : ends[-1]] if data else b"")
        else:
            numbers.update(np.ascontiguousarray(chunk.to_numpy(zero_copy_only=False), "<i8").data)
    return numbers.digest() + text.digest()
