"""What a source's files are, beside their listing: contents of a few, and since when they are as they are.

A listing has names and sizes; contents that were swapped among equal sizes show in a sample of the images, which is
part of the source's fingerprint. Files that are replaced while they are read show in their times.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import pyarrow as pa

from pipelines.sources.source import BlockReader, Source, fingerprint_of

SAMPLED_ROWS = 64  # of each split
PLACES_IN_BLOCKS = 8  # where a block is read for each place: neighbours are looked at together

Identity = tuple[str | int, ...]  # place, size, time of change, and more where it is known (`Folder.identity`)


@runtime_checkable
class FilesReader(Protocol):
    """A reader that knows which files it reads."""

    def files(self, rows: pa.Table) -> Iterator[tuple[str, Iterable[Identity]]]:
        """Their identities as they are now, by archive or folder."""


@dataclass(frozen=True)
class Files:
    """The files of a source as they are at one time."""

    digests: dict[str, str]  # of all identities, by split and archive or folder
    newest_ns: int  # when the last of them was changed, as far as it is known

    def changed(self, now: "Files") -> list[str]:
        """The archives or folders that are not as they were."""
        return [place for place, digest in self.digests.items() if now.digests.get(place) != digest]


def files_now(source: Source) -> Files:
    digests, newest, reader = dict[str, str](), _Newest(), source.reader
    if isinstance(reader, FilesReader):
        for split, rows in source.splits.items():
            for place, identities in reader.files(rows):
                digests[f"{split} in {place}"] = fingerprint_of(newest.of(identities))
    return Files(digests, newest.ns)


def sample(source: Source) -> str:
    """Digest of a few images of each split, spread evenly over its listing."""
    parts: list[str | bytes] = []
    for split, rows in source.splits.items():
        chosen = rows.take(pa.array(_spread(len(rows), _places(source, rows))))
        parts += [split]
        for key, content in zip(chosen["key"].to_pylist(), source.reader.read(chosen), strict=True):
            parts += [key, content]
    return fingerprint_of(parts)


def _places(source: Source, rows: pa.Table) -> int:
    reader = source.reader
    in_blocks = isinstance(reader, BlockReader) and reader.blocks(rows.slice(0, 1)) is not None
    return PLACES_IN_BLOCKS if in_blocks else SAMPLED_ROWS


def _spread(num_rows: int, num_places: int) -> np.ndarray:
    """SAMPLED_ROWS of all rows (or all), an equal number at each place."""
    starts = np.arange(num_places) * num_rows // num_places
    rows = starts[:, None] + np.arange(SAMPLED_ROWS // num_places)
    return np.unique(rows[rows < num_rows])


class _Newest:
    """Hands identities on, and keeps the time of the last change."""

    ns = 0

    def of(self, identities: Iterable[Identity]) -> Iterator[str]:
        for identity in identities:
            self.ns = max(self.ns, int(identity[2]))
            yield str(identity)
