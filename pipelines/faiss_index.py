"""An index of features by FAISS, for sets that are too large to be looked through: flat, or lists of short codes.

Letters: Q queries, N rows, U units, K neighbours.
"""

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pipelines.features import Features
from pipelines.names import TRAIN
from pipelines.neighbours import AT, Nearest
from pipelines.storage import Folder

if TYPE_CHECKING:
    import faiss

Index = Literal["none", "flat", "ivfpq"]
INDEX = "index.faiss"
CODE_BYTES = 64  # at most, of a row
ROWS_A_LIST = 39  # at least, to find a list's centre and the 256 words of a code from: what FAISS asks for
LOOKED_AT = 32  # lists that a query looks through


def require_enough(kind: Index, num_rows: int) -> None:
    """ValueError where so few rows make no index of this kind."""
    if kind == "ivfpq" and num_rows < ROWS_A_LIST * 256:
        raise ValueError(
            f"neighbours.index=ivfpq needs {ROWS_A_LIST * 256:,} training images or more, and there are {num_rows:,}: "
            "set neighbours.index=flat"
        )


def write_index(features: Features, kind: Index, folder: Folder) -> int:
    """Writes the index of all training images by id; its bytes. ValueError: there are too few for this kind."""
    import faiss

    num_rows = sum(file.rows for file in features.of_split(TRAIN))
    index = _empty(features.card["num_features"], kind, num_rows)
    if kind == "ivfpq":
        index.train(_sample(features, 64 * max(index.nlist, 256)))
    made = index if kind == "ivfpq" else faiss.IndexIDMap2(index)
    for rows in features.rows(TRAIN):
        made.add_with_ids(rows.features_NU.astype(np.float32), rows.ids_N)
    data = faiss.serialize_index(made)
    folder.publish(INDEX, lambda file: file.write(data.data))
    return len(data)


def read_index(folder: Folder) -> "faiss.Index":
    """From its file, which a large one is not copied for."""
    import faiss

    with folder.as_local(INDEX) as here:
        index = faiss.read_index(str(here / INDEX))
    if isinstance(index, faiss.IndexIVFPQ):
        index.nprobe = min(LOOKED_AT, index.nlist)
    return index


def nearest_by(index: "faiss.Index", queries_QU: np.ndarray, top: int) -> Nearest:
    """As `neighbours.nearest`, as well as the index knows; -1 where a query's lists hold fewer."""
    squares_QK, ids_QK = index.search(np.ascontiguousarray(queries_QU, np.float32), min(top, index.ntotal))
    return Nearest(ids_QK, np.sqrt(np.maximum(squares_QK, 0)))


def recall(exact_QK: np.ndarray, found_QK: np.ndarray) -> dict[str, float]:
    """By k: the share of the k nearest that are among the k that the index found."""
    at = [k for k in AT if k <= min(exact_QK.shape[1], found_QK.shape[1])]
    pairs = list(zip(exact_QK, found_QK, strict=True))
    return {str(k): float(np.mean([np.isin(exact[:k], found[:k]).mean() for exact, found in pairs])) for k in at}


def _empty(num_features: int, kind: Index, num_rows: int) -> Any:
    import faiss

    require_enough(kind, num_rows)
    if kind == "flat":
        return faiss.IndexFlatL2(num_features)
    lists = min(int(4 * num_rows**0.5), num_rows // ROWS_A_LIST)
    code_bytes = next(size for size in range(CODE_BYTES, 0, -1) if num_features % size == 0)
    return faiss.IndexIVFPQ(faiss.IndexFlatL2(num_features), num_features, lists, code_bytes, 8)


def _sample(features: Features, count: int) -> np.ndarray:
    """The first rows, which are in a random order."""
    found, seen = [], 0
    for rows in features.rows(TRAIN):
        found.append(rows.features_NU[: count - seen].astype(np.float32))
        seen += len(found[-1])
        if seen == count:
            break
    return np.concatenate(found)
