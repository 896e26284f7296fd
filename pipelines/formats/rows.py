"""What one shard file holds, whatever its format: a row to store, what all rows share, and the rows read back."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np


class Row(NamedTuple):
    id: int  # position in the split's shuffled listing
    key: str
    label: int  # from 0; -1 unknown
    image: bytes  # a JPEG, or the pixels [H, W, 3] uint8 RGB
    width: int  # of the original, px
    height: int
    format: str  # of the original: "jpeg", "png" ..


@dataclass(frozen=True)
class Shared:
    """What all rows of a shard have in common."""

    split: str
    encoding: str  # "jpeg" or "raw"
    size_px: int
    class_names: tuple[str, ...]


@dataclass(frozen=True)
class ShardRows:
    """The rows of a shard as columns: images are views of the file's bytes, the rest is read when it is asked for."""

    ids: np.ndarray  # int64 [N]
    labels: np.ndarray  # int32 [N]
    images: list[np.ndarray]  # uint8: a JPEG's bytes [n], or pixels [H, W, 3]
    texts: Callable[[str], list[str]]  # "key" and "format" of the originals
    sizes: Callable[[str], np.ndarray]  # "width" and "height" of the originals, px: int32 [N]

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def keys(self) -> list[str]:
        return self.texts("key")

    @cached_property
    def widths(self) -> np.ndarray:
        return self.sizes("width")

    @cached_property
    def heights(self) -> np.ndarray:
        return self.sizes("height")

    @cached_property
    def formats(self) -> list[str]:
        return self.texts("format")


class DamagedRow(ValueError):
    """A shard file that does not hold what was written; the text names the row."""
