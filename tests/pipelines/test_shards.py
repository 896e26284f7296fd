"""Shards hold every image once, do not depend on who writes them and when, and never hide damage."""

import io
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipelines import shards
from pipelines.formats import tfrecord
from pipelines.images import decode_jpeg, to_square
from pipelines.manifest import MANIFEST, Manifest
from pipelines.plan import plan_shards
from pipelines.quarantine import QUARANTINE
from pipelines.shard_table import SHARDS, read_written, write_shard_table
from pipelines.shards import finished_shards, read_shard, write_shard
from pipelines.specs import IngestSpec
from pipelines.storage import Folder
from pipelines.stored_order import stored_order
from pipelines.verify import problems_by_file, verify
from tests.memory_source import ingest, jpegs, memory_source

KINDS = pytest.mark.parametrize(
    ("format", "encoding"), [(f, e) for f in ("parquet", "tfrecord") for e in ("jpeg", "raw")]
)


@pytest.fixture(autouse=True)
def _read_for_the_first_time(monkeypatch):
    monkeypatch.setattr(shards, "_checked", set())


def source():
    """13 images, of which those at places 2 and 7 of the listing are damaged; 4 for validation."""
    images = jpegs(13)
    images[2], images[7] = images[2][:-9], b"no image"
    return memory_source({"train": images, "val": jpegs(4, 50)})


def contents(folder: Folder) -> dict[str, bytes]:
    return {entry.name: folder.read(entry.name) for entry in folder.files(recursive=True)}


@KINDS
def test_what_was_odd_but_complete_is_stored_and_counted(tmp_path, format, encoding):
    images = jpegs(9)
    images[1], images[4], images[5] = images[1][:-2], b"\n" + images[4], images[5][:-1]
    folder, manifest = ingest(tmp_path, memory_source({"train": images}), format=format, encoding=encoding)
    assert (manifest.num_rows("train"), manifest.num_quarantined("train")) == (9, 0)
    note = "3 images are complete but odd, and kept: 2 times a JPEG without its end marker, 1 times a JPEG with blanks"
    assert Manifest.load(folder).notes == (f"{note} before its start",)
    _, plain = ingest(tmp_path / "plain", memory_source({"train": jpegs(9)}), format=format, encoding=encoding)
    assert plain.notes == ()
    assert verify(folder) == []


@KINDS
def test_every_image_is_stored_or_set_aside_with_its_reason(tmp_path, format, encoding):
    folder, manifest = ingest(tmp_path, source(), format=format, encoding=encoding, max_bad=0.2)
    order = stored_order(13, 0, "train").tolist()
    seen = set()
    for record in manifest.splits["train"]:
        rows = read_shard(folder, record)
        for id, key, label, image in zip(rows.ids, rows.keys, rows.labels, rows.images, strict=True):
            place = order[id]
            assert (key, label) == (f"train/{place}.jpg", place % 3)
            expected = to_square(jpegs(13)[place], 24, 10**6).pixels_HWC
            if encoding == "raw":
                assert np.array_equal(image, expected)
            else:
                assert np.abs(decode_jpeg(image) - expected.astype(int)).mean() < 6
            seen.add(place)
        assert rows.widths[0] == 40 + order[rows.ids[0]] % 7
    assert seen == set(range(13)) - {2, 7}
    assert (manifest.num_listed("train"), manifest.num_rows("train"), manifest.num_quarantined("train")) == (13, 11, 2)
    bad = pq.read_table(tmp_path / QUARANTINE).to_pylist()
    assert {row["key"]: row["file"] for row in bad} == {"train/2.jpg": "archive0", "train/7.jpg": "archive1"}
    for row in bad:
        assert (order[row["id"]], row["offset"], row["split"]) == (row["offset"], row["offset"], "train")
    assert {row["key"]: row["reason"][:30] for row in bad} == {
        "train/2.jpg": "Premature end of JPEG file",
        "train/7.jpg": "no image of a known format; it",
    }
    assert verify(folder) == []


@KINDS
def test_bytes_do_not_depend_on_the_order_of_work_or_on_chunks(tmp_path, format, encoding, monkeypatch):
    options = {"format": format, "encoding": encoding, "max_bad": 0.2}
    one, _ = ingest(tmp_path / "one", source(), **options)
    monkeypatch.setattr(shards, "_MAX_CHUNK_BYTES", 24 * 24 * 3 * 2)
    two = Folder.at(tmp_path / "two")
    tasks = list(plan_shards(source(), IngestSpec(source="x", size=24, rows_per_shard=5, **options), two))
    for task in random.Random(1).sample(tasks, len(tasks)):
        write_shard(task)
    parts = {name: content for name, content in contents(one).items() if name not in (MANIFEST, QUARANTINE, SHARDS)}
    assert parts == contents(two)


