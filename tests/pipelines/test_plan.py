"""The order of a data set and its cut into shards are arithmetic: functions of sizes and seed."""

import pickle
import tarfile

import numpy as np
import pyarrow as pa
import pytest

from pipelines.plan import plan_shards, predicted_bytes
from pipelines.sources.source import SCHEMA, Source
from pipelines.specs import IngestSpec
from pipelines.storage import Folder
from pipelines.stored_order import stored_order
from tests.memory_source import ingest, jpegs, memory_source


def plan(sizes: dict[str, int], **options):
    source = memory_source({split: [b"image"] * size for split, size in sizes.items()})
    return plan_shards(source, IngestSpec(**{"source": "memory", **options}), Folder.at("nowhere"))


@pytest.mark.parametrize("num_rows", [1, 4, 5, 6, 10, 23])
@pytest.mark.parametrize("limit", [0, 1, 7, 100])
def test_shards_cover_every_id_once(num_rows, limit):
    tasks = list(plan({"train": num_rows, "val": 3}, rows_per_shard=5, limit=limit))
    for split, count in (("train", num_rows), ("val", 3)):
        parts = [task for task in tasks if task.split == split]
        expected = min(count, limit or count)
        ids = [task.first_id + i for task in parts for i in range(len(task.rows))]
        assert ids == list(range(expected))
        keys = [key for task in parts for key in task.rows["key"].to_pylist()]
        order = stored_order(count, 0, split)
        assert keys == [f"{split}/{i}.jpg" for i in order[:expected]]
        assert [task.name for task in parts] == [
            f"data/{split}-{i:05d}-of-{len(parts):05d}.tfrecord" for i in range(len(parts))
        ]


def test_the_cut_is_the_same_for_every_format_and_encoding():
    plans = [
        plan({"train": 23}, rows_per_shard=5, format=f, encoding=e)
        for f in ("parquet", "tfrecord")
        for e in ("jpeg", "raw")
    ]
    for other in plans[1:]:
        for a, b in zip(plans[0], other, strict=True):
            assert (a.first_id, a.rows) == (b.first_id, b.rows)


def test_a_limit_takes_the_first_of_the_whole_order():
    limited, whole = plan({"train": 50}, limit=7), plan({"train": 50})
    assert limited[0].rows["key"].to_pylist() == whole[0].rows["key"].to_pylist()[:7]
    assert limited.num_rows == 7


def test_the_origin_tells_sources_and_contents_apart_but_not_their_places():
    origin = plan({"train": 5}).origin
    assert plan({"train": 5}, source="elsewhere", max_bad=0.5, check_md5=True).origin == origin
    for other in ({"seed": 1}, {"size": 32}, {"quality": 94}, {"encoding": "raw"}, {"rows_per_shard": 9}, {"limit": 3}):
        assert plan({"train": 5}, **other).origin != origin


def test_tasks_travel_light():
    """A task of a source of many files names its own only."""
    rows = 50_000
    files = pa.array([f"folder/file-{i:09d}.jpg" for i in range(rows)]).dictionary_encode()
    numbers = pa.array(np.arange(rows))
    table = pa.table([files.cast(pa.string()), numbers.cast(pa.int32()), files, numbers, numbers], schema=SCHEMA)
    source = Source("folder", "0" * 64, ("a",), ("a",), {"train": table}, None)
    task = plan_shards(source, IngestSpec(source="x"), Folder.at("nowhere"))[3]
    assert len(task.rows) == 1024
    assert len(pickle.dumps(task)) < 200 * 1024


@pytest.mark.parametrize("options", [{"encoding": "raw"}, {"quality": 95}, {"quality": 75}])
def test_predicted_bytes_are_near_and_not_too_few(tmp_path, options):
    source = memory_source({"train": jpegs(30)})
    options = {"size": 64, **options}
    _, manifest = ingest(tmp_path, source, **options)
    predicted = predicted_bytes(30, IngestSpec(source="memory", **options))
    assert manifest.num_bytes("train") <= predicted <= 4 * manifest.num_bytes("train")


def test_bytes_predicted_for_photographs_are_near(tmp_path, real_data):
    with tarfile.open(real_data / "imagenet-sample-500.tar") as archive:
        images = [archive.extractfile(member).read() for member in archive if member.isfile()][::5]
    _, manifest = ingest(tmp_path, memory_source({"train": images}), size=256, rows_per_shard=100)
    assert 1 <= predicted_bytes(100, IngestSpec(source="memory")) / manifest.num_bytes("train") <= 1.4
