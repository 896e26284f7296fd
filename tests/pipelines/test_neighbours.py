"""Neighbours: those of an obvious search, however rows are cut and ordered; equal distances go by id."""

import numpy as np
import pytest
import torch

from pipelines import neighbours
from pipelines.neighbours import chance, nearest, right_class


def made(num_rows: int, num_units: int = 24, seed: int = 0) -> np.ndarray:
    """float16 [N, U]: values as a ReLU leaves them; a tenth of the rows are there twice."""
    values = np.maximum(0, np.random.default_rng(seed).normal(size=(num_rows, num_units)) * 30).astype(np.float16)
    values[: num_rows // 10] = values[num_rows // 2 : num_rows // 2 + num_rows // 10]
    return values


def obvious(queries_QU: np.ndarray, ids_N: np.ndarray, values_NU: np.ndarray, top: int, leave_out_Q=None):
    """Every distance, sorted as float32, then by id."""
    found = []
    for number, query in enumerate(queries_QU.astype(np.float32)):
        differences_NU = (values_NU.astype(np.float32) - query).astype(np.float64)
        distances = np.sqrt((differences_NU**2).sum(axis=1)).astype(np.float32)
        rows = [n for n in range(len(ids_N)) if leave_out_Q is None or ids_N[n] != leave_out_Q[number]]
        rows = sorted(rows, key=lambda n: (distances[n], ids_N[n]))[:top]
        found.append((ids_N[rows], distances[rows]))
    return tuple(np.stack(column) for column in zip(*found, strict=True))


def in_blocks(ids_N: np.ndarray, values_NU: np.ndarray, sizes: list[int]):
    """The rows in blocks of these sizes."""
    ends = np.cumsum(sizes)
    assert ends[-1] == len(ids_N)
    return zip(np.split(ids_N, ends[:-1]), np.split(values_NU, ends[:-1]), strict=True)


@pytest.mark.parametrize("sizes", [[200], [1] * 200, [7, 150, 3, 40]])
@pytest.mark.parametrize("products", [1, 64, 1 << 23])
def test_neighbours_are_those_of_an_obvious_search_however_rows_are_cut(monkeypatch, device, sizes, products):
    monkeypatch.setitem(neighbours._PRODUCTS, device, products)
    ids_N = np.random.default_rng(1).permutation(1000)[:200]
    values_NU, queries_QU = made(200), np.concatenate([made(9, seed=2), made(200)[:4]])
    expected = obvious(queries_QU, ids_N, values_NU, 8)
    found = nearest(queries_QU, in_blocks(ids_N, values_NU, sizes), 8, device)
    np.testing.assert_array_equal(found.ids_QK, expected[0])
    np.testing.assert_array_equal(found.distances_QK, expected[1])
    assert found.distances_QK[-1, :2].tolist() == [0, 0]


def test_what_differs_by_less_than_the_product_of_matrices_can_tell_is_found():
    """Long vectors near each other: their squares are a million times the squared distances."""
    random = np.random.default_rng(3)
    centre_U = random.uniform(1000, 2000, 512)
    values_NU = (centre_U + random.normal(size=(300, 512)) * 0.5).astype(np.float32)
    expected = obvious(values_NU[:20], np.arange(300), values_NU, 6)
    found = nearest(values_NU[:20], in_blocks(np.arange(300), values_NU, [100, 200]), 6)
    np.testing.assert_array_equal(found.ids_QK, expected[0])
    np.testing.assert_array_equal(found.distances_QK, expected[1])
    plain = torch.cdist(torch.from_numpy(values_NU[:20]), torch.from_numpy(values_NU)).argsort(dim=1)[:, :6]
    assert (plain.numpy() != expected[0]).any(), "the case is too easy: plain float32 finds them as well"


def test_equal_rows_are_taken_by_id_in_whatever_order_they_come():
    values_NU = np.ones((12, 3), np.float16)
    for sizes in ([12], [5, 7]):
        ids_N = np.random.default_rng(4).permutation(12)
        found = nearest(values_NU[:2], in_blocks(ids_N, values_NU, sizes), 4)
        assert found.ids_QK.tolist() == [[0, 1, 2, 3]] * 2


def test_a_row_is_no_neighbour_of_itself():
    values_NU, ids_N = made(50), np.arange(100, 150)
    expected = obvious(values_NU[:6], ids_N, values_NU, 5, leave_out_Q=ids_N[:6])
    found = nearest(values_NU[:6], in_blocks(ids_N, values_NU, [20, 30]), 5, leave_out_Q=ids_N[:6])
    np.testing.assert_array_equal(found.ids_QK, expected[0])
    assert not (found.ids_QK == ids_N[:6, None]).any()


def test_fewer_rows_give_fewer_neighbours():
    found = nearest(made(3), in_blocks(np.arange(4), made(4), [2, 2]), 9)
    assert found.ids_QK.shape == found.distances_QK.shape == (3, 4)


def test_shares_are_means_over_queries_with_a_label():
    labels_Q = np.array([0, 1, 2, -1])
    neighbours_QK = np.array([[0, 0, 1], [1, 0, 0], [0, 0, 0], [-1, -1, -1]])
    found = right_class(labels_Q, neighbours_QK, at=(1, 3, 50))
    assert list(found) == [1, 3]
    assert found[1] == pytest.approx((2 / 3, np.std([1, 1, 0], ddof=1) / np.sqrt(3)))
    assert found[3] == pytest.approx((1 / 3, np.std([2 / 3, 1 / 3, 0], ddof=1) / np.sqrt(3)))
    assert right_class(labels_Q[3:], neighbours_QK[3:]) == {}


def test_chance_is_the_share_of_the_query_s_class_among_all_rows():
    assert chance(np.array([0, 1, -1, 1]), {0: 30, 1: 10}).share == pytest.approx((0.75 + 0.25 + 0.25) / 3)
    assert chance(np.array([-1]), {0: 30}) is None