def test_a_rerun_redoes_only_what_is_missing_and_gives_the_same_bytes(tmp_path, monkeypatch):
    options = {"max_bad": 0.2}
    folder, manifest = ingest(tmp_path, source(), **options)
    before = contents(folder)
    names = [record.name for record in manifest.splits["train"]]
    (tmp_path / names[0]).unlink()
    (tmp_path / names[1]).write_bytes(before[names[1]][:-1])
    (tmp_path / (names[2] + ".idx")).unlink()
    next(tmp_path.glob("parts/val-*.json")).unlink()
    plan = plan_shards(source(), IngestSpec(source="x", size=24, rows_per_shard=5, **options), folder)
    assert finished_shards(folder, plan.origin) == {}
    (tmp_path / (names[2] + ".idx")).write_bytes(before[names[2] + ".idx"])
    assert list(finished_shards(folder, plan.origin)) == names[2:]

    written = []
    publish = Folder.publish
    monkeypatch.setattr(
        Folder, "publish", lambda self, name, write: (written.append(name), publish(self, name, write))[1]
    )
    again, manifest_again = ingest(tmp_path, source(), **options)
    shards_written = [name for name in written if name.endswith(".tfrecord")]
    assert shards_written == [*names[:2], manifest.splits["val"][0].name]
    assert contents(again) == before
    assert manifest_again.digest == manifest.digest


def test_what_is_finished_is_known_from_a_listing_and_the_records_alone(tmp_path, monkeypatch):
    folder, manifest = ingest(tmp_path, source(), max_bad=0.2)
    plan = plan_shards(source(), IngestSpec(source="x", size=24, rows_per_shard=5), folder)
    looked_at = []
    monkeypatch.setattr(Folder, "entry", lambda self, name: looked_at.append(name))
    assert list(finished_shards(folder, plan.origin)) == [record.name for record in manifest.records()]
    assert looked_at == []


def test_shards_of_another_configuration_are_not_taken_for_finished(tmp_path):
    folder, _ = ingest(tmp_path, memory_source({"train": jpegs(5)}))
    plan = plan_shards(memory_source({"train": jpegs(5)}), IngestSpec(source="x", size=24, quality=80), folder)
    assert finished_shards(folder, plan.origin) == {}


def test_a_shard_of_nothing_but_damage_is_empty_and_balances(tmp_path):
    for format in ("parquet", "tfrecord"):
        images = [b"no image"] * 5 + jpegs(5)
        folder, manifest = ingest(
            tmp_path / format, memory_source({"train": images}), rows_per_shard=1, format=format, max_bad=1
        )
        assert sorted(record.rows for record in manifest.splits["train"]) == [0] * 5 + [1] * 5
        assert sum(len(read_shard(folder, record)) for record in manifest.splits["train"]) == 5
        assert verify(folder) == []


_KILLER = """
import os, signal, sys, time
import torch
from pipelines.images import to_square
from pipelines.plan import plan_shards
from pipelines.shards import write_shard
from pipelines.specs import IngestSpec
from pipelines.storage import Folder
from tests.memory_source import jpegs, memory_source
spec = IngestSpec(source="memory", size=24, rows_per_shard=40)

def start(folder):
    tasks = list(plan_shards(memory_source({"train": jpegs(400)}), spec, Folder.at(folder)))
    child = os.fork()
    if child == 0:
        for task in tasks:
            write_shard(task)
        os._exit(0)
    return child

began = time.perf_counter()
os.waitpid(start(sys.argv[1] + "-timed"), 0)
whole_s = time.perf_counter() - began
for line in sys.stdin:
    child = start(sys.argv[1])
    time.sleep(float(line) * whole_s)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    print("killed", flush=True)
"""


@pytest.mark.slow
def test_killed_at_any_moment_and_run_again_gives_the_same_bytes(tmp_path):
    """Twenty seeded moments, kill -9 each, in one folder, each within an eighth of the whole; then to the end."""
    whole, manifest = ingest(tmp_path / "whole", memory_source({"train": jpegs(400)}), rows_per_shard=40)
    folder = Folder.at(tmp_path / "killed")
    moments, seen = random.Random(0), []
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    repository = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", _KILLER, folder.url], cwd=repository, **pipes) as killer:
        for _ in range(20):
            print(moments.uniform(0, 0.12), file=killer.stdin, flush=True)
            assert killer.stdout.readline() == "killed\n"
            now = contents(folder)
            assert all(content == whole.read(name) for name, content in now.items())
            seen.append(len(now))
    assert len(set(seen)) >= 4, seen  # it was killed in the midst of its work
    _, again = ingest(tmp_path / "killed", memory_source({"train": jpegs(400)}), rows_per_shard=40)
    folder.remove_stale_temporaries()
    assert contents(folder) == contents(whole)
    assert again.digest == manifest.digest


# Damage


