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
from typing import BinaryIO

import google_crc32c
import numpy as np

from pipelines.formats.example import Heads, columns
from pipelines.formats.rows import DamagedRow, Row, ShardRows, Shared

INDEX_SUFFIX = ".idx"
_LENGTH = struct.Struct("<QI")
_CRC = struct.Struct("<I")
_FRAME_BYTES = _LENGTH.size + _CRC.size


def write(file: BinaryIO, rows: Iterable[Row], shared: Shared) -> str:
    """Write the records; returns the text of the index."""
    sizes, heads = [], Heads(shared.encoding, shared.size_px)
    for row in rows:
        head = heads.of(row)
        size = len(head) + len(row.image)
        length = struct.pack("<Q", size)
        file.write(length + _CRC.pack(_masked(google_crc32c.value(length))) + head)
        file.write(row.image)
        file.write(_CRC.pack(_masked(google_crc32c.extend(google_crc32c.value(head), row.image))))
        sizes.append(size)
    return _index_text(sizes)


def index(data: memoryview) -> str:
    """The text of the index of a whole file."""
    return _index_text(example.stop - example.start for _, example in _frames(data))


def _index_text(examples_bytes: Iterable[int]) -> str:
    sizes = [size + _FRAME_BYTES for size in examples_bytes]
    return "".join(f"{end - size} {size}\n" for end, size in zip(accumulate(sizes), sizes, strict=True))


def read(data: memoryview) -> ShardRows:
    """The rows of a whole file; the checksums are not looked at (see `first_damage`)."""
    content = np.frombuffer(data, np.uint8)
    places = np.array([(example.start, example.stop) for _, example in _frames(data)], np.int64).reshape(-1, 2)
    found = columns(content, *places.T)
    images = [content[start:stop] for start, stop in found["image/encoded"].places()]
    if b"raw" in set(found["image/format"].values(data)):
        shape = (int(found["image/height"].numbers[0]), int(found["image/width"].numbers[0]), 3)
        images = [image.reshape(shape) for image in images]
    return ShardRows(
        ids=found["image/id"].numbers,
        labels=found["image/class/label"].numbers.astype(np.int32),
        images=images,
        keys=[key.decode() for key in found["image/filename"].values(data)],
        widths=found["image/orig_width"].numbers.astype(np.int32),
        heights=found["image/orig_height"].numbers.astype(np.int32),
        formats=[format.decode() for format in found["image/orig_format"].values(data)],
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
    return _masked(google_crc32c.value(bytes(data)))


def _masked(crc: int) -> int:
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
