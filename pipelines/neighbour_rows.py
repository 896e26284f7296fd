"""Neighbours with names: of blocks of images, in files of features; their keys and labels beside their distances.

Letters: Q queries, N rows, K neighbours.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pipelines.features import FeatureFile, FeatureRows, Features, read_features
from pipelines.names import TRAIN, Device
from pipelines.neighbours import Nearest, nearest, places_of

if TYPE_CHECKING:
    import pyarrow as pa

NEIGHBOURS, SUMMARY, DUPLICATES = "neighbours.parquet", "neighbours.json", "duplicates.parquet"
PARTS = "parts"
BLOCK_ROWS: dict[Device, int] = {"cpu": 2048, "cuda": 65_536}  # each block reads all training images once


class Block(NamedTuple):
    """Images that are looked up at once: those of some files."""

    number: int
    total: int
    files: tuple[FeatureFile, ...]

    @property
    def rows(self) -> int:
        return sum(file.rows for file in self.files)

    @property
    def name(self) -> str:
        """The file that holds their neighbours."""
        return f"{PARTS}/features-{self.number:05d}-of-{self.total:05d}.parquet"


class Named(NamedTuple):
    """Queries with their neighbours, the nearest first."""

    ids_Q: np.ndarray
    keys: list[str]
    labels_Q: np.ndarray
    nearest: Nearest
    neighbour_keys: list[list[str]]
    neighbour_labels_QK: np.ndarray


def blocks(files: Sequence[FeatureFile], rows: int) -> list[Block]:
    """The files in their order, so many together that they hold at most so many rows; a large file alone."""
    groups: list[list[FeatureFile]] = []
    for file in files:
        if not groups or sum(each.rows for each in groups[-1]) + file.rows > rows:
            groups.append([])
        groups[-1].append(file)
    return [Block(number, len(groups), tuple(group)) for number, group in enumerate(groups)]


def neighbours_of_block(features: Features, block: Block, top: int, device: Device = "cpu") -> Named:
    """The neighbours of a block's images among all training images; an image is none of its own."""
    queries = joined(rows for file in block.files for rows in read_features(features.folder, file))
    is_train = block.files[0].split == TRAIN
    return neighbours_among(queries, features.rows(TRAIN), top, device, leave_out=is_train)


def neighbours_among(
    queries: FeatureRows, rows: Iterable[FeatureRows], top: int, device: Device = "cpu", leave_out: bool = False
) -> Named:
    """The neighbours among these rows; where queries are rows themselves (`leave_out`), none is its own."""
    names: list[FeatureRows] = []

    def noted() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for part in rows:
            names.append(part._replace(features_NU=part.features_NU[:0]))
            yield part.ids_N, part.features_NU

    found = nearest(queries.features_NU, noted(), top, device, queries.ids_N if leave_out else None)
    known = joined(names)
    places_QK = places_of(found.ids_QK, known.ids_N)
    keys = [[known.keys[place] for place in places] for places in places_QK.tolist()]
    return Named(queries.ids_N, queries.keys, queries.labels_N, found, keys, known.labels_N[places_QK])


def joined(parts: Iterable[FeatureRows]) -> FeatureRows:
    """All rows together. ValueError where there are none."""
    ids, keys, labels, features = zip(*parts, strict=True)
    return FeatureRows(
        np.concatenate(ids), [key for some in keys for key in some], np.concatenate(labels), np.concatenate(features)
    )


def as_table(found: Named) -> "pa.Table":
    """A row a query: id, key, label, and as lists neighbour_ids, neighbour_keys, neighbour_labels, distances."""
    import pyarrow as pa

    def lists(values_QK: np.ndarray) -> pa.ListArray:
        starts = np.arange(len(values_QK) + 1, dtype=np.int32) * values_QK.shape[1]
        return pa.ListArray.from_arrays(pa.array(starts), pa.array(values_QK.ravel()))

    return pa.table(
        {
            "id": found.ids_Q,
            "key": pa.array(found.keys, pa.string()),
            "label": found.labels_Q,
            "neighbour_ids": lists(found.nearest.ids_QK),
            "neighbour_keys": pa.array(found.neighbour_keys, pa.list_(pa.string())),
            "neighbour_labels": lists(found.neighbour_labels_QK),
            "distances": lists(found.nearest.distances_QK),
        }
    )
