"""Files of features: what is written is read, by others too, in small pieces; what is damaged or missing is named."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import shard_builder

from pipelines import features
from pipelines.features import CARD, Features, finished_files, problems_by_file, write_card, write_features
from pipelines.shards import read_shard
from pipelines.storage import Folder

NUM_FEATURES = 5
LISTED = {"train": [7, 4], "val": [3]}


@pytest.fixture(scope="module", params=["tfrecord", "parquet"])
def shards(request, tmp_path_factory):
    return shard_builder.write_shards(tmp_path_factory.mktemp("shards"), LISTED, request.param, quarantined=(2,))


def values(ids: np.ndarray) -> np.ndarray:
    """float32 [N, U]: some features of these images, half of them 0."""
    return np.maximum(0, np.sin(np.outer(ids + 1, np.arange(1, NUM_FEATURES + 1))) * 9).astype(np.float32)


def write(shards, folder: Folder, dtype="float16", batch_size=3, of=values) -> list[features.FeatureFile]:
    """The features of all shards, and their card."""
    store, manifest = shards
    files = []
    for record in manifest.records():
        rows = read_shard(store, record)
        batches = (of(rows.ids[start : start + batch_size]) for start in range(0, len(rows), batch_size))
        files.append(write_features(folder, record, rows, batches, dtype))
    card = {"splits": {split: {"images": manifest.num_rows(split)} for split in manifest.splits}}
    write_card(folder, card, files)
    return files


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_what_is_written_is_read_in_stored_order(shards, tmp_path, dtype):
    files = write(shards, Folder.at(tmp_path), dtype)
    assert [file.name for file in files[:2]] == [f"data/train-0000{i}-of-00002.parquet" for i in (0, 1)]
    found = Features.load(Folder.at(tmp_path))
    for split, ids in {"train": [0, 1, 3, 4, 5, 6, 7, 8, 9, 10], "val": [0, 1]}.items():
        rows = list(found.rows(split))
        assert np.concatenate([part.ids_N for part in rows]).tolist() == ids
        assert [key for part in rows for key in part.keys] == [f"{split}/{id}" for id in ids]
        assert np.concatenate([part.labels_N for part in rows]).tolist() == [id % 3 for id in ids]
        features_NU = np.concatenate([part.features_NU for part in rows])
        assert features_NU.dtype == dtype
        assert (features_NU == values(np.array(ids)).astype(dtype)).all()
    with pytest.raises(ValueError, match="no features of split 'test', but of train, val"):
        next(found.rows("test"))


def test_reading_imports_no_pandas(shards, tmp_path):
    """As pyarrow would for numbers: a third of a second, of a command that looks at one image and of every worker."""
    write(shards, Folder.at(tmp_path))
    code = "import sys; from pipelines.features import *; [*Features.load(Folder.at(sys.argv[1])).rows('train')];"
    code += "sys.exit('pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code, tmp_path], check=False).returncode == 0


def test_row_groups_are_small_and_do_not_depend_on_the_batches(shards, tmp_path, monkeypatch):
    monkeypatch.setattr(features, "_GROUP_BYTES", 3 * NUM_FEATURES * 4)
    files = {size: write(shards, Folder.at(tmp_path / str(size)), "float32", size) for size in (1, 4, 100)}
    assert files[1] == files[4] == files[100]
    assert pq.ParquetFile(tmp_path / "1" / files[1][0].name).num_row_groups == 2
    rows = list(Features.load(Folder.at(tmp_path / "1")).rows("train"))
    assert [len(part.ids_N) for part in rows] == [3, 3, 3, 1]


def test_others_read_the_files(shards, tmp_path):
    duckdb, polars = pytest.importorskip("duckdb"), pytest.importorskip("polars")
    write(shards, Folder.at(tmp_path))
    expected = values(np.array([0, 1])).astype("float16")
    frame = pd.read_parquet(tmp_path / "data")
    assert (np.stack(frame[frame["split"] == "val"]["features"]) == expected).all()
    assert (polars.read_parquet(tmp_path / "data/val*.parquet")["features"].to_numpy() == expected).all()
    rows = duckdb.sql(f"SELECT features FROM '{tmp_path}/data/*.parquet' WHERE split = 'val' ORDER BY id").fetchall()
    assert (np.array([row[0] for row in rows]) == expected).all()


def test_features_that_the_type_cannot_hold_are_refused(shards, tmp_path):
    def large(ids):
        return values(ids) + np.float32(7e4)

    with pytest.raises(ValueError, match=r"data/train-00000.*reach 7e\+04.*float16 holds; set features.dtype=float32"):
        write(shards, Folder.at(tmp_path), of=large)
    assert finished_files(Folder.at(tmp_path)) == {}
    write(shards, Folder.at(tmp_path), "float32", of=large)
    with pytest.raises(ValueError, match="no numbers; train it anew"):
        write(shards, Folder.at(tmp_path), of=lambda ids: values(ids) * np.float32("nan"))


def test_only_whole_files_count_as_finished(shards, tmp_path):
    folder = Folder.at(tmp_path)
    first, second, third = write(shards, folder)
    assert finished_files(folder) == {features.stem(file.name): file for file in (first, second, third)}
    (tmp_path / first.name).unlink()
    (tmp_path / second.name).write_bytes(b"short")
    assert list(finished_files(folder)) == ["val-00000-of-00001"]
    features.forget(folder, [third.name])
    assert finished_files(folder) == {}


def test_files_that_are_damaged_or_gone_are_named(shards, tmp_path):
    folder = Folder.at(tmp_path)
    first, _, third = write(shards, folder)
    assert problems_by_file(folder) == {}
    features._checked.clear()
    damage(tmp_path / first.name)
    (tmp_path / third.name).unlink()
    found = problems_by_file(folder)
    assert list(found) == [first.name, third.name]
    assert re.search(r"not the file that was written; run `alexnet verify` and then `alexnet f", found[first.name][0])
    assert f"{third.name} is gone" in found[third.name][0]
    with pytest.raises(ValueError, match=re.escape(first.name)):
        list(Features.load(folder).rows("train"))
    (tmp_path / CARD).unlink()
    with pytest.raises(ValueError, match=r"holds no features.json: run `alexnet features`"):
        Features.load(folder)


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
