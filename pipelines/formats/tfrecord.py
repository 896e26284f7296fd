"""A shard as a TFRecord file of tf.train.Example, written and read without TensorFlow, and DALI's index of it.

Features, by the names usual for ImageNet: image/encoded, image/format ("JPEG" or "raw": bytes of [height, width, 3]
RGB pixels), image/height, image/width (of what is stored, px), image/colorspace ("RGB"), image/channels (3),
image/class/label (from 0), image/filename (the key); and of our own image/id, image/orig_height, image/orig_width,
image/orig_format. The index, `<shard>.idx`, has a line "offset size" for each record.

Framing: length (uint64), CRC of the length, the Example, CRC of the Example; each CRC is a masked CRC-32C (uint32).
"""

import struct
from collections.abc import Iterable, Iterator
from typing import BinaryIO

import google_crc32c
import numpy as np

from pipelines.formats.rows import DamagedRow, Row, ShardRows

INDEX_SUFFIX = ".idx"
_LENGTH = struct.Struct("<QI")
_CRC = struct.Struct("<I")
_FRAME_BYTES = _LENGTH.size + _CRC.size


def write(file: BinaryIO, rows: Iterable[Row], encoding: str, size_px: int) -> str:
    """Write the records; returns the text of the index."""
    index, offset = [], 0
    for row in rows:
        example = _example(row, encoding, size_px)
        length = struct.pack("<Q", len(example))
        file.write(length + _CRC.pack(_masked_crc(length)))
        file.write(example)
        file.write(_CRC.pack(_masked_crc(example)))
        index.append(f"{offset} {len(example) + _FRAME_BYTES}\n")
        offset += len(example) + _FRAME_BYTES
    return "".join(index)


def read(data: memoryview) -> ShardRows:
    """The rows of a whole file; the checksums are not looked at (see `first_damage`)."""
    examples = [_parse_example(example) for _, example in _frames(data)]
    return ShardRows(
        ids=np.array([e["image/id"] for e in examples], np.int64),
        labels=np.array([e["image/class/label"] for e in examples], np.int32),
        images=[_image(e) for e in examples],
        keys=[str(e["image/filename"], "utf-8") for e in examples],
        widths=np.array([e["image/orig_width"] for e in examples], np.int32),
        heights=np.array([e["image/orig_height"] for e in examples], np.int32),
        formats=[str(e["image/orig_format"], "utf-8") for e in examples],
    )


def first_damage(data: memoryview) -> str | None:
    """Which row is the first that is not as it was written; None where all checksums are right."""
    row = 0
    try:
        for row, (crc, example) in enumerate(_frames(data)):
            if _masked_crc(example) != crc:
                return f"row {row} fails its checksum"
            row += 1
    except DamagedRow as error:
        return str(error)
    return None


def _masked_crc(data) -> int:
    crc = google_crc32c.value(bytes(data))
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _frames(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """CRC and Example of each record."""
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
        yield _CRC.unpack_from(data, end)[0], data[start:end]
        offset, row = end + _CRC.size, row + 1


def _image(example: dict[str, memoryview | int]) -> np.ndarray:
    image = np.frombuffer(example["image/encoded"], np.uint8)
    if example["image/format"] == b"raw":
        return image.reshape(example["image/height"], example["image/width"], 3)
    return image


# Protocol buffers, as far as an Example needs them: a message is a sequence of (tag, content); the tags here announce
# either a varint (wire type 0) or a length and as many bytes (wire type 2).


def _example(row: Row, encoding: str, size_px: int) -> bytes:
    """tf.train.Example; the image comes last, so that a reader finds the small features together."""
    features = b"".join(
        (
            _int64_feature(b"image/id", row.id),
            _int64_feature(b"image/class/label", row.label),
            _bytes_feature(b"image/filename", row.key.encode()),
            _int64_feature(b"image/height", size_px),
            _int64_feature(b"image/width", size_px),
            _int64_feature(b"image/channels", 3),
            _bytes_feature(b"image/colorspace", b"RGB"),
            _bytes_feature(b"image/format", b"JPEG" if encoding == "jpeg" else b"raw"),
            _int64_feature(b"image/orig_width", row.width),
            _int64_feature(b"image/orig_height", row.height),
            _bytes_feature(b"image/orig_format", row.format.encode()),
            _bytes_feature(b"image/encoded", row.image),
        )
    )
    return _field(1, features)


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


def _parse_example(example: memoryview) -> dict[str, memoryview | int]:
    """Features by name; of each its first value."""
    values = {}
    ((_, features),) = _fields(example)
    for _, entry in _fields(features):
        (_, name), (_, feature) = _fields(entry)
        ((kind, content),) = _fields(feature)
        ((_, value),) = _fields(content)
        values[str(name, "utf-8")] = value if kind == 1 else _signed(_read_varint(value, 0)[0])
    return values


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    position = 0
    while position < len(message):
        tag, position = message[position], position + 1
        length, position = _read_varint(message, position)
        yield tag >> 3, message[position : position + length]
        position += length


def _read_varint(data: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value
