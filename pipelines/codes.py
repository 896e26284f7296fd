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
_PAIRS = 1 << 16  # that are compared at once: what a core's cache holds


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
    by_id = np.argsort(rows.ids_N)
    ids_N, codes_WN = rows.ids_N[by_id], np.ascontiguousarray(rows.codes_NW[by_id].T)
    place_bits = len(ids_N).bit_length()
    kind = np.uint32 if place_bits + (64 * len(codes_WN)).bit_length() < 32 else np.uint64
    kept = min(top, len(ids_N) - (leave_out_Q is not None))
    step, found = max(1, _PAIRS // max(1, len(ids_N))), []
    for start in range(0, len(queries_QW), step):
        order_QN = _order(queries_QW[start : start + step], codes_WN, place_bits, kind)
        if leave_out_Q is not None:
            own_Q = np.searchsorted(ids_N, leave_out_Q[start : start + step])
            order_QN[np.arange(len(own_Q)), own_Q] = np.iinfo(kind).max
        found.append(np.sort(np.partition(order_QN, kept - 1, axis=1)[:, :kept], axis=1))
    first_QK = np.concatenate(found).astype(np.int64)
    return Nearest(ids_N[first_QK & ((1 << place_bits) - 1)], (first_QK >> place_bits).astype(np.float32))


def _order(queries_QW: np.ndarray, codes_WN: np.ndarray, place_bits: int, kind: type[np.unsignedinteger]) -> np.ndarray:
    """[Q, N] numbers in the order of the neighbours: how many bits differ, then the row's place."""
    order_QN = np.zeros((len(queries_QW), codes_WN.shape[1]), kind)
    for word, codes_N in enumerate(codes_WN):
        order_QN += np.bitwise_count(queries_QW[:, word, None] ^ codes_N)
    order_QN <<= kind(place_bits)
    order_QN += np.arange(codes_WN.shape[1], dtype=kind)
    return order_QN


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
