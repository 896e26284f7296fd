"""Statistics of the stored training images, from exact integer sums.

Pixels are bytes, so every sum is an integer and does not depend on how the images were cut into shards or in which
order the parts were merged: the results are identical to the last bit. Only `compute` divides. Units: grey levels
0..255, channels in the order R, G, B.
"""

import io
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from pipelines.duplicates import digests
from pipelines.shard_record import ShardRecord
from pipelines.shards import read_shard
from pipelines.storage import Folder

STATS_JSON, STATS_NPZ = "stats.json", "stats.npz"
SIZE_BIN_PX, NUM_SIZE_BINS = 32, 64  # of the original widths and heights; the last bin is open
_STD_ONE = 1 << 24  # the std of an image is counted in 2**-24 grey levels, rounded down
_MAX_BLOCK_PIXELS = 1 << 16  # 255 * 255 * 2**16 < 2**32
_READABLE = (
    *("num_images", "num_pixels", "size_px", "channel_mean", "channel_std", "channel_std_of_images"),
    *("covariance", "eigenvalues", "eigenvectors", "class_counts", "width_histogram", "height_histogram"),
)
_ADDED = (
    *("pixel_sums_CHW", "cross_sums", "channel_histogram", "std_sums"),
    *("width_histogram", "height_histogram"),
)
_NOISE = 1e-12  # of the largest eigenvalue: less than that is rounding
_NO_COLOUR = 1e-6  # of a unit vector
_PAIRS = ((0, 1), (0, 2), (1, 2))  # of channels


@dataclass(frozen=True)
class Statistics:
    num_images: int
    num_pixels: int
    size_px: int
    channel_mean: np.ndarray  # [3]
    channel_std: np.ndarray  # [3] over all pixels of all images
    channel_std_of_images: np.ndarray  # [3] mean of the std of each image
    covariance: np.ndarray  # [3, 3] of the pixels' colours (divided by their number)
    eigenvalues: np.ndarray  # [3] of the covariance, the largest first, none below 0
    eigenvectors: np.ndarray  # [3, 3] its columns; red is positive (where there is none green, or else blue)
    mean_image_HWC: np.ndarray  # float64
    class_counts: np.ndarray  # int64 [K]
    channel_histogram: np.ndarray  # int64 [3, 256]
    width_histogram: np.ndarray  # int64 [NUM_SIZE_BINS] of the originals, in bins of SIZE_BIN_PX
    height_histogram: np.ndarray

    def save(self, folder: Folder) -> None:
        """stats.npz with everything, stats.json with what can be read at a glance."""
        arrays: dict[str, Any] = {field.name: np.asarray(getattr(self, field.name)) for field in fields(self)}
        with io.BytesIO() as buffer:
            np.savez_compressed(buffer, **arrays)
            folder.write(STATS_NPZ, buffer.getvalue())
        readable = {name: arrays[name].tolist() for name in _READABLE}
        lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in readable.items())
        folder.write(STATS_JSON, f"{{\n{lines}\n}}\n")

    @staticmethod
    def load(folder: Folder) -> "Statistics":
        if folder.size(STATS_NPZ) is None:
            raise ValueError(f"{folder.where()} holds no {STATS_NPZ}: stats has not finished there; run it (again)")
        with np.load(io.BytesIO(folder.read(STATS_NPZ))) as arrays:
            return Statistics(**{name: array if array.ndim else array.item() for name, array in arrays.items()})


