"""Which columns of a Parquet file are the image and its label, by names and types and by Hugging Face's schema."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import zip_longest
from typing import NamedTuple

import pyarrow as pa

from pipelines.names import TRAIN
from pipelines.storage import Folder

_LABEL_NAMES = ("label", "labels", "fine_label", "class", "cls")


class Columns(NamedTuple):
    image: str  # the path of its bytes
    label: str
    is_text: bool  # whether the labels are words
    names: tuple[str, ...]  # of the classes, if they are stored

    def __str__(self) -> str:
        return f"{self.image} and {self.label} of {'words' if self.is_text else 'integers'}"


def common_columns(folder: Folder, files: dict[str, str]) -> Columns:
    """The columns of the first file of each split, which must agree: the same number is the same class in all."""
    found = {split: find_columns(folder, name) for split, name in files.items()}
    first = found[TRAIN]
    for split, columns in found.items():
        if columns[:3] != first[:3]:
            raise ValueError(f"{folder.where(files[split])} has other columns, {columns}, than train, {first}")
        if columns.names and first.names and columns.names != first.names:
            odd = next(pair for pair in zip_longest(columns.names, first.names) if pair[0] != pair[1])
            raise ValueError(
                f"{folder.where(files[split])} has other names of classes than train, such as {odd[0]!r} for {odd[1]!r}"
            )
    return first


@contextmanager
def readable(where: str) -> Iterator[None]:
    """What pyarrow says of a damaged file, with the file and what to do."""
    try:
        yield
    except pa.ArrowInvalid as error:
        raise ValueError(f"{where} is no Parquet file or is damaged: {error}; fetch it again") from error


def require_columns(schema: pa.Schema, columns: Columns, where: str) -> None:
    """ValueError where a file has not these columns, which the first file of its set has."""
    names = {path for field in schema if (path := _bytes_path(field))}
    kinds = {field.name: is_text(field.type) for field in schema if is_text(field.type) or _is_integer(field)}
    if columns.image not in names or kinds.get(columns.label) != columns.is_text:
        raise ValueError(f"{where} lacks the columns of the other files, {columns}")


def find_columns(folder: Folder, name: str) -> Columns:
    """From the schema: the path of the image bytes, the label column, and the class names if they are stored."""
    import pyarrow.parquet as pq

    with readable(folder.where(name)), folder.open(name) as file:
        schema = pq.read_schema(file)
    info = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    features = info.get("info", {}).get("features", {})
    images = [path for field in schema if (path := _bytes_path(field))]
    integers = [field.name for field in schema if _is_integer(field)]
    classes = [column for column in integers if features.get(column, {}).get("_type") == "ClassLabel"]
    words = [field.name for field in schema if is_text(field.type) and field.name in _LABEL_NAMES]
    candidates = classes or [name for name in integers if name in _LABEL_NAMES] or words or integers
    label = next((column for column in _LABEL_NAMES if column in candidates), candidates[0] if candidates else None)
    if label not in (*classes, *_LABEL_NAMES):
        _refuse_other_labels(schema, folder.where(name))
    if len(images) != 1 or label is None or (label not in _LABEL_NAMES and len(candidates) > 1):
        raise ValueError(
            f"{folder.where(name)}: cannot tell the image and label columns from {schema.names}; expected one column "
            f"struct<bytes, path> and one of integers or words, named 'label' if there are several"
        )
    names = tuple(features.get(label, {}).get("names", ()))
    return Columns(images[0], label, label in words, names)


def _refuse_other_labels(schema: pa.Schema, where: str) -> None:
    """ValueError where a column is named as labels are, and is of neither integers nor words."""
    if odd := next((field for field in schema if field.name in _LABEL_NAMES), None):
        raise ValueError(
            f"{where}: the column {odd.name!r} is of {odd.type}, and labels are integers or words: write it as one of "
            "those, or name the column that holds the labels 'label'"
        )


def _bytes_path(field: pa.Field) -> str | None:
    """The Parquet path of a column's image bytes: struct<bytes, path>, or plain binary."""
    kind = field.type
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        return f"{field.name}.bytes"
    return field.name if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) else None


def is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _is_integer(field: pa.Field) -> bool:
    return pa.types.is_integer(field.type)
