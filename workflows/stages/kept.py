"""Probabilities of all classes that an evaluation kept, or a baseline: what a model said, to average without the model.

Letters: N images, K classes.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from pipelines.manifest import Manifest
from pipelines.storage import Folder
from pipelines.tables import read_table
from workflows.config import UsageError
from workflows.folders import PROBABILITIES

_IMAGES = b"manifest"  # of the file's metadata: the digest of the manifest whose images these are


class Kept(NamedTuple):
    ids_N: np.ndarray  # ascending
    labels_N: np.ndarray  # int64; -1 unknown
    probabilities_NK: np.ndarray  # float16, as they are stored

    def of(self, ids_B: np.ndarray) -> np.ndarray:
        """[B, K] float32: those of some of its images."""
        return self.probabilities_NK[np.searchsorted(self.ids_N, ids_B)].astype(np.float32)


def write(
    folder: Folder, ids_N: np.ndarray, labels_N: np.ndarray, by_model: Mapping[str, np.ndarray], manifest: Manifest
) -> None:
    """One row an image, by id: its label, and for each model [N, K] its probabilities of all classes as float16."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    order = np.argsort(ids_N)
    columns: dict[str, pa.Array] = {"id": pa.array(ids_N[order]), "label": pa.array(labels_N[order], pa.int32())}
    for name, probabilities_NK in by_model.items():
        flat = pa.array(np.ascontiguousarray(probabilities_NK[order], np.float16).ravel())
        columns[name] = pa.FixedSizeListArray.from_arrays(flat, probabilities_NK.shape[1])
    table = pa.table(columns).replace_schema_metadata({_IMAGES: manifest.digest})
    folder.publish(PROBABILITIES, lambda file: pq.write_table(table, file))


def read(folder: Folder) -> Kept:
    """What its own model said, which is the first of those that it kept."""
    table = read_table(folder, PROBABILITIES)
    ids_N, labels_N = (table[name].to_numpy() for name in ("id", "label"))
    flat = table.column(2).combine_chunks().flatten().to_numpy()
    return Kept(ids_N, labels_N.astype(np.int64), flat.reshape(len(ids_N), -1))


def require_of(folder: Folder, said: str, manifest: Manifest, split: str) -> None:
    """UsageError where these are not probabilities of all stored images of this split; `said` is what names them."""
    from pipelines.evaluation import stored_ids

    table = read_table(folder, PROBABILITIES, ["id"])
    ids_N = np.concatenate([stored_ids(record) for record in manifest.splits[split]])
    of_images = (table.schema.metadata or {}).get(_IMAGES, b"").decode()
    if of_images != manifest.digest or not np.array_equal(table["id"].to_numpy(), ids_N):
        raise UsageError(
            f"{said} holds probabilities of other images than those of {split} here: evaluate that model (or baseline) "
            "on these shards and this split first"
        )
