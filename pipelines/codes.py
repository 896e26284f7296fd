"""Short codes: images as a few bits, compared by how many differ (Hamming distance), exactly and without an index.

Letters: Q queries, N rows, C bits of a code, W its words of 64 bits, K neighbours.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pipelines.neighbours import Nearest
from pipelines.storage import Folder
from pipelines.tables import read_table

if TYPE_CHECKING:
    import pyarrow as pa

SUMMARY = "codes.json"  # beside the codes: what they are worth
_PAIRS = 1 << 22  # that are compared at once
_ID_BITS = 48  # of the number that orders neighbours: by distance, then by id


class Codes(NamedTuple):
    """The codes of some images."""

    ids_N: np.ndarray  # int64
    labels_N: np.ndarray  # int64
    codes_NW: np.ndarray  # uint64


def packed(bits_NC: np.ndarray) -> np.ndarray:
    """Bits as words, uint64 [N, W]; what a last word has no bits for is 0."""
    bytes_N8 = np.packbits(bits_NC, axis=1)
    return np.pad(bytes_N8, ((0, 0), (0, -bytes_N8.shape[1] % 8))).view(np.uint64)


def joined(parts: Iterable[Codes]) -> Codes:
    """All of them together. ValueError where there are none."""
    return Codes(*map(np.concatenate, zip(*parts, strict=True)))


def nearest_codes(queries_QW: np.ndarray, rows: Codes, top: int, leave_out_Q: np.ndarray | None = None) -> Nearest:
    """The `top` rows from which the fewest bits differ, the nearest first; equal distances go by id.

    Args:
        leave_out_Q: For each query the id that is no neighbour of its: its own, where queries are among the rows.
    """
    step = max(1, _PAIRS // max(1, len(rows.ids_N)))
    found = [
        _nearest(queries_QW[start : start + step], rows, top, None if leave_out_Q is None else leave_out_Q[start:])
        for start in range(0, len(queries_QW), step)
    ]
    ids, distances = (np.concatenate(column) for column in zip(*found, strict=True))
    return Nearest(ids, distances)


def _nearest(queries_QW: np.ndarray, rows: Codes, top: int, leave_out_Q: np.ndarray | None) -> Nearest:
    order_QN = np.zeros((len(queries_QW), len(rows.ids_N)), np.int64)
    for word in range(queries_QW.shape[1]):
        order_QN += np.bitwise_count(queries_QW[:, word, None] ^ rows.codes_NW[:, word])
    order_QN <<= _ID_BITS
    order_QN += rows.ids_N
    if leave_out_Q is not None:
        order_QN[rows.ids_N == leave_out_Q[: len(queries_QW), None]] = np.iinfo(np.int64).max
    kept = min(top, order_QN.shape[1] - (leave_out_Q is not None))
    first_QK = np.sort(np.partition(order_QN, kept - 1, axis=1)[:, :kept], axis=1)
    return Nearest(first_QK & ((1 << _ID_BITS) - 1), (first_QK >> _ID_BITS).astype(np.float32))


def write_codes(folder: Folder, name: str, codes: dict[str, Codes]) -> int:
    """A row an image: split, id, label, and its code as bytes; how many bytes the file has."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.concat_tables(_table(split, each) for split, each in codes.items())
    folder.publish(name, lambda file: pq.write_table(table, file, compression="zstd"))
    return folder.size(name) or 0


def read_codes(folder: Folder, name: str, split: str) -> Codes:
    """What was written of a split. ValueError where the file is not there."""
    import pyarrow.compute as pc

    if folder.size(name) is None:
        raise ValueError(f"{folder.where(name)} is gone; `alexnet codes --redo codes` makes it anew")
    table = read_table(folder, name)
    table = table.filter(pc.equal(table["split"], split)).combine_chunks()
    words = table.schema.field("code").type.byte_width // 8
    data = b"".join(table["code"].to_pylist())
    return Codes(
        table["id"].to_numpy(), table["label"].to_numpy(), np.frombuffer(data, np.uint64).reshape(len(table), words)
    )


def _table(split: str, codes: Codes) -> "pa.Table":
    import pyarrow as pa

    width = codes.codes_NW.shape[1] * 8
    data = [row.tobytes() for row in codes.codes_NW]
    return pa.table(
        {
            "split": [split] * len(codes.ids_N),
            "id": codes.ids_N,
            "label": codes.labels_N,
            "code": pa.array(data, pa.binary(width)),
        }
    )