@KINDS
def test_a_damaged_shard_names_file_and_row(tmp_path, format, encoding):
    folder, manifest = ingest(tmp_path, memory_source({"train": jpegs(12)}), format=format, encoding=encoding)
    record = manifest.splits["train"][1]
    image = read_shard(folder, record).images[3].tobytes()
    shards._checked.clear()
    content = bytearray(folder.read(record.name))
    content[content.index(image) + len(image) // 2] ^= 4
    (tmp_path / record.name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{record.name}: row 3 fails its checksum; run `alexnet verify`"):
        read_shard(folder, record)
    assert [problem.split(":")[0] for problem in verify(folder)] == [folder.where(record.name)]


@pytest.mark.parametrize("format", ["parquet", "tfrecord"])
def test_a_truncated_or_missing_shard_is_named(tmp_path, format):
    folder, manifest = ingest(tmp_path, memory_source({"train": jpegs(12)}), format=format)
    first, second, third = manifest.splits["train"]
    (tmp_path / first.name).write_bytes(folder.read(first.name)[:-100])
    (tmp_path / second.name).unlink()
    (tmp_path / third.name).write_bytes(b"")
    problems = verify(folder)
    assert [name in problem for name, problem in zip((first.name, second.name, third.name), problems, strict=True)] == [
        True
    ] * 3
    assert ("row 4 is cut off" if format == "tfrecord" else "footer") in problems[0]
    for record in (first, second, third):
        with pytest.raises((ValueError, FileNotFoundError), match=record.name):
            read_shard(folder, record)


def test_a_tfrecord_cut_between_records_is_named(tmp_path):
    folder, manifest = ingest(tmp_path, memory_source({"train": jpegs(5)}))
    (record,) = manifest.splits["train"]
    content = folder.read(record.name)
    last = int(tfrecord.index(memoryview(content)).splitlines()[-1].split()[0])
    (tmp_path / record.name).write_bytes(content[:last])
    with pytest.raises(ValueError, match=f"{record.name}: {last} bytes that are not those of the manifest"):
        read_shard(folder, record)


def test_verify_finds_a_wrong_index_and_a_wrong_quarantine_list(tmp_path):
    folder, manifest = ingest(tmp_path, source(), max_bad=0.2)
    index = manifest.splits["train"][0].name + ".idx"
    (tmp_path / index).write_text("0 1\n")
    (tmp_path / QUARANTINE).unlink()
    problems = verify(folder)
    assert [index in problems[0], QUARANTINE in problems[1], len(problems)] == [True, True, 2]


def test_verify_says_the_same_in_whatever_order_tasks_end(tmp_path):
    folder, manifest = ingest(tmp_path, source(), max_bad=0.2)
    for record in manifest.splits["train"]:
        folder.delete(record.name)
    done = []

    def backwards(function, items):
        for item in reversed(list(items)):
            done.append(item.name)
            yield function(item)

    assert problems_by_file(folder, backwards) == problems_by_file(folder)
    assert list(problems_by_file(folder, backwards)) == [record.name for record in manifest.splits["train"]]
    assert len(done) == 8


def test_verify_finds_records_that_do_not_fit_their_shard(tmp_path):
    folder, manifest = ingest(tmp_path, source(), max_bad=0.2)
    first, second, third, *others = read_written(folder)
    edited = [replace(first, labels=second.labels), second, replace(third, first_id=third.first_id + 1)]
    write_shard_table(folder, [*edited, *others])
    replace(manifest, splits={**manifest.splits, "train": tuple(shard.record for shard in edited)}).save(folder)
    assert [problem.rpartition("/")[2] for problem in verify(folder)] == [
        f"{Path(first.name).name}: the labels are not those of the manifest",
        f"{Path(third.name).name}: the ids are not those of the manifest",
    ]


def test_an_image_that_the_reader_cannot_give_stops_the_shard(tmp_path):
    """An unreadable source is no damaged image: nothing is written, nothing set aside."""

    class Broken:
        def read(self, rows):
            raise OSError("the archive is gone")

    broken = memory_source({"train": jpegs(5)})
    object.__setattr__(broken, "reader", Broken())
    with pytest.raises(OSError, match="the archive is gone"):
        ingest(tmp_path, broken)
    assert contents(Folder.at(tmp_path)) == {}


def test_shards_in_an_object_store_are_those_of_a_disk(tmp_path, s3_folder):
    local, manifest = ingest(tmp_path, source(), max_bad=0.2)
    remote, remote_manifest = ingest(s3_folder, source(), max_bad=0.2)
    assert remote_manifest.digest == manifest.digest
    assert contents(remote) == contents(local)
    assert verify(remote) == []
    assert (
        len(
            finished_shards(
                remote, plan_shards(source(), IngestSpec(source="x", size=24, rows_per_shard=5), remote).origin
            )
        )
        == 4
    )


def test_a_file_that_counts_is_what_is_written():
    file = io.BytesIO()
    hashing = shards.HashingFile(file)
    assert hashing.write(b"abc") == 3
    assert (hashing.tell(), hashing.num_bytes, file.getvalue()) == (3, 3, b"abc")
