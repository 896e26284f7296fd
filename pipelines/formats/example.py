"""tf.train.Example without TensorFlow: written around an image that is not copied, and read a column at a time.

Protocol buffers, as far as an Example needs them: a message is a sequence of (tag, content); the tags here announce
either a varint (wire type 0) or a length and as many bytes (wire type 2). An Example holds Features, these a map of
entries (name, Feature), and each Feature a list of one value: of bytes or of int64.

Letters: N Examples.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from pipelines.formats.rows import DamagedRow, Row

_IS_BYTES = 1 << 3 | 2  # tag of a Feature's list of bytes


class Heads:
    """What comes before the image in each Example of a shard: the image is last, so that the rest lies together."""

    def __init__(self, encoding: str, size_px: int):
        self._same = b"".join(
            (
                _number(b"image/height", size_px),
                _number(b"image/width", size_px),
                _number(b"image/channels", 3),
                _bytes(b"image/colorspace", b"RGB"),
                _bytes(b"image/format", b"JPEG" if encoding == "jpeg" else b"raw"),
            )
        )

    def of(self, row: Row) -> bytes:
        """All of the row's Example but the bytes of its image."""
        small = (
            self._same
            + _number(b"image/id", row.id)
            + _often(b"image/class/label", row.label)
            + _bytes(b"image/filename", row.key.encode())
            + _often(b"image/orig_width", row.width)
            + _often(b"image/orig_height", row.height)
            + _bytes(b"image/orig_format", row.format.encode())
        )
        image = len(row.image)
        value = _head(1, image)
        bytes_list = _head(1, len(value) + image) + value
        entry = _field(1, b"image/encoded") + _head(2, len(bytes_list) + image) + bytes_list
        entry = _head(1, len(entry) + image) + entry
        return _head(1, len(small) + len(entry) + image) + small + entry


def _bytes(name: bytes, value: bytes) -> bytes:
    return _field(1, _field(1, name) + _field(2, _field(1, _field(1, value))))


def _number(name: bytes, value: int) -> bytes:
    packed = _field(1, _varint(value & 0xFFFFFFFFFFFFFFFF))
    return _field(1, _field(1, name) + _field(2, _field(3, packed)))


_often = lru_cache(maxsize=1 << 14)(_number)  # of values that come again, such as labels


def _field(number: int, content: bytes) -> bytes:
    return _head(number, len(content)) + content


def _head(number: int, length: int) -> bytes:
    """The tag of a field with so many bytes, and their number."""
    return bytes((number << 3 | 2, length)) if length < 0x80 else bytes((number << 3 | 2,)) + _varint(length)


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


class Column(NamedTuple):
    """A feature of N Examples: where its values lie, and the numbers if it is one."""

    starts: np.ndarray  # int64 [N]
    stops: np.ndarray
    numbers: np.ndarray  # int64 [N]; of bytes their lengths

    def places(self) -> Iterator[tuple[int, int]]:
        return zip(self.starts.tolist(), self.stops.tolist(), strict=True)

    def values(self, data: memoryview) -> Iterator[bytes]:
        return (bytes(data[start:stop]) for start, stop in self.places())


def columns(content: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> Mapping[str, Column]:
    """The features, by name, of the Examples at these places; all have the same ones in the same order.

    Raises:
        DamagedRow: One has not.
    """
    return dict(_columns(content, starts, stops)) if len(starts) else defaultdict(lambda: Column(starts, stops, starts))


def _columns(content: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> Iterator[tuple[str, Column]]:
    _, at = _varints(content, starts + 1)  # length of Features
    while (at < stops).any():
        length, at = _varints(content, at + 1)
        ends = at + length
        name = content[at[0] + 2 : at[0] + 2 + content[at[0] + 1]]
        found = content[(at[:, None] + 1 + np.arange(len(name) + 1)).clip(max=len(content) - 1)]
        _require(found == [len(name), *name], "has other features than the first row")
        _, at = _varints(content, at + len(name) + 3)  # length of Feature
        is_bytes = content[at] == _IS_BYTES
        _require(is_bytes[:, None] == is_bytes[0], "has a feature of another kind than the first row")
        _, at = _varints(content, at + 1)  # length of the list
        _, at = _varints(content, at + 1)  # length of the value
        yield bytes(name).decode(), Column(at, ends, ends - at if is_bytes[0] else _varints(content, at)[0])
        at = ends
    _require((at == stops)[:, None], "has other features than the first row")


def _varints(content: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The values from these places on, and the places behind them."""
    values, shift = np.zeros(len(at), np.int64), 0
    goes_on = np.ones(len(at), bool)
    while goes_on.any() and shift < 70:
        byte = content[at.clip(max=len(content) - 1)]
        values |= np.where(goes_on, (byte & 0x7F).astype(np.int64) << shift, 0)
        at = at + goes_on
        goes_on &= byte >= 0x80
        shift += 7
    return values, at


def _require(is_right: np.ndarray, what: str) -> None:
    """DamagedRow for the first row [N, ...] that is not right."""
    if not is_right.all():
        raise DamagedRow(f"row {int((~is_right.all(axis=1)).argmax())} {what}")
