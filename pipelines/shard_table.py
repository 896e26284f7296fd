"""`_shards.parquet`: the records of all shards, a row each; readers of images skip the column of label counts."""

from collections.abc import Iterable
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.shard_record import REDO, Quarantined, ShardRecord, WrittenShard
from pipelines.storage import Folder
from pipelines.tables import read_table

if TYPE_CHECKING:
    import pyarrow as pa

SHARDS = "_shards.parquet"
_RECORD = [field.name for field in fields(ShardRecord)]
_TEXTS = ("libraries", "mended")


def write_shard_table(folder: Folder, shards: Iterable[WrittenShard]) -> None:
    """One row a shard, in the order given."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    shards = list(shards)
    quarantined = [("id", pa.int64()), ("key", pa.string()), ("label", pa.int32()), ("file", pa.string())]
    quarantined += [("offset", pa.int64()), ("reason", pa.string())]
    schema = pa.schema(
        [("name", pa.string()), ("split", pa.string()), ("first_id", pa.int64()), ("listed", pa.int64())]
        + [("rows", pa.int64()), ("bytes", pa.int64()), ("sha256", pa.string())]
        + [("quarantined", pa.list_(pa.struct(quarantined)))]
    )
    rows = [{name: value for name, value in asdict(shard).items() if name in _RECORD} for shard in shards]
    table = pa.Table.from_pylist(rows, schema).append_column("labels", _as_maps([shard.labels_N2 for shard in shards]))
    for name in _TEXTS:
        table = table.append_column(name, pa.array([getattr(shard, name) for shard in shards], pa.string()))
    folder.publish(SHARDS, lambda file: pq.write_table(table, file, compression="zstd"))


def read_records(folder: Folder) -> list[ShardRecord]:
    """What readers of images need to know. ValueError where the file cannot be read."""
    return [ShardRecord(**_values(row)) for row in _read(folder, _RECORD).to_pylist()]


def read_written(folder: Folder) -> list[WrittenShard]:
    """All that is known. ValueError where the file cannot be read."""
    table = _read(folder)
    texts = (" ".join(f"{label}:{count}" for label, count in pairs.as_py()) for pairs in table["labels"])
    rows = table.select([*_RECORD, *_TEXTS]).to_pylist()
    return [WrittenShard(**_values(row), labels=text) for row, text in zip(rows, texts, strict=True)]


def _read(folder: Folder, columns: list[str] | None = None) -> "pa.Table":
    try:
        return read_table(folder, SHARDS, columns)
    except (ValueError, OSError) as error:
        raise ValueError(f"{folder.where(SHARDS)} cannot be read ({error}); {REDO}") from error


def _values(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "quarantined": tuple(Quarantined(**entry) for entry in row["quarantined"])}


def _as_maps(pairs: list[np.ndarray]) -> "pa.Array":
    """Label counts [N, 2] as maps from label to images."""
    import pyarrow as pa

    ends = np.cumsum([0, *map(len, pairs)], dtype=np.int32)
    labels, counts = np.concatenate([np.empty((0, 2), np.int32), *pairs]).T
    return pa.MapArray.from_arrays(ends, labels, counts)
