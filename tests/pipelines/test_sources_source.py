"""Listings travel light, split by key, and their fingerprint depends on the values and nothing else."""

import pickle

import numpy as np
import pyarrow as pa
import pytest

from pipelines.sources.source import SCHEMA, fingerprint_of, hash_column, listing, take_rows, with_val


def rows(count: int, files: int = 1) -> pa.Table:
    names = pa.DictionaryArray.from_arrays(np.arange(count, dtype=np.int32) % files, [f"{i}.tar" for i in range(files)])
    return listing([f"k{i}" for i in range(count)], [i % 3 for i in range(count)], names, [0] * count, [9] * count)


def test_taken_rows_carry_only_the_files_they_name():
    table = rows(20_000, files=20_000)
    taken = take_rows(table, np.array([19_999, 5, 7]))
    assert taken.schema == SCHEMA
    assert taken["key"].to_pylist() == ["k19999", "k5", "k7"]
    assert taken["file"].to_pylist() == ["19999.tar", "5.tar", "7.tar"]
    assert len(pickle.dumps(taken)) < 5000


def test_a_column_hashes_by_its_values_not_by_its_pieces():
    values = ["", "a", "bc", "déf", "g" * 300]
    whole = hash_column(pa.array(values))
    for cut in range(len(values) + 1):
        assert hash_column(pa.chunked_array([values[:cut], values[cut:]], pa.string())) == whole
    assert hash_column(pa.array(["x", *values])[1:]) == whole
    numbers = pa.array([1, 2, 3])
    assert hash_column(pa.chunked_array([[1], [2, 3]])) == hash_column(numbers)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (pa.array(["ab", "c"]), pa.array(["a", "bc"])),
        (pa.array(["a", "b"]), pa.array(["b", "a"])),
        (pa.array([1, 2]), pa.array([2, 1])),
        (pa.array(["a", ""]), pa.array(["a"])),
    ],
)
def test_different_columns_hash_differently(a, b):
    assert hash_column(a) != hash_column(b)


def test_parts_of_a_fingerprint_do_not_run_together():
    assert fingerprint_of(["ab", "c"]) != fingerprint_of(["a", "bc"])
    assert fingerprint_of(["1"]) == fingerprint_of([1])


def test_val_is_taken_from_train_only_where_there_is_neither_val_nor_test():
    train, other = rows(1000), rows(7)
    assert with_val({"train": train}, 0.0) == {"train": train}
    assert with_val({"train": train, "val": other}, 0.5) == {"train": train, "val": other}
    assert with_val({"test": other, "train": train}, 0.5) == {"train": train, "val": other}
    split = with_val({"train": train}, 0.1)
    assert 60 <= split["val"].num_rows <= 140
    assert split["train"].num_rows + split["val"].num_rows == 1000


def test_the_choice_of_val_is_the_same_for_ever():
    """Golden: another hash would move images between train and val of every data set prepared so far."""
    assert with_val({"train": rows(60)}, 0.1)["val"]["key"].to_pylist() == [
        "k2",
        "k6",
        "k21",
        "k25",
        "k29",
        "k35",
        "k39",
    ]
