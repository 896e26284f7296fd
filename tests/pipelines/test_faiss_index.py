"""FAISS indices: a flat one finds what an exact search finds; one of short codes most of it, in less room."""

import numpy as np
import pytest

from pipelines.faiss_index import INDEX, nearest_by, read_index, recall, write_index
from pipelines.features import FeatureFile, FeatureRows, Features
from pipelines.neighbours import nearest
from pipelines.storage import Folder

pytest.importorskip("faiss")


class InMemory(Features):
    """Features of rows that a test made."""

    def rows(self, split):
        for start in range(0, len(ROWS), 700):
            part = ROWS[start : start + 700]
            ids_N = np.arange(start, start + len(part)) * 3
            yield FeatureRows(ids_N, [str(id) for id in ids_N], ids_N % 5, part)


CENTRES = np.random.default_rng(0).normal(size=(60, 24)) * 4
ROWS = (CENTRES[np.arange(12_000) % 60] + np.random.default_rng(1).normal(size=(12_000, 24))).astype(np.float16)


def features(num_rows: int) -> Features:
    file = FeatureFile("data/train-00000-of-00001.parquet", "train", 0, num_rows, 24, 0, "")
    return InMemory(Folder.at("/nowhere"), {"num_features": 24, "splits": {"train": {}}}, (file,))


def test_a_flat_index_finds_what_an_exact_search_finds(tmp_path):
    write_index(features(len(ROWS)), "flat", Folder.at(tmp_path))
    exact = nearest(ROWS[:50], [(rows.ids_N, rows.features_NU) for rows in features(0).rows("train")], 6)
    found = nearest_by(read_index(Folder.at(tmp_path)), ROWS[:50], 6)
    np.testing.assert_allclose(found.distances_QK[:, 1:], exact.distances_QK[:, 1:], rtol=1e-3)
    assert recall(exact.ids_QK, found.ids_QK)["6"] > 0.99


def test_short_codes_take_less_room_and_find_most(tmp_path):
    size = write_index(features(len(ROWS)), "flat", Folder.at(tmp_path / "flat"))
    smaller = write_index(features(len(ROWS)), "ivfpq", Folder.at(tmp_path / "ivfpq"))
    assert smaller < size / 2
    assert (tmp_path / "ivfpq" / INDEX).stat().st_size == smaller
    exact = nearest(ROWS[:50], [(rows.ids_N, rows.features_NU) for rows in features(0).rows("train")], 50)
    found = nearest_by(read_index(Folder.at(tmp_path / "ivfpq")), ROWS[:50], 50)
    assert recall(exact.ids_QK, found.ids_QK)["50"] > 0.6


def test_codes_of_few_images_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"ivfpq needs 9,984 training images or more, and there are 100: set .*=flat"):
        write_index(features(100), "ivfpq", Folder.at(tmp_path))


def test_recall_is_the_share_of_the_nearest_that_are_found():
    exact_QK, found_QK = np.array([[1, 2, 3, 4, 5, 6]]), np.array([[1, 9, 3, 2, 8, 6]])
    assert recall(exact_QK, found_QK) == {"1": 1.0, "6": pytest.approx(4 / 6)}
