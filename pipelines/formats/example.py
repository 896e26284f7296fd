"""tf.train.Example without TensorFlow: written around an image that is not copied, and read a column at a time.

Protocol buffers, as far as an Example needs them: a message is a sequence of (tag, content); the tags here announce
either a varint (wire type 0) or a length and as many bytes (wire type 2). An Example holds Features, these a map of
entries (name, Feature), and each Feature a list of one value: of bytes or of int64.

Letters: N Examples.
"""

from collections.abc import Iterator
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


class Columns:
    """The features of the Examples at these places, which all have the same ones in the same order.

    Raises:
        DamagedRow: One has not; of a feature's kind this is known when it is asked for.
    """

    def __init__(self, content: np.ndarray, starts: np.ndarray, stops: np.ndarray):
        self._content = content
        self._none = None if len(starts) else Column(starts, stops, starts)
        self._features = {} if self._none else dict(_features(content, starts, stops))

    def __getitem__(self, name: str) -> Column:
        """A feature by its name; of no Examples each has no values."""
        if self._none:
            return self._none
        at, ends = self._features[name]
        is_bytes = self._content[at] == _IS_BYTES
        _require(is_bytes[:, None] == is_bytes[0], "has a feature of another kind than the first row")
        _, at = _varints(self._content, at + 1)  # length of the list
        _, at = _varints(self._content, at + 1)  # length of the value
        return Column(at, ends, ends - at if is_bytes[0] else _varints(self._content, at)[0])


def _features(
    content: np.ndarray, starts: np.ndarray, stops: np.ndarray
) -> Iterator[tuple[str, tuple[np.ndarray, np.ndarray]]]:
    """The name of each feature, and where its lists start and stop."""
    _, at = _varints(content, starts + 1)  # length of Features
    while (at < stops).any():
        length, at = _varints(content, at + 1)
        ends = at + length
        name = content[at[0] + 1 : at[0] + 2 + content[at[0] + 1]]  # behind its length
        _require(_windows(content, at + 1, len(name)) == name, "has other features than the first row")
        _, lists = _varints(content, at + len(name) + 2)  # length of Feature
        yield bytes(name[1:]).decode(), (lists, ends)
        at = ends
    _require((at == stops)[:, None], "has other features than the first row")


def _windows(content: np.ndarray, at: np.ndarray, size: int) -> np.ndarray:
    """[N, size]: so many bytes from each of these places on."""
    windows = np.ndarray((len(content) - size + 1, size), np.uint8, content, strides=(1, 1))
    return windows[at.clip(max=len(windows) - 1)]


def _varints(content: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The values from these places on, and the places behind them."""
    byte = content.take(at, mode="clip")
    values, at, shift = (byte & 0x7F).astype(np.int64), at + 1, 7
    while shift < 70 and (goes_on := byte >= 0x80).any():
        byte = np.where(goes_on, content.take(at, mode="clip"), 0)
        values |= (byte & 0x7F).astype(np.int64) << shift
        at = at + goes_on
        shift += 7
    return values, at


def _require(is_right: np.ndarray, what: str) -> None:
    """DamagedRow for the first row [N, ...] that is not right."""
    if not is_right.all():
        raise DamagedRow(f"row {int((~is_right.all(axis=1)).argmax())} {what}")
