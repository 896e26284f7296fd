"""The members of an archive as a table, made a chunk at a time: there may be 15 million."""

import json
import posixpath
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_CHUNK = 65536  # members in one Arrow chunk
_EMPTY = b"empty folders"  # in the schema's metadata, as JSON


def table_of_members(members: Iterable[tuple[bytes, int, int]], where: str) -> pa.Table:
    """Columns path, offset, size, in the order of the members; ValueError where two have one path."""
    remaining = iter(members)
    chunks, hashes = [_chunk([])], [_hashes([])]
    while chunk := list(islice(remaining, _CHUNK)):
        chunks.append(_chunk(chunk))
        hashes.append(_hashes(chunk))
    table = pa.concat_tables(chunks)
    if len(np.unique(np.concatenate(hashes))) < table.num_rows:  # a tenth of the memory of the paths themselves
        require_unique(table, where)
    return table


def require_unique(table: pa.Table, where: str) -> None:
    """ValueError where two members have one path."""
    counts = pc.value_counts(table["path"])
    repeated = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")
    if not len(repeated):
        return
    twice = repeated[0].as_py()
    offsets = table.filter(pc.equal(table["path"], twice))["offset"].to_pylist()
    raise ValueError(f"{where} holds {twice!r} {len(offsets)} times, at offsets {offsets[:3]}; pack it again")


def with_empty_folders(table: pa.Table, folders: Sequence[str]) -> pa.Table:
    """The table of members, which knows those of the archive's folders in which there is none."""
    if not folders:
        return table
    parents = pc.replace_substring_regex(table["path"], r"(^|/)[^/]*$", "")
    full = {above for parent in pc.unique(parents).to_pylist() for above in _with_those_above(parent)}
    empty = sorted({posixpath.normpath(folder) for folder in folders} - {*full, "."})
    return table.replace_schema_metadata({**(table.schema.metadata or {}), _EMPTY: json.dumps(empty)})


def empty_folders(table: pa.Table) -> list[str]:
    """The folders in which there is no member."""
    return json.loads((table.schema.metadata or {}).get(_EMPTY, b"[]"))


def _with_those_above(folder: str) -> Iterator[str]:
    folder = posixpath.normpath(folder)
    while folder not in (".", "/", ""):
        yield folder
        folder = posixpath.dirname(folder)


def names_array(paths: Sequence[bytes]) -> pa.Array:
    try:
        return pa.array(paths, pa.binary()).cast(pa.string())
    except pa.ArrowInvalid:  # not UTF-8: written long ago
        return pa.array([path.decode("utf-8", "backslashreplace") for path in paths], pa.string())


def _chunk(members: list[tuple[bytes, int, int]]) -> pa.Table:
    paths, offsets, sizes = zip(*members, strict=True) if members else ((), (), ())
    return pa.table(
        {"path": names_array(paths), "offset": pa.array(offsets, pa.int64()), "size": pa.array(sizes, pa.int64())}
    )


def _hashes(members: list[tuple[bytes, int, int]]) -> np.ndarray:
    return np.fromiter((hash(path) for path, _, _ in members), np.int64, len(members))
