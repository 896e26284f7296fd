"""The nearest rows by Euclidean distance: exact, and the same however rows and queries are cut into blocks.

A product of matrices in float32 gives a lower bound of every distance, its rounding included. Only pairs whose bound is
that of a possible neighbour are subtracted, and their squares summed in float64; equal distances go by id.

Letters: Q queries, N rows, U units, K neighbours, P pairs.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pipelines.names import Device

if TYPE_CHECKING:
    from torch import Tensor

AT = (1, 6, 50)  # neighbours of which the share of the right class is told
_ROUNDING = 2.0**-24  # of a float32, relative
_PRODUCTS: dict[Device, int] = {"cpu": 1 << 23, "cuda": 1 << 27}  # pairs that are bounded at once
_DIFFERENCES = 1 << 18  # that are squared at once: they stay in a core's cache


class Nearest(NamedTuple):
    """The neighbours of each query, the nearest first; K is as many as were asked for, or as there are."""

    ids_QK: np.ndarray  # int64
    distances_QK: np.ndarray  # float32


class Share(NamedTuple):
    """A mean over queries, as a fraction, with its standard error over them; None of one query."""

    share: float
    standard_error: float | None


def nearest(
    queries_QU: np.ndarray,
    rows: Iterable[tuple[np.ndarray, np.ndarray]],
    top: int,
    device: Device = "cpu",
    leave_out_Q: np.ndarray | None = None,
) -> Nearest:
    """The `top` nearest rows to each query.

    Args:
        queries_QU: float16 or float32, finite.
        rows: ids [N] and values [N, U] of some rows after the other, in any order; an id comes once.
        leave_out_Q: For each query the id that is no neighbour of its: its own, where queries are among the rows.
    """
    search = _Search(queries_QU, top, device, leave_out_Q)
    for ids_N, values_NU in rows:
        step = max(1, _PRODUCTS[device] // max(1, len(queries_QU)))
        for start in range(0, len(ids_N), step):
            search.look(ids_N[start : start + step], values_NU[start : start + step])
    found_K = np.isfinite(search.distances_QK).all(axis=0)
    return Nearest(search.ids_QK[:, found_K], search.distances_QK[:, found_K])


class _Search:
    """The nearest among the rows seen so far; -1 at an infinite distance where there are fewer."""

    def __init__(self, queries_QU: np.ndarray, top: int, device: Device, leave_out_Q: np.ndarray | None):
        import torch

        if device == "cuda":  # a network in the same process may have set it
            torch.backends.cuda.matmul.allow_tf32 = False
        self._torch, self._device, self._leave_out_Q = torch, device, leave_out_Q
        self._queries_QU = self._tensor(queries_QU)
        self._squares_Q = _squares(self._queries_QU)
        self._tolerance = (queries_QU.shape[1] + 16) * _ROUNDING  # of a product's sum, and of what is done with it
        self.ids_QK = np.full((len(queries_QU), top), -1)
        self.distances_QK = np.full((len(queries_QU), top), np.inf, np.float32)

    def look(self, ids_N: np.ndarray, values_NU: np.ndarray) -> None:
        """At some more rows."""
        values = self._tensor(values_NU)
        pairs = self._candidates(values)
        distances_P = self._distances(values, *pairs)
        query_P, row_P = (place_P.cpu().numpy() for place_P in pairs)
        ids_P = ids_N[row_P]
        if self._leave_out_Q is not None:
            others_P = ids_P != self._leave_out_Q[query_P]
            query_P, ids_P, distances_P = query_P[others_P], ids_P[others_P], distances_P[others_P]
        self._merge(query_P, ids_P, distances_P)

    def _tensor(self, values: np.ndarray) -> "Tensor":
        return self._torch.from_numpy(np.array(values)).to(self._device).float()

    def _candidates(self, values_NU: "Tensor") -> "tuple[Tensor, Tensor]":
        """The pairs that may be among the nearest: the places of their queries and of their rows."""
        torch, squares_N = self._torch, _squares(values_NU)
        below_N = squares_N * (1 - self._tolerance)
        bounds_QN = torch.addmm(
            below_N, self._queries_QU, values_NU.T, alpha=-2
        )  # of the squares, less the query's own
        farthest_Q = torch.from_numpy(self.distances_QK[:, -1]).to(self._device)
        limits_Q = farthest_Q.square() - self._squares_Q * (1 - self._tolerance)
        nearer = self.distances_QK.shape[1] + (self._leave_out_Q is not None)
        if torch.isinf(farthest_Q).any() and len(values_NU) > nearer:
            enough_Q = bounds_QN.kthvalue(nearer, dim=1).values
            upper_Q = enough_Q + 2 * self._tolerance * (squares_N.max() + self._squares_Q)
            limits_Q = torch.minimum(limits_Q, upper_Q)
        query_P, row_P = (bounds_QN <= limits_Q[:, None]).nonzero(as_tuple=True)
        return query_P, row_P

    def _distances(self, values_NU: "Tensor", query_P: "Tensor", row_P: "Tensor") -> np.ndarray:
        """float32 [P], without what a product of matrices loses."""
        step = max(1, _DIFFERENCES // values_NU.shape[1])
        found = [np.zeros(0, np.float32)]
        for start in range(0, len(query_P), step):
            part = slice(start, start + step)
            difference_PU = self._queries_QU.index_select(0, query_P[part]).sub_(values_NU.index_select(0, row_P[part]))
            lengths_P = self._torch.linalg.vector_norm(difference_PU, dim=1, dtype=self._torch.float64)
            found.append(lengths_P.float().cpu().numpy())
        return np.concatenate(found)

    def _merge(self, query_P: np.ndarray, ids_P: np.ndarray, distances_P: np.ndarray) -> None:
        """Keeps the nearest of what was found before and of these."""
        changed, place_P = np.unique(query_P, return_inverse=True)
        top = self.ids_QK.shape[1]
        places = np.concatenate([np.arange(len(changed)).repeat(top), place_P])
        ids = np.concatenate([self.ids_QK[changed].ravel(), ids_P])
        distances = np.concatenate([self.distances_QK[changed].ravel(), distances_P])
        order = np.lexsort((ids, distances, places))
        starts = np.searchsorted(places[order], np.arange(len(changed)))
        kept = order[starts[:, None] + np.arange(top)]
        self.ids_QK[changed], self.distances_QK[changed] = ids[kept], distances[kept]


def _squares(values_NU: "Tensor") -> "Tensor":
    """Squared lengths, float32."""
    return values_NU.double().square().sum(1).float()


def places_of(ids: np.ndarray, ids_N: np.ndarray) -> np.ndarray:
    """Where in `ids_N` each of these ids stands, in their shape; all are there."""
    order_N = np.argsort(ids_N)
    return order_N[np.searchsorted(ids_N, ids, sorter=order_N)]


def right_class(labels_Q: np.ndarray, neighbours_QK: np.ndarray, at: Sequence[int] = AT) -> dict[int, Share]:
    """By k: the share of the k nearest that have the query's label, of queries with a label; for k up to K."""
    known = labels_Q >= 0
    if not known.any():
        return {}
    right_QK = neighbours_QK[known] == labels_Q[known, None]
    return {k: mean(right_QK[:, :k].mean(axis=1)) for k in at if k <= right_QK.shape[1]}


def chance(labels_Q: np.ndarray, counts: dict[int, int]) -> Share | None:
    """The same of rows drawn at random, from how many have each label; None where no query has a label."""
    known = labels_Q[labels_Q >= 0]
    total = sum(counts.values())
    return mean(np.array([counts.get(label, 0) / total for label in known.tolist()])) if len(known) else None


def mean(shares_Q: np.ndarray) -> Share:
    """Of one value for each query."""
    error = float(shares_Q.std(ddof=1) / np.sqrt(len(shares_Q))) if len(shares_Q) > 1 else None
    return Share(float(shares_Q.mean()), error)
