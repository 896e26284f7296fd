"""An ingest's output as other people's programs read it: whole folders, by the readers' own rules."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipelines.images import decode_jpeg
from pipelines.manifest import Manifest
from pipelines.shards import read_shard
from pipelines.sources.catalog import open_source
from pipelines.specs import IngestSpec
from pipelines.storage import Folder
from tests.memory_source import ingest, jpegs, memory_source

ENCODINGS = pytest.mark.parametrize("encoding", ["jpeg", "raw"])
COUNTS = {"train": 12, "val": 4}  # 13 are listed, of which one is damaged


def output(folder: Path, **options) -> tuple[Folder, Manifest]:
    """A whole output: shards of two splits, an image set aside, and the records that a stage leaves."""
    made = ingest(
        folder, memory_source({"train": [b"no image", *jpegs(12)], "val": jpegs(4, 50)}), max_bad=1, **options
    )
    for name in ("begun.json", "stage.json"):
        made[0].write(name, "{}")
    return made


def stored(folder: Folder, manifest: Manifest) -> dict[tuple[str, int], tuple[str, int, bytes]]:
    """(key, label, image) by (split, id), as our own reader gives them."""
    found = {}
    for record in manifest.records():
        rows = read_shard(folder, record)
        for id, *row, image in zip(rows.ids.tolist(), rows.keys, rows.labels.tolist(), rows.images, strict=True):
            found[record.split, id] = (*row, image.tobytes())
    assert len(found) == sum(COUNTS.values())
    return found


def image_of(value: dict | bytes) -> bytes:
    return value["bytes"] if isinstance(value, dict) else value


@ENCODINGS
def test_pandas_reads_the_folder_of_shards(tmp_path, encoding):
    expected = stored(*output(tmp_path, format="parquet", encoding=encoding))
    frame = pd.read_parquet(tmp_path / "data")
    columns = ["split", "id", "key", "label", "image", "width", "height", "format", "crc32c"]
    assert list(frame.columns) == columns
    found = {(row.split, row.id): (row.key, row.label, image_of(row.image)) for row in frame.itertuples()}
    assert found == expected


@ENCODINGS
def test_polars_reads_the_folder_of_shards(tmp_path, encoding):
    import polars

    expected = stored(*output(tmp_path, format="parquet", encoding=encoding))
    rows = polars.read_parquet(tmp_path / "data").rows(named=True)
    assert {(r["split"], r["id"]): (r["key"], r["label"], image_of(r["image"])) for r in rows} == expected


@ENCODINGS
def test_duckdb_reads_the_folder_of_shards(tmp_path, encoding):
    import duckdb

    expected = stored(*output(tmp_path, format="parquet", encoding=encoding))
    image = "image.bytes" if encoding == "jpeg" else "image"
    rows = duckdb.sql(f"SELECT split, id, key, label, {image} FROM '{tmp_path}/data/*.parquet'").fetchall()
    assert {(split, id): rest for split, id, *rest in rows} == {at: list(row) for at, row in expected.items()}


@pytest.mark.parametrize("where", ["", "data"])
def test_datasets_sees_splits_pictures_and_class_names(tmp_path, where, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    expected = stored(*output(tmp_path / "output", format="parquet"))
    loaded = datasets.load_dataset(str(tmp_path / "output" / where), cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in loaded.items()} in (COUNTS, {"train": 12, "validation": 4})
    for rows in loaded.values():
        assert isinstance(rows.features["image"], datasets.Image)
        assert rows.features["label"].names == ["a", "b", "c"]
        for row in rows:
            key, label, image = expected[row["split"], row["id"]]
            assert (row["key"], row["label"]) == (key, label)
            assert np.array_equal(np.asarray(row["image"]), decode_jpeg(image))


def test_datasets_takes_raw_pixels_for_the_bytes_they_are(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    expected = stored(*output(tmp_path / "output", format="parquet", encoding="raw"))
    rows = datasets.load_dataset(str(tmp_path / "output"), cache_dir=str(tmp_path / "cache"))["train"]
    assert rows.features["image"] == datasets.Value("binary")
    assert all(row["image"] == expected["train", row["id"]][2] for row in rows)


def test_our_own_reader_of_hugging_face_sets_sees_pictures_and_class_names(tmp_path):
    expected = stored(*output(tmp_path, format="parquet"))
    source = open_source(IngestSpec(source=str(tmp_path)))
    assert source.class_names == ("a", "b", "c")
    for split, count in COUNTS.items():
        rows = source.splits[split]
        assert rows.num_rows == count
        images = zip(rows["label"].to_pylist(), source.reader.read(rows), strict=True)
        assert sorted(images) == sorted(row[1:] for (of, _), row in expected.items() if of == split)


@ENCODINGS
def test_the_package_tfrecord_reads_records_and_index(tmp_path, encoding):
    from tfrecord.reader import tfrecord_loader

    folder, manifest = output(tmp_path, format="tfrecord", encoding=encoding)
    expected, found = stored(folder, manifest), {}
    for record in manifest.records():
        path = str(tmp_path / record.name)
        for row in tfrecord_loader(path, path + ".idx", shard=(0, 1)):
            key, image = bytes(row["image/filename"]).decode(), bytes(row["image/encoded"])
            found[record.split, row["image/id"].item()] = (key, row["image/class/label"].item(), image)
    assert found == expected


def test_the_package_tfrecord_has_the_same_checksums(tmp_path):
    from tfrecord.writer import TFRecordWriter

    folder, manifest = output(tmp_path, format="tfrecord")
    for record in manifest.records():
        data = folder.read(record.name)
        for offset, size in (map(int, line.split()) for line in folder.read(record.name + ".idx").splitlines()):
            length, example = data[offset : offset + 8], data[offset + 12 : offset + size - 4]
            assert data[offset + 8 : offset + 12] == TFRecordWriter.masked_crc(length)
            assert data[offset + size - 4 : offset + size] == TFRecordWriter.masked_crc(example)
