"""Codes are bits packed and compared as bits are."""

import numpy as np
import pytest

from pipelines.codes import Codes, _order, joined, nearest_codes, packed, read_codes, write_codes
from pipelines.storage import Folder


def codes(rng, count: int, bits: int, first_id: int = 0) -> tuple[Codes, np.ndarray]:
    bits_NC = rng.random((count, bits)) < 0.5
    ids_N = rng.permutation(count) + first_id
    return Codes(ids_N, ids_N % 3, packed(bits_NC)), bits_NC


@pytest.mark.parametrize("bits", [5, 28, 64, 256])
@pytest.mark.parametrize("at_once", [1 << 22, 700])
def test_the_nearest_codes_are_those_of_a_plain_sort(bits, at_once, monkeypatch):
    monkeypatch.setattr("pipelines.codes._PAIRS", at_once)
    rng = np.random.default_rng(bits)
    rows, bits_NC = codes(rng, 200, bits)
    queries, bits_QC = codes(rng, 31, bits)
    found = nearest_codes(queries.codes_NW, rows, 9)
    for query, bits_C in enumerate(bits_QC):
        distances = (bits_NC != bits_C).sum(1)
        order = sorted(range(200), key=lambda row: (distances[row], rows.ids_N[row]))[:9]
        assert found.ids_QK[query].tolist() == rows.ids_N[order].tolist()
        assert found.distances_QK[query].tolist() == distances[order].tolist()


def test_a_row_is_none_of_its_own_neighbours():
    rows, _ = codes(np.random.default_rng(0), 40, 28)
    found = nearest_codes(rows.codes_NW, rows, 100, leave_out_Q=rows.ids_N)
    assert found.ids_QK.shape == (40, 39)
    assert not (found.ids_QK == rows.ids_N[:, None]).any()


def test_codes_are_read_as_they_were_written(tmp_path):
    rng = np.random.default_rng(1)
    train, val = (joined([codes(rng, 20, 256, start)[0], codes(rng, 5, 256, start + 20)[0]]) for start in (0, 1000))
    folder = Folder.at(tmp_path)
    assert (
        write_codes(folder, "codes.parquet", {"train": train, "val": val})
        == (tmp_path / "codes.parquet").stat().st_size
    )
    for split, wanted in {"train": train, "val": val}.items():
        for read, written in zip(read_codes(folder, "codes.parquet", split), wanted, strict=True):
            assert (read == written).all()


def test_codes_that_are_gone_are_told(tmp_path):
    with pytest.raises(ValueError, match="features-28.parquet is gone; `alexnet codes --redo codes`"):
        read_codes(Folder.at(tmp_path), "features-28.parquet", "train")


def test_order_is_the_same_in_32_and_in_64_bits():
    """Those of 64 are for more rows than a test can have."""
    rows, _ = codes(np.random.default_rng(2), 300, 70)
    short, long = (_order(rows.codes_NW[:9], rows.codes_NW.T, 20, kind) for kind in (np.uint32, np.uint64))
    assert (short == long).all()
    assert (long >> np.uint64(20)).max() > 20
