"""The images that could not be stored: listed beside the shards, and too many of them refused."""

from collections.abc import Iterable
from dataclasses import asdict

from pipelines.shard_record import ShardRecord
from pipelines.storage import Folder
from pipelines.tables import read_table

QUARANTINE = "quarantine.parquet"


def refuse_damaged(folder: Folder, records: Iterable[ShardRecord], listed: int, max_bad: float) -> None:
    """ValueError, and a list of what was set aside, where that is more than the fraction `max_bad` of all `listed`."""
    records = list(records)
    if too_damaged(records, listed, max_bad):
        bad = [entry for record in records for entry in record.quarantined]
        write_quarantine(folder, records)
        examples = "; ".join(f"{entry.key}: {entry.reason}" for entry in bad[:3])
        raise ValueError(
            f"{len(bad)} of {listed} images are damaged, more than ingest.max_bad={max_bad:g} ({examples}); "
            f"see {folder.where(QUARANTINE)}; mend the source or raise ingest.max_bad"
        )


def too_damaged(records: Iterable[ShardRecord], listed: int, max_bad: float) -> bool:
    """Whether it is certain already that more than the fraction `max_bad` of all `listed` images are damaged."""
    return sum(len(record.quarantined) for record in records) > max_bad * listed


def write_quarantine(folder: Folder, records: Iterable[ShardRecord]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        [("id", pa.int64()), ("key", pa.string()), ("label", pa.int32()), ("split", pa.string())]
        + [("file", pa.string()), ("offset", pa.int64()), ("reason", pa.string())]
    )
    rows = [{"split": record.split, **asdict(bad)} for record in records for bad in record.quarantined]
    folder.publish(QUARANTINE, lambda file: pq.write_table(pa.Table.from_pylist(rows, schema), file))


def verify_quarantine(folder: Folder, records: Iterable[ShardRecord]) -> list[str]:
    """The problems of the quarantine list."""
    try:
        listed = read_table(folder, QUARANTINE, ["split", "id"]).to_pylist()
    except (ValueError, OSError) as error:
        return [f"{folder.where(QUARANTINE)}: {error}"]
    known = [{"split": record.split, "id": bad.id} for record in records for bad in record.quarantined]
    return [] if listed == known else [f"{folder.where(QUARANTINE)}: not the images that the manifest sets aside"]
