"""Labels in Parquet files: numbers, which are kept, or words, which are numbered by the alphabet."""

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.sources.layout import in_order
from pipelines.sources.source import MOST_CLASSES
from pipelines.storage import Folder


def narrowed(labels: pa.Array, where: str) -> pa.Array:
    """Numbers as int32; ValueError where one is too large to be that of a class."""
    largest = pc.max(labels).as_py()
    if largest is not None and largest >= MOST_CLASSES:
        raise ValueError(f"{where} has the label {largest}, which is no number of a class")
    return labels.cast(pa.int32())


def require_labels(labels: pa.ChunkedArray, folder: Folder, split: str) -> None:
    if labels.null_count or (len(labels) and pc.min(labels).as_py() < 0):
        row = pc.index(pc.less(pc.fill_null(labels, -1), 0), True).as_py()
        raise ValueError(
            f"{folder.where()}: {split} has no label in row {row} (it says {labels[row].as_py()}); remove the files "
            f"of this split, since images without labels cannot be used"
        )


def words(parts: Iterable[pa.Table], folder: Folder) -> tuple[str, ...]:
    """The names of the classes where labels are words."""
    found = {word for part in parts for word in part["label"].unique().to_pylist()} - {None, ""}
    if len(found) < 2:
        raise ValueError(f"{folder.where()}: train has the labels {sorted(found)}, which are no classes")
    return tuple(in_order(found))


def numbered(part: pa.Table, names: tuple[str, ...], folder: Folder, split: str) -> pa.Table:
    """With numbers in place of words; null where there is none."""
    labels = pc.index_in(part["label"], pa.array(names, pa.string()))
    unknown = part["label"].filter(pc.and_(pc.is_null(labels), pc.not_equal(pc.fill_null(part["label"], ""), "")))
    if len(unknown):
        raise ValueError(f"{folder.where()}: {split} has the class {unknown[0].as_py()!r}, which train lacks")
    return part.set_column(0, "label", labels)


def numbers(splits: dict[str, pa.Table]) -> tuple[str, ...]:
    return tuple(str(i) for i in range(max(pc.max(rows["label"]).as_py() or 0 for rows in splits.values()) + 1))


def require_names(splits: dict[str, pa.Table], names: tuple[str, ...], folder: Folder) -> None:
    for split, rows in splits.items():
        if (largest := pc.max(rows["label"]).as_py()) is not None and largest >= len(names):
            raise ValueError(
                f"{folder.where()}: {split} has the label {largest}, but there are {len(names)} class names"
            )
