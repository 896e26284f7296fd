"""A shard as a Parquet file that others open without this project: pandas, DuckDB, Polars, Hugging Face's `datasets`.

Columns: split, id (in its split), key, label (from 0), image, width, height and format of the original, crc32c of the
image. A JPEG is struct<bytes, path> without a path, which `datasets` shows as a picture; raw pixels are plain binary,
[size, size, 3] RGB. The file's metadata say `encoding` and `size_px`, and under `huggingface` which column is a picture
and what the labels are called. Nothing is compressed: JPEGs would not shrink, and the images of a row group are read as
one block.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import BinaryIO

import google_crc32c
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.formats.rows import Row, ShardRows, Shared

INDEX_SUFFIX = None
_ROW_GROUP_BYTES = 16 << 20  # of raw images: held three times while they are written
_ROW_GROUP_ROWS = 256
_IMAGE = {
    "jpeg": pa.struct([("bytes", pa.binary()), ("path", pa.string())]),  # as `datasets` stores its Image
    "raw": pa.binary(),
}
_READ = ["id", "key", "label", "image", "width", "height", "format"]


def write(file: BinaryIO, rows: Iterable[Row], shared: Shared) -> None:
    schema = _schema(shared)
    rows, group_rows = iter(rows), _rows_of_a_group(shared.encoding, shared.size_px)
    options = {"compression": "none", "use_dictionary": ["split"], "write_statistics": ["split", "id", "label"]}
    with pq.ParquetWriter(file, schema, **options) as writer:
        while group := list(islice(rows, group_rows)):
            writer.write_table(_table(group, schema, shared), row_group_size=group_rows)


def _schema(shared: Shared) -> pa.Schema:
    columns = [
        *[("split", pa.string()), ("id", pa.int64()), ("key", pa.string()), ("label", pa.int64())],
        ("image", _IMAGE[shared.encoding]),
        *[("width", pa.int32()), ("height", pa.int32()), ("format", pa.string()), ("crc32c", pa.uint32())],
    ]
    features: dict[str, dict] = {name: {"_type": "Value", "dtype": str(kind)} for name, kind in columns}
    features["label"] = {"_type": "ClassLabel", "names": shared.class_names}
    features["image"] = {"_type": "Image"} if shared.encoding == "jpeg" else {"_type": "Value", "dtype": "binary"}
    metadata = {"encoding": shared.encoding, "size_px": str(shared.size_px)}
    return pa.schema(columns, metadata | {"huggingface": json.dumps({"info": {"features": features}})})


def _table(group: Sequence[Row], schema: pa.Schema, shared: Shared) -> pa.Table:
    columns = {name: list(column) for name, column in zip(Row._fields, zip(*group, strict=True), strict=True)}
    columns["split"] = [shared.split] * len(group)
    columns["crc32c"] = [google_crc32c.value(row.image) for row in group]
    arrays = [_image_column(columns[name], shared) if name == "image" else columns[name] for name in schema.names]
    return pa.table(arrays, schema=schema)


def _image_column(images: list, shared: Shared) -> pa.Array:
    values = pa.array(images, pa.binary())
    if shared.encoding == "raw":
        return values
    return pa.StructArray.from_arrays([values, pa.nulls(len(values), pa.string())], fields=list(_IMAGE["jpeg"]))


def _rows_of_a_group(encoding: str, size_px: int) -> int:
    return max(1, min(_ROW_GROUP_ROWS, _ROW_GROUP_BYTES // (size_px**2 * 3))) if encoding == "raw" else _ROW_GROUP_ROWS


def read(data: memoryview) -> ShardRows:
    """The rows of a whole file; the checksums are not looked at (see `first_damage`)."""
    file = pq.ParquetFile(pa.BufferReader(data))
    groups = [file.read_row_group(group, _READ, use_threads=False) for group in range(file.num_row_groups)]
    table = pa.concat_tables(groups or [file.schema_arrow.empty_table()])  # all at once would need twice the memory
    metadata = file.schema_arrow.metadata
    size = int(metadata[b"size_px"])
    images = _views(table["image"])
    return ShardRows(
        ids=table["id"].to_numpy(),
        labels=table["label"].to_numpy().astype(np.int32),
        images=[image.reshape(size, size, 3) for image in images] if metadata[b"encoding"] == b"raw" else list(images),
        texts=lambda name: table[name].to_pylist(),
        sizes=lambda name: table[name].to_numpy(),
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
    """The bytes of each image as uint8, read-only and without copying."""
    for chunk in column.chunks:
        values_of = chunk.field("bytes") if pa.types.is_struct(chunk.type) else chunk
        _, offsets, values = values_of.buffers()
        ends = np.frombuffer(offsets, np.int32)[values_of.offset : values_of.offset + len(values_of) + 1].tolist()
        content = np.frombuffer(values or b"", np.uint8)
        content.flags.writeable = False
        yield from (content[start:end] for start, end in zip(ends, ends[1:], strict=False))
