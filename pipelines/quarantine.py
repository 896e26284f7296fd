"""The images that could not be stored: listed beside the shards, and too many of them refused."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import NoReturn

from pipelines.shard_record import Quarantined, ShardRecord, WrittenShard
from pipelines.storage import Folder
from pipelines.tables import read_table

QUARANTINE = "_quarantine.parquet"


def refuse_damaged(folder: Folder, records: Iterable[ShardRecord], listed: int, max_bad: float) -> None:
    """ValueError, and a list of what was set aside, where that is more than the fraction `max_bad` of all `listed`."""
    records = list(records)
    if too_damaged(records, listed, max_bad):
        _refuse(folder, records, "images", [bad for record in records for bad in record.quarantined], listed, max_bad)


def refuse_damaged_parts(
    folder: Folder, records: Iterable[WrittenShard], class_names: Sequence[str], max_bad: float
) -> None:
    """The same for each split, and for each class in it, of which one image may be damaged in any case."""
    records = list(records)
    if not any(record.quarantined for record in records):
        return
    bad: dict[tuple[str, int | None], list[Quarantined]] = defaultdict(list)  # by split, and by class in it
    stored = Counter[tuple[str, int | None]]()
    for record in records:
        stored[record.split, None] += record.rows
        stored.update({(record.split, label): count for label, count in record.label_counts.items()})
        for one in record.quarantined:
            bad[record.split, None].append(one)
            bad[record.split, one.label].append(one)
    for (split, label), found in bad.items():
        listed = stored[split, label] + len(found)
        if len(found) > max(max_bad * listed, 1 if label is not None and max_bad else 0):
            what = f"images of {split}" if label is None else f"images of {class_names[label]!r} in {split}"
            _refuse(folder, records, what, found, listed, max_bad)


def _refuse(
    folder: Folder, records: Sequence[ShardRecord], what: str, bad: list[Quarantined], listed: int, max_bad: float
) -> NoReturn:
    write_quarantine(folder, records)
    examples = "; ".join(f"{entry.key}: {entry.reason}" for entry in bad[:3])
    raise ValueError(
        f"{len(bad)} of {listed} {what} are damaged, more than ingest.max_bad={max_bad:g} ({examples}); "
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
