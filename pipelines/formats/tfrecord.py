"""A shard as a TFRecord file of tf.train.Example, written and read without TensorFlow, and DALI's index of it.

Features, by the names usual for ImageNet: image/encoded, image/format ("JPEG" or "raw": bytes of [height, width, 3]
RGB pixels), image/height, image/width (of what is stored, px), image/colorspace ("RGB"), image/channels (3),
image/class/label (from 0), image/filename (the key); and of our own image/id, image/orig_height, image/orig_width,
image/orig_format. The index, `<shard>.idx`, has a line "offset size" for each record.

Framing: length (uint64), CRC of the length, the Example, CRC of the Example; each CRC is a masked CRC-32C (uint32).
"""

import struct
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Any, BinaryIO

import google_crc32c
import numpy as np

from pipelines.formats.rows import DamagedRow, Row, ShardRows, Shared

INDEX_SUFFIX = ".idx"
_LENGTH = struct.Struct("<QI")
_CRC = struct.Struct("<I")
_NUMBERS = ("image/id", "image/class/label", "image/orig_width", "image/orig_height")
_FRAME_BYTES = _LENGTH.size + _CRC.size


def write(file: BinaryIO, rows: Iterable[Row], shared: Shared) -> str:
    """Write the records; returns the text of the index."""
    examples, same = [], _features_of_all(shared.encoding, shared.size_px)
    for row in rows:
        example = _example(row, same)
        length = struct.pack("<Q", len(example))
        file.write(length + _CRC.pack(_masked_crc(length)))
        file.write(example)
        file.write(_CRC.pack(_masked_crc(example)))
        examples.append(len(example))
    return _index_text(examples)


def index(data: memoryview) -> str:
    """The text of the index of a whole file."""
    return _index_text(example.stop - example.start for _, example in _frames(data))


def _index_text(examples_bytes: Iterable[int]) -> str:
    sizes = [size + _FRAME_BYTES for size in examples_bytes]
    return "".join(f"{end - size} {size}\n" for end, size in zip(accumulate(sizes), sizes, strict=True))


def read(data: memoryview) -> ShardRows:
    """The rows of a whole file; the checksums are not looked at (see `first_damage`)."""
    content = np.frombuffer(data, np.uint8)
    numbers, images, keys, formats = [], [], [], []
    for _, example in _frames(data):  # nothing of an Example is kept: thousands of objects would wake the collector
        values = _parse_example(data, example)
        numbers.append([values[name] for name in _NUMBERS])
        images.append(_image(content, values, is_raw=data[values["image/format"]] == b"raw"))
        keys.append(str(data[values["image/filename"]], "utf-8"))
        formats.append(str(data[values["image/orig_format"]], "utf-8"))
    columns = np.array(numbers, np.int64).reshape(-1, len(_NUMBERS))
    ids, labels, widths, heights = (columns[:, i].copy() for i in range(len(_NUMBERS)))
    return ShardRows(
        ids, labels.astype(np.int32), images, keys, widths.astype(np.int32), heights.astype(np.int32), formats
    )


def first_damage(data: memoryview) -> str | None:
    """Which row is the first that is not as it was written; None where all checksums are right."""
    row = 0
    try:
        for row, (crc, example) in enumerate(_frames(data)):
            if _masked_crc(data[example]) != crc:
                return f"row {row} fails its checksum"
            row += 1
    except DamagedRow as error:
        return str(error)
    return None


def _masked_crc(data) -> int:
    crc = google_crc32c.value(bytes(data))
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _frames(data: memoryview) -> Iterator[tuple[int, slice]]:
    """CRC and place of each Example."""
    offset, row = 0, 0
    while offset < len(data):
        if offset + _LENGTH.size > len(data):
            raise DamagedRow(f"row {row} is cut off")
        length, crc = _LENGTH.unpack_from(data, offset)
        if _masked_crc(data[offset : offset + 8]) != crc:
            raise DamagedRow(f"row {row} fails the checksum of its length")
        start, end = offset + _LENGTH.size, offset + _LENGTH.size + length
        if end + _CRC.size > len(data):
            raise DamagedRow(f"row {row} is cut off")
        yield _CRC.unpack_from(data, end)[0], slice(start, end)
        offset, row = end + _CRC.size, row + 1


def _image(content: np.ndarray, values: dict[str, Any], is_raw: bool) -> np.ndarray:
    image = content[values["image/encoded"]]
    return image.reshape(values["image/height"], values["image/width"], 3) if is_raw else image


# Protocol buffers, as far as an Example needs them: a message is a sequence of (tag, content); the tags here announce
# either a varint (wire type 0) or a length and as many bytes (wire type 2).


def _example(row: Row, same: bytes) -> bytes:
    """tf.train.Example; the image comes last, so that a reader finds the small features together."""
    features = (
        same,
        _int64_feature(b"image/id", row.id),
        _int64_feature(b"image/class/label", row.label),
        _bytes_feature(b"image/filename", row.key.encode()),
        _int64_feature(b"image/orig_width", row.width),
        _int64_feature(b"image/orig_height", row.height),
        _bytes_feature(b"image/orig_format", row.format.encode()),
        _bytes_feature(b"image/encoded", row.image),
    )
    return _field(1, b"".join(features))


def _features_of_all(encoding: str, size_px: int) -> bytes:
    """The features that all records share."""
    features = (
        _int64_feature(b"image/height", size_px),
        _int64_feature(b"image/width", size_px),
        _int64_feature(b"image/channels", 3),
        _bytes_feature(b"image/colorspace", b"RGB"),
        _bytes_feature(b"image/format", b"JPEG" if encoding == "jpeg" else b"raw"),
    )
    return b"".join(features)


def _bytes_feature(name: bytes, value: bytes) -> bytes:
    return _field(1, _field(1, name) + _field(2, _field(1, _field(1, value))))


def _int64_feature(name: bytes, value: int) -> bytes:
    packed = _field(1, _varint(value & 0xFFFFFFFFFFFFFFFF))
    return _field(1, _field(1, name) + _field(2, _field(3, packed)))


def _field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _parse_example(data: memoryview, example: slice) -> dict[str, Any]:
    """Numbers, or the places (slices) of bytes, by name; as `_example` wrote them, of one value each.

    Flat, because it runs for every image read.
    """
    values = {}
    _, position = _read_varint(data, example.start + 1)  # length of Features
    while position < example.stop:
        length, position = _read_varint(data, position + 1)
        end = position + length
        name_end = position + 2 + data[position + 1]
        name = str(data[position + 2 : name_end], "utf-8")
        _, position = _read_varint(data, name_end + 1)  # length of Feature
        is_bytes = data[position] >> 3 == 1
        _, position = _read_varint(data, position + 1)  # length of BytesList or Int64List
        _, position = _read_varint(data, position + 1)  # length of the value
        values[name] = slice(position, end) if is_bytes else _signed(_read_varint(data, position)[0])
        position = end
    return values


def _read_varint(data: memoryview, position: int) -> tuple[int, int]:
    """The value, and the position behind it."""
    value = data[position]
    if value < 0x80:
        return value, position + 1
    value, shift = value & 0x7F, 7
    while True:
        position += 1
        byte = data[position]
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, position + 1


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value