@dataclass(frozen=True)
class PixelSums:
    """Sums over some images; merging is commutative and associative, up to the order of `images`."""

    size_px: int
    pixel_sums_CHW: np.ndarray  # int64, over images
    cross_sums: np.ndarray  # int64 [3], over all pixels: R * G, R * B, G * B
    channel_histogram: np.ndarray  # int64 [3, 256]
    std_sums: np.ndarray  # int64 [3], of the std of each image, in 1 / _STD_ONE
    class_counts: np.ndarray  # int64 [largest label + 1]
    width_histogram: np.ndarray
    height_histogram: np.ndarray
    images: np.ndarray  # uint64 [N, 3]: their digests

    @staticmethod
    def empty(size_px: int) -> "PixelSums":
        def zeros(*shape: int) -> np.ndarray:
            return np.zeros(shape, np.int64)

        return PixelSums(
            size_px=size_px,
            pixel_sums_CHW=zeros(3, size_px, size_px),
            cross_sums=zeros(3),
            channel_histogram=zeros(3, 256),
            std_sums=zeros(3),
            class_counts=zeros(0),
            width_histogram=zeros(NUM_SIZE_BINS),
            height_histogram=zeros(NUM_SIZE_BINS),
            images=np.zeros((0, 3), np.uint64),
        )

    @staticmethod
    def merged(size_px: int, parts: Iterable["PixelSums"]) -> "PixelSums":
        """The sums over all images of the parts, each added as it comes and let go."""
        total, images = PixelSums.empty(size_px), [np.zeros((0, 3), np.uint64)]
        class_counts = total.class_counts
        for part in parts:
            assert part.size_px == size_px
            for name in _ADDED:
                sums = getattr(total, name)
                np.add(sums, getattr(part, name), out=sums)
            num_classes = max(len(class_counts), len(part.class_counts))
            class_counts = _padded(class_counts, num_classes) + _padded(part.class_counts, num_classes)
            images.append(part.images.copy())  # of a task's result, which would stay in memory whole
        return replace(total, class_counts=class_counts, images=np.concatenate(images))

    def compute(self, num_classes: int) -> Statistics:
        """The statistics of all images added; the only step that divides."""
        num_images = len(self.images)
        if num_images == 0:
            raise ValueError("statistics need at least one image, and no training image is stored")
        num_pixels = num_images * self.size_px**2
        levels = np.arange(256)
        sums = self.channel_histogram @ levels
        squares = self.channel_histogram @ levels**2
        covariance = _covariance(num_pixels, sums.tolist(), squares.tolist(), self.cross_sums.tolist())
        eigenvalues, eigenvectors = _eigen(covariance)
        return Statistics(
            num_images=num_images,
            num_pixels=num_pixels,
            size_px=self.size_px,
            channel_mean=sums / num_pixels,
            channel_std=np.sqrt(np.diag(covariance)),
            channel_std_of_images=self.std_sums / (num_images * _STD_ONE),
            covariance=covariance,
            eigenvalues=eigenvalues,
            eigenvectors=eigenvectors,
            mean_image_HWC=np.ascontiguousarray((self.pixel_sums_CHW / num_images).transpose(1, 2, 0)),
            class_counts=_padded(self.class_counts, num_classes),
            channel_histogram=self.channel_histogram,
            width_histogram=self.width_histogram,
            height_histogram=self.height_histogram,
        )


def sum_shards(folder: Folder, records: Iterable[ShardRecord], size_px: int) -> PixelSums:
    """The sums of some shards, one after the other."""
    return PixelSums.merged(size_px, (sum_shard(folder, record, size_px) for record in records))


def sum_shard(folder: Folder, record: ShardRecord, size_px: int) -> PixelSums:
    """The sums of one shard of any kind."""
    rows = read_shard(folder, record)
    sums = _ImageSums(size_px)
    for number, image in enumerate(rows.images):
        try:
            sums.add(image)
        except ValueError as error:
            raise ValueError(f"{folder.where(record.name)}: row {number}: {error}") from error
    return PixelSums(
        size_px=size_px,
        class_counts=np.bincount(rows.labels[rows.labels >= 0]).astype(np.int64),
        width_histogram=_size_histogram(rows.widths),
        height_histogram=_size_histogram(rows.heights),
        images=digests(rows),
        **sums.totals(),
    )


