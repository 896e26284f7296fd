"""A shard as a Parquet file that opens in pandas without this project.

Columns: id, key, label (from 0), image (a JPEG, or the bytes of [size, size, 3] RGB pixels), width, height and format
of the original, crc32c of the image. The file's metadata say `encoding` and `size_px`. Nothing is compressed: JPEGs
would not shrink, and the images of a row group are read as one block.
"""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import BinaryIO

import google_crc32c
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.formats.rows import Row, ShardRows

INDEX_SUFFIX = None
_ROW_GROUP_BYTES = 16 << 20  # of raw images: held three times while they are written
_ROW_GROUP_ROWS = 256
_COLUMNS = [
    ("id", pa.int64()),
    ("key", pa.string()),
    ("label", pa.int32()),
    ("image", pa.binary()),
    ("width", pa.int32()),
    ("height", pa.int32()),
    ("format", pa.string()),
    ("crc32c", pa.uint32()),
]


def write(file: BinaryIO, rows: Iterable[Row], encoding: str, size_px: int) -> None:
    schema = pa.schema(_COLUMNS, metadata={"encoding": encoding, "size_px": str(size_px)})
    rows, group_rows = iter(rows), _rows_of_a_group(encoding, size_px)
    with pq.ParquetWriter(
        file, schema, compression="none", use_dictionary=False, write_statistics=["id", "label"]
    ) as writer:
        while group := list(islice(rows, group_rows)):
            columns = [list(column) for column in zip(*group, strict=True)]
            checksums = [google_crc32c.value(row.image) for row in group]
            writer.write_table(pa.table([*columns, checksums], schema=schema), row_group_size=group_rows)


def _rows_of_a_group(encoding: str, size_px: int) -> int:
    return max(1, min(_ROW_GROUP_ROWS, _ROW_GROUP_BYTES // (size_px**2 * 3))) if encoding == "raw" else _ROW_GROUP_ROWS


def read(data: memoryview) -> ShardRows:
    """The rows of a whole file; the checksums are not looked at (see `first_damage`)."""
    file = pq.ParquetFile(pa.BufferReader(data))
    groups = [file.read_row_group(group, use_threads=False) for group in range(file.num_row_groups)]
    table = pa.concat_tables(groups or [file.schema_arrow.empty_table()])  # all at once would need twice the memory
    metadata = file.schema_arrow.metadata
    size = int(metadata[b"size_px"])
    images = _views(table["image"])
    return ShardRows(
        ids=table["id"].to_numpy(),
        labels=table["label"].to_numpy(),
        images=[image.reshape(size, size, 3) for image in images] if metadata[b"encoding"] == b"raw" else list(images),
        keys=table["key"].to_pylist(),
        widths=table["width"].to_numpy(),
        heights=table["height"].to_numpy(),
        formats=table["format"].to_pylist(),
    )


def first_damage(data: memoryview) -> str | None:
    """Which row is the first that is not as it was written; None where all checksums are right."""
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
    except (pa.ArrowException, OSError) as error:
        return f"all rows: the file's footer cannot be read ({error})"
    first_row = 0
    for group in range(file.num_row_groups):
        end_row = first_row + file.metadata.row_group(group).num_rows
        try:
            table = file.read_row_group(group, columns=["image", "crc32c"], use_threads=False)
        except (pa.ArrowException, OSError) as error:
            return f"a row from {first_row} to {end_row - 1} cannot be read ({error})"
        for row, (image, checksum) in enumerate(zip(_views(table["image"]), table["crc32c"].to_pylist(), strict=True)):
            if google_crc32c.value(image.tobytes()) != checksum:
                return f"row {first_row + row} fails its checksum"
        first_row = end_row
    return None


def _views(column: pa.ChunkedArray) -> Iterator[np.ndarray]:
    """Each value of a binary column as uint8, read-only and without copying."""
    for chunk in column.chunks:
        _, offsets, values = chunk.buffers()
        ends = np.frombuffer(offsets, np.int32)[chunk.offset : chunk.offset + len(chunk) + 1].tolist()
        content = np.frombuffer(values or b"", np.uint8)
        content.flags.writeable = False
        yield from (content[start:end] for start, end in zip(ends, ends[1:], strict=False))
