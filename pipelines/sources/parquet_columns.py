"""Which columns of a Parquet file are the image and its label, by names and types and by Hugging Face's schema."""

import json

import pyarrow as pa

from pipelines.storage import Folder

_LABEL_NAMES = ("label", "labels", "fine_label", "class", "cls")


def find_columns(folder: Folder, name: str) -> tuple[str, str, tuple[str, ...]]:
    """From the schema: the path of the image bytes, the label column, and the class names if they are stored."""
    import pyarrow.parquet as pq

    with folder.open(name) as file:
        schema = pq.read_schema(file)
    info = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    features = info.get("info", {}).get("features", {})
    images = [path for field in schema if (path := _bytes_path(field))]
    integers = [field.name for field in schema if pa.types.is_integer(field.type)]
    classes = [column for column in integers if features.get(column, {}).get("_type") == "ClassLabel"]
    words = [field.name for field in schema if is_text(field.type) and field.name in _LABEL_NAMES]
    candidates = classes or [name for name in integers if name in _LABEL_NAMES] or words or integers
    label = next((column for column in _LABEL_NAMES if column in candidates), candidates[0] if candidates else None)
    if len(images) != 1 or label is None or (label not in _LABEL_NAMES and len(candidates) > 1):
        raise ValueError(
            f"{folder.where(name)}: cannot tell the image and label columns from {schema.names}; expected one column "
            f"struct<bytes, path> and one of integers or words, named 'label' if there are several"
        )
    return images[0], label, tuple(features.get(label, {}).get("names", ()))


def _bytes_path(field: pa.Field) -> str | None:
    """The Parquet path of a column's image bytes: struct<bytes, path>, or plain binary."""
    kind = field.type
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        return f"{field.name}.bytes"
    return field.name if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) else None


def is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)