class _ImageSums:
    """Adds up the pixels of images, one at a time and in the cache.

    An image is decoded to 4 bytes per pixel (R, G, B, X), so that one uint32 is one pixel: shifts separate the
    channels without a strided read, and products of two channels and their sums fit. Pillow counts the levels, in
    the same memory.
    """

    def __init__(self, size_px: int):
        import pyarrow as pa
        from PIL import Image

        self._size = size_px
        self._pixels_HWX = np.zeros((size_px, size_px, 4), np.uint8)
        pixels = pa.FixedSizeListArray.from_arrays(pa.array(self._pixels_HWX.reshape(-1)), 4)
        self._image = Image.fromarrow(pixels, "RGB", (size_px, size_px))
        self._channels = np.empty((3, size_px**2), np.uint32)
        self._channel_sums = np.zeros((3, size_px**2), np.uint32)  # enough for 16 million images
        self._histogram = np.zeros((3, 256), np.int64)
        self._cross_sums = [0, 0, 0]
        self._std_sums = [0, 0, 0]

    def add(self, image: np.ndarray) -> None:
        """A JPEG's bytes [n] or pixels [size, size, 3]."""
        import simplejpeg

        if image.ndim == 3:
            for channel in range(3):  # five times as fast as all at once
                self._pixels_HWX[..., channel] = image[..., channel]
        else:
            pixels = simplejpeg.decode_jpeg(image, colorspace="RGBX", buffer=self._pixels_HWX)
            if pixels.shape != self._pixels_HWX.shape:
                raise ValueError(f"{pixels.shape[1]} x {pixels.shape[0]} px instead of {self._size} x {self._size}")
        self._add_histogram()
        self._add_channels()

    def totals(self) -> dict[str, np.ndarray]:
        """As PixelSums names them."""
        return {
            "pixel_sums_CHW": self._channel_sums.astype(np.int64).reshape(3, self._size, self._size),
            "cross_sums": np.array(self._cross_sums, np.int64),
            "channel_histogram": self._histogram,
            "std_sums": np.array(self._std_sums, np.int64),
        }

    def _add_histogram(self) -> None:
        histogram = np.fromiter(self._image.histogram(), np.int64, 768).reshape(3, 256)
        self._histogram += histogram
        num_pixels = self._size**2
        for channel, (total, squares) in enumerate((histogram @ _LEVEL_POWERS).tolist()):
            variance = squares * num_pixels - total**2  # times num_pixels ** 2
            self._std_sums[channel] += math.isqrt(variance * _STD_ONE**2 // num_pixels**2)

    def _add_channels(self) -> None:
        packed = self._pixels_HWX.reshape(-1).view("<u4")
        channels = self._channels
        np.bitwise_and(packed, 0xFF, out=channels[0])
        np.right_shift(packed, 8, out=channels[1])
        np.right_shift(packed, 16, out=channels[2])
        channels[1:] &= 0xFF
        self._channel_sums += channels
        for start in range(0, len(packed), _MAX_BLOCK_PIXELS):
            block = channels[:, start : start + _MAX_BLOCK_PIXELS]
            for pair, (a, b) in enumerate(_PAIRS):
                self._cross_sums[pair] += int(np.einsum("i,i", block[a], block[b]))


_LEVEL_POWERS = np.stack([np.arange(256), np.arange(256) ** 2], axis=1)


def _padded(counts: np.ndarray, length: int) -> np.ndarray:
    return np.pad(counts, (0, length - len(counts)))


def _size_histogram(sides_px: np.ndarray) -> np.ndarray:
    bins = np.minimum(sides_px // SIZE_BIN_PX, NUM_SIZE_BINS - 1)
    return np.bincount(bins, minlength=NUM_SIZE_BINS).astype(np.int64)


def _covariance(num_pixels: int, sums: list[int], squares: list[int], cross_sums: list[int]) -> np.ndarray:
    """E[xy] - E[x]E[y], subtracted as integers."""
    products = {(c, c): squares[c] for c in range(3)} | dict(zip(_PAIRS, cross_sums, strict=True))
    covariance = np.empty((3, 3))
    for (a, b), product in products.items():
        covariance[a, b] = covariance[b, a] = (num_pixels * product - sums[a] * sums[b]) / num_pixels**2
    return covariance


def _eigen(covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues and eigenvectors, with nothing left to rounding: no noise around 0, and signs that stay.

    The largest component would be no guide to the sign: from warm to cold, red and blue are about as large.
    """
    eigenvalues, eigenvectors = np.linalg.eigh(covariance)
    eigenvalues, eigenvectors = eigenvalues[::-1].copy(), eigenvectors[:, ::-1].copy()
    eigenvalues[eigenvalues < _NOISE * eigenvalues[0]] = 0  # of gray images two, which come out as +-1e-12
    leading = (np.abs(eigenvectors) > _NO_COLOUR).argmax(axis=0)
    return eigenvalues, eigenvectors * np.sign(eigenvectors[leading, range(3)])
