"""Images as rows of pixels, beside which features are judged: the crops that the network sees, reduced where large.

Letters: B images of a batch, Q queries, N images, U values, K neighbours, M others that a query is compared with.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pipelines.evaluation import CentreCrops
from pipelines.manifest import Manifest
from pipelines.neighbours import Nearest, nearest, places_of
from pipelines.shard_record import ShardRecord
from pipelines.shards import read_shard
from pipelines.storage import Folder

if TYPE_CHECKING:
    from torch import Tensor

SIDE_PX = 32  # at most: of larger crops the means of areas


class PixelRows(NamedTuple):
    """Some images of a split."""

    ids_N: np.ndarray  # int64
    labels_N: np.ndarray  # int64
    pixels_NU: np.ndarray  # float32, 0 to 255


class Compared(NamedTuple):
    """Images among some others: their nearest, with the labels, and how far those are that were asked for."""

    nearest: Nearest
    labels_QK: np.ndarray
    distances_QM: np.ndarray  # float32; 0 for those that are not among the others


def pixel_rows(
    shards: Folder, manifest: Manifest, records: Iterable[ShardRecord], crop_px: int, threads: int = 1
) -> Iterator[PixelRows]:
    """The images of these shards, a shard at a time."""
    crops = CentreCrops(manifest.encoding, manifest.size_px, crop_px, batch_size=128, threads=threads)
    for record in records:
        rows = read_shard(shards, record)
        found = [reduced(batch.crops_BCHW) for batch in crops.of_shard(shards, record, rows)]
        yield PixelRows(rows.ids, rows.labels.astype(np.int64), np.concatenate(found))


def joined(parts: Iterable[PixelRows]) -> PixelRows:
    """All rows together. ValueError where there are none."""
    return PixelRows(*map(np.concatenate, zip(*parts, strict=True)))


def compared(
    queries: PixelRows, rows: Iterable[PixelRows], top: int, others_QM: np.ndarray, leave_out: bool
) -> Compared:
    """The nearest of these rows by their pixels, and the distances of the rows with the ids `others_QM`.

    Where queries are rows themselves (`leave_out`), none is its own neighbour.
    """
    labels: dict[int, int] = {}
    distances_QM = np.zeros(others_QM.shape, np.float32)

    def noted() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for part in rows:
            labels.update(zip(part.ids_N.tolist(), part.labels_N.tolist(), strict=True))
            is_here_QM = np.isin(others_QM, part.ids_N)
            rows_P = places_of(others_QM[is_here_QM], part.ids_N)
            for (query, other), row in zip(np.argwhere(is_here_QM).tolist(), rows_P.tolist(), strict=True):
                distances_QM[query, other] = np.linalg.norm(queries.pixels_NU[query] - part.pixels_NU[row])
            yield part.ids_N, part.pixels_NU

    found = nearest(queries.pixels_NU, noted(), top, leave_out_Q=queries.ids_N if leave_out else None)
    return Compared(found, np.vectorize(labels.__getitem__, otypes=[np.int64])(found.ids_QK), distances_QM)


def merged(parts: Sequence[Compared], top: int) -> Compared:
    """The same among the rows of all parts."""
    ids, distances, labels = (
        np.concatenate(column, axis=1)
        for column in zip(*((*part.nearest, part.labels_QK) for part in parts), strict=True)
    )
    order = np.lexsort((ids, distances), axis=1)[:, :top]
    ids, distances, labels = (np.take_along_axis(values, order, axis=1) for values in (ids, distances, labels))
    return Compared(Nearest(ids, distances), labels, np.sum([part.distances_QM for part in parts], axis=0))


def side_px(crop_px: int) -> int:
    """The side of what is compared."""
    return min(crop_px, SIDE_PX)


def reduced(images_BCHW: "Tensor") -> np.ndarray:
    """float32 [B, U]: crops as they are compared."""
    from torch.nn.functional import interpolate

    side = side_px(images_BCHW.shape[-1])
    return interpolate(images_BCHW.float(), (side, side), mode="area").flatten(1).numpy()
