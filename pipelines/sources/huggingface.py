"""Parquet files as Hugging Face stores image sets, with labels that are numbers or words; see `parquet_files`.

The listing reads nothing but the labels and the files' footers; the reader takes each row group once for all rows of a
window (`stored_order.py`).
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from operator import itemgetter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.names import TEST, TRAIN, VAL
from pipelines.sources.cache import Indexes
from pipelines.sources.contents import Identity
from pipelines.sources.parquet_columns import Columns, common_columns, readable, require_columns
from pipelines.sources.parquet_files import ParquetFiles, require_complete
from pipelines.sources.parquet_labels import narrowed, numbered, numbers, require_labels, require_names, words
from pipelines.sources.ranges import archives, identities
from pipelines.sources.source import Source, fingerprint_of, listing
from pipelines.storage import Folder

_ROW_GROUPS = b"row groups"
_READ_BYTES, _READ_ROWS = 8 << 20, 64  # of a row group at a time: from the file, and as images


@dataclass(frozen=True)
class ParquetReader:
    """A row's `file` is a Parquet file, its offset the row in it; `image` is the column of the encoded bytes.

    Rows asked for in the order of their files cost each row group one reading, and no more memory than a few rows.
    """

    folder: Folder
    image: str
    row_groups: dict[str, np.ndarray]  # of each file: the row behind the end of each

    def blocks(self, rows: pa.Table) -> np.ndarray:
        files, offsets = rows["file"].combine_chunks(), rows["offset"].to_numpy()
        codes, blocks, first = files.indices.to_numpy(), np.empty(len(offsets), np.int64), 0
        for code, name in enumerate(files.dictionary.to_pylist()):
            ends, here = self.row_groups[name], codes == code
            blocks[here] = first + np.searchsorted(ends, offsets[here], side="right")
            first += len(ends)
        return blocks

    def files(self, rows: pa.Table) -> Iterator[tuple[str, list[Identity]]]:
        return identities(self.folder, archives(rows))

    def read(self, rows: pa.Table) -> Iterator[bytes]:
        wanted = zip(rows["file"].to_pylist(), rows["offset"].to_pylist(), strict=True)
        for name, of_file in groupby(wanted, key=itemgetter(0)):
            yield from self._read_file(name, np.array([offset for _, offset in of_file]))

    def _read_file(self, name: str, offsets: np.ndarray) -> Iterator[bytes]:
        import pyarrow.parquet as pq

        ends = self.row_groups[name]
        groups = np.searchsorted(ends, offsets, side="right")
        is_start = np.r_[True, (np.diff(groups) != 0) | (np.diff(offsets) <= 0)]
        with self.folder.open(name) as source, pq.ParquetFile(source, buffer_size=_READ_BYTES) as file:
            for part in np.split(np.arange(len(offsets)), np.flatnonzero(is_start)[1:]):
                group = int(groups[part[0]])
                yield from self._read_group(file, group, offsets[part] - (ends[group - 1] if group else 0))

    def _read_group(self, file, group: int, offsets: np.ndarray) -> Iterator[bytes]:
        """The images at ascending rows of a row group, a few rows at a time."""
        start = 0
        batches = file.iter_batches(_READ_ROWS, row_groups=[group], columns=[self.image], use_threads=False)
        for column in map(_flatten, batches):
            here = offsets[(start <= offsets) & (offsets < start + len(column))]
            yield from (image or b"" for image in column.take(pa.array(here - start)).to_pylist())
            start += len(column)


def open_huggingface(found: ParquetFiles, cache: Indexes) -> Source:
    folder, files, notes = found.folder, dict(found.splits), found.notes
    if TRAIN not in files:
        raise ValueError(f"{folder.where()} has {'/'.join(files)} Parquet files but no train-*.parquet")
    if VAL in files and (tests := files.pop(TEST, None)):  # published without labels, as a rule
        notes += (f"{len(tests):,} Parquet files of test are left out, since there is a validation split",)
    for entries in files.values():
        require_complete(entries, folder)
    columns = common_columns(folder, {split: entries[0].name for split, entries in files.items()})
    listed = [entry for entries in files.values() for entry in entries]
    made = cache.tables(["parquet", *columns[:2]], folder, listed, partial(_list_file, folder, columns=columns))
    tables = {entry.name: table for entry, table in zip(listed, made, strict=True)}
    parts = {split: {entry.name: tables[entry.name] for entry in entries} for split, entries in files.items()}
    names = columns.names
    if columns.is_text:
        names = words(parts[TRAIN].values(), folder)
        for split, tables_of_split in parts.items():
            parts[split] = {name: numbered(part, names, folder, split) for name, part in tables_of_split.items()}
    splits = {split: _list_split(folder, split, part) for split, part in parts.items()}
    if empty := next((split for split, rows in splits.items() if not rows.num_rows), None):
        first = folder.where(files[empty][0].name)
        raise ValueError(f"{first} has no rows, and nor has any other file of {empty}; fetch it again, or move it away")
    names = names or numbers(splits)
    require_names(splits, names, folder)
    identity = [(entry.name, entry.size) for split in sorted(files) for entry in files[split]]
    return Source(
        kind="huggingface",
        fingerprint=fingerprint_of(
            ["huggingface", identity, *columns[:2], names, *(splits[split]["label"] for split in sorted(splits))]
        ),
        class_names=names,
        class_titles=names,
        splits=splits,
        reader=ParquetReader(folder, columns.image, {name: _row_group_ends(table) for name, table in tables.items()}),
        notes=notes,
    )


def _flatten(table: pa.Table) -> pa.ChunkedArray:
    """The one column of a table; of a struct, its one field."""
    column = table.column(0)
    return pc.struct_field(column, [0]) if pa.types.is_struct(column.type) else column


def _list_split(folder: Folder, split: str, files_of_split: dict[str, pa.Table]) -> pa.Table:
    counts = [part.num_rows for part in files_of_split.values()]
    rows = pa.concat_tables(files_of_split.values()).combine_chunks()
    require_labels(rows["label"], folder, split)
    codes = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    files = pa.DictionaryArray.from_arrays(codes, pa.array(list(files_of_split)))
    numbers = pa.array(np.arange(len(rows))).cast(pa.string())
    offsets = np.concatenate([np.arange(count) for count in counts])
    return listing(pc.binary_join_element_wise(split, numbers, "/"), rows["label"], files, offsets, rows["size"])


def _list_file(folder: Folder, name: str, columns: Columns) -> pa.Table:
    """Columns label and size of one file; a size is the mean of its row group's compressed images.

    The rows of each row group are in the schema's metadata.
    """
    import pyarrow.parquet as pq

    where = folder.where(name)
    with readable(where), folder.open(name) as source, pq.ParquetFile(source) as file:
        require_columns(file.schema_arrow, columns, where)
        labels = file.read([columns.label], use_threads=False).column(0).combine_chunks()
        groups = list(_row_groups(file.metadata, columns.image))
    labels = labels.cast(pa.string()) if columns.is_text else narrowed(labels, where)
    sizes = [np.full(rows, size // max(rows, 1)) for rows, size in groups]
    table = pa.table({"label": labels, "size": np.concatenate([np.zeros(0, np.int64), *sizes])})
    return table.replace_schema_metadata({_ROW_GROUPS: json.dumps([rows for rows, _ in groups])})


def _row_group_ends(table: pa.Table) -> np.ndarray:
    """Of a file as `_list_file` lists it: the row behind the end of each row group."""
    return np.cumsum(json.loads(table.schema.metadata[_ROW_GROUPS]), dtype=np.int64)


def _row_groups(metadata, image: str) -> Iterator[tuple[int, int]]:
    """(rows, compressed bytes of the images) of each row group."""
    for i in range(metadata.num_row_groups):
        group = metadata.row_group(i)
        columns = (group.column(j) for j in range(group.num_columns))
        yield group.num_rows, next(column.total_compressed_size for column in columns if column.path_in_schema == image)
