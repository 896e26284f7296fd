"""Images stored again are found in all splits, by key, whatever the shards."""

from functools import partial

import numpy as np
import pytest

from pipelines.duplicates import _ID_BITS, digest_shard, find_duplicates, keys_of, named, shards_of, summary
from tests.memory_source import ingest, jpegs, memory_source


def duplicates_of(folder, manifest):
    """As the stage finds them."""
    images = {
        split: np.concatenate([digest_shard(folder, record) for record in records])
        for split, records in manifest.splits.items()
    }
    pairs = find_duplicates(images)
    return named(pairs, list(manifest.splits), map(partial(keys_of, folder), shards_of(pairs, manifest.splits)))


def images() -> dict[str, list[bytes]]:
    """In train 3 = 16 and 9 = 18 = 19; val's 1 is train's 5, its 2 and 3 are alike; one damaged image."""
    train, val = jpegs(16), jpegs(4, 50)
    return {
        "train": [*train, train[3], b"no image", train[9], train[9]],
        "val": [val[0], train[5], val[2], val[2]],
    }


@pytest.mark.parametrize("rows_per_shard", [1, 4, 100])
@pytest.mark.parametrize(("format", "encoding"), [("parquet", "raw"), ("tfrecord", "jpeg")])
def test_duplicates_are_found_within_and_across_splits(tmp_path, rows_per_shard, format, encoding):
    options = {"rows_per_shard": rows_per_shard, "format": format, "encoding": encoding, "max_bad": 0.2}
    table = duplicates_of(*ingest(tmp_path, memory_source(images()), **options))
    groups: dict[str, set[str]] = {}
    for row in table.to_pylist():
        groups.setdefault(row["first_key"], {row["first_key"]}).add(row["key"])
        for prefix in ("", "first_"):
            split, key = row[f"{prefix}split"], row[f"{prefix}key"]
            assert key.startswith(f"{split}/")
            assert row[f"{prefix}label"] == int(key.partition("/")[2].removesuffix(".jpg")) % 3
    found = sorted(sorted(group) for group in groups.values())
    expected = [["train/3", "train/16"], ["train/9", "train/18", "train/19"], ["train/5", "val/1"], ["val/2", "val/3"]]
    assert found == sorted(sorted(f"{name}.jpg" for name in group) for group in expected)
    assert [row["first_split"] for row in table.to_pylist() if row["split"] == "val"].count("train") == 1


def test_the_first_is_that_of_the_first_split_and_the_lowest_id(tmp_path):
    folder, manifest = ingest(tmp_path, memory_source(images()), max_bad=0.2)
    rows = duplicates_of(folder, manifest).to_pylist()
    places = [(list(manifest.splits).index(row["split"]), row["id"]) for row in rows]
    firsts = [(list(manifest.splits).index(row["first_split"]), row["first_id"]) for row in rows]
    assert places == sorted(places)
    assert all(first < place for first, place in zip(firsts, places, strict=True))
    assert not set(firsts) & set(places)


def test_a_summary_counts_splits_and_other_labels(tmp_path):
    said = summary(duplicates_of(*ingest(tmp_path, memory_source(images()), max_bad=0.2)))
    assert said.startswith("5 images are stored again with the same bytes (")
    for part in ("3 of train as another there", "1 of val as one of train", "1 of val as another there"):
        assert part in said
    assert said.endswith("; 4 with another label)")


def test_where_there_are_none_nothing_is_said(tmp_path):
    table = duplicates_of(*ingest(tmp_path, memory_source({"train": jpegs(9), "val": [b"no image"]}), max_bad=1))
    assert table.num_rows == 0
    assert table.column_names[:4] == ["split", "id", "key", "label"]
    assert summary(table) == ""


def test_digests_that_share_their_first_word_only_are_no_duplicates():
    images = {"train": np.array([[7, 1, 0], [7, 2, 1], [7, 1, 2]], np.uint64), "val": np.array([[7, 2, 0]], np.uint64)}
    assert find_duplicates(images).tolist() == [[2, 0], [1 << _ID_BITS, 1]]


def test_pairs_are_those_of_a_plain_dictionary():
    rng, first = np.random.default_rng(0), {}
    images = {split: rng.integers(0, 9, (200, 3)).astype(np.uint64) for split in ("train", "val", "test")}
    expected = []
    for number, images_N3 in enumerate(images.values()):
        images_N3[:, 2] = np.arange(200)
        for a, b, id in images_N3.tolist():
            place = (number << _ID_BITS) + id
            if first.setdefault((a, b), place) != place:
                expected.append([place, first[a, b]])
    assert find_duplicates(images).tolist() == expected
