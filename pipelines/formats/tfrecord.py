"""A shard as a TFRecord file of tf.train.Example, written and read without TensorFlow, and DALI's index of it.

Features, by the names usual for ImageNet: image/encoded, image/format ("JPEG" or "raw": bytes of [height, width, 3]
RGB pixels), image/height, image/width (of what is stored, px), image/colorspace ("RGB"), image/channels (3),
image/class/label (from 0), image/filename (the key); and of our own image/id, image/orig_height, image/orig_width,
image/orig_format. The index, `<shard>.idx`, has a line "offset size" for each record.

Framing: length (uint64), CRC of the length, the Example, CRC of the Example; each CRC is a masked CRC-32C (uint32).
"""

import struct
from collections.abc import Iterable
from itertools import accumulate
from typing import BinaryIO, TypeVar

import google_crc32c
import numpy as np

from pipelines.formats.example import Columns, Heads
from pipelines.formats.rows import DamagedRow, Row, ShardRows, Shared

INDEX_SUFFIX = ".idx"
Crc = TypeVar("Crc", int, np.ndarray)
_LENGTH, _CRC = struct.Struct("<Q"), struct.Struct("<I")
_HEAD = np.dtype([("length", "<u8"), ("crc", "<u4")])
_FRAME_BYTES = _HEAD.itemsize + _CRC.size
_CRC_TABLE = np.arange(256, dtype=np.uint32)
for _ in range(8):  # of each byte's remainder, by the reversed polynomial of CRC-32C
    _CRC_TABLE = np.where(_CRC_TABLE & 1, _CRC_TABLE >> 1 ^ 0x82F63B78, _CRC_TABLE >> 1).astype(np.uint32)
_OF_ORIGINALS = {
    "key": "image/filename",
    "format": "image/orig_format",
    "width": "image/orig_width",
    "height": "image/orig_height",
}


def write(file: BinaryIO, rows: Iterable[Row], shared: Shared) -> str:
    """Write the records; returns the text of the index."""
    sizes, heads = [], Heads(shared.encoding, shared.size_px)
    for row in rows:
        head = heads.of(row)
        size = len(head) + len(row.image)
        length = _LENGTH.pack(size)
        file.write(length + _CRC.pack(_masked(google_crc32c.value(length))) + head)
        file.write(row.image)
        file.write(_CRC.pack(_masked(google_crc32c.extend(google_crc32c.value(head), row.image))))
        sizes.append(size)
    return _index_text(sizes)


def index(data: memoryview) -> str:
    """The text of the index of a whole file."""
    starts, stops = _whole(data)
    return _index_text((stops - starts).tolist())


def _index_text(examples_bytes: Iterable[int]) -> str:
    sizes = [size + _FRAME_BYTES for size in examples_bytes]
    return "".join(f"{end - size} {size}\n" for end, size in zip(accumulate(sizes), sizes, strict=True))


def read(data: memoryview) -> ShardRows:
    """The rows of a whole file; the Examples' checksums are not looked at (see `first_damage`).

    Raises:
        DamagedRow: A row has not the features of the others, or the file is cut off.
    """
    content = np.frombuffer(data, np.uint8)
    found = Columns(content, *_whole(data))
    images = [content[start:stop] for start, stop in found["image/encoded"].places()]
    if next(found["image/format"].values(data), None) == b"raw":
        shape = (int(found["image/height"].numbers[0]), int(found["image/width"].numbers[0]), 3)
        images = [image.reshape(shape) for image in images]
    return ShardRows(
        ids=found["image/id"].numbers,
        labels=found["image/class/label"].numbers.astype(np.int32),
        images=images,
        texts=lambda name: [text.decode() for text in found[_OF_ORIGINALS[name]].values(data)],
        sizes=lambda name: found[_OF_ORIGINALS[name]].numbers.astype(np.int32),
    )


def first_damage(data: memoryview) -> str | None:
    """Which row is the first that is not as it was written; None where all checksums are right."""
    starts, stops, damage = _places(data)
    for row, (start, stop) in enumerate(zip(starts.tolist(), stops.tolist(), strict=True)):
        if _masked_crc(data[start:stop]) != _CRC.unpack_from(data, stop)[0]:
            return f"row {row} fails its checksum"
    return damage


def _masked_crc(data) -> int:
    return _masked(google_crc32c.value(bytes(data)))


def _masked(crc: Crc) -> Crc:
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _whole(data: memoryview) -> tuple[np.ndarray, np.ndarray]:
    """Where each Example starts and stops. DamagedRow: the frame of one is damaged."""
    starts, stops, damage = _places(data)
    if damage:
        raise DamagedRow(damage)
    return starts, stops


def _places(data: memoryview) -> tuple[np.ndarray, np.ndarray, str | None]:
    """Where each Example starts and stops, int64, up to the first row whose frame is damaged; and how it is."""
    frames, offset, size = [], 0, len(data)
    while offset + _HEAD.itemsize <= size:
        frames.append(offset)
        offset += _LENGTH.unpack_from(data, offset)[0] + _FRAME_BYTES
    whole = len(frames) - (offset > size)
    damage = None if offset == size else f"row {whole} is cut off"
    frames_N = np.array(frames, np.int64)
    heads_N = np.frombuffer(data, np.uint8)[frames_N[:, None] + np.arange(_HEAD.itemsize)].view(_HEAD)[:, 0]
    wrong_N = _masked(_crc_of_words(heads_N["length"])) != heads_N["crc"]
    if wrong_N.any():
        whole = int(wrong_N.argmax())
        damage = f"row {whole} fails the checksum of its length"
    starts_N = frames_N[:whole] + _HEAD.itemsize
    return starts_N, starts_N + heads_N["length"][:whole].astype(np.int64), damage


def _crc_of_words(words_N: np.ndarray) -> np.ndarray:
    """CRC-32C of each of these numbers as eight bytes, lowest first; as google_crc32c, of all at once."""
    crc_N = np.full(len(words_N), 0xFFFFFFFF, np.uint32)
    for byte_N in words_N.astype("<u8").view(np.uint8).reshape(-1, 8).T:
        crc_N = _CRC_TABLE[(crc_N ^ byte_N) & 0xFF] ^ crc_N >> 8
    return ~crc_N
