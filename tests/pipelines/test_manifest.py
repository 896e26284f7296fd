"""The manifest accounts for every listed image and says what its readers rely on."""

import dataclasses
import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import simplejpeg
from builders import tar_bytes

from pipelines.libraries import libraries
from pipelines.manifest import MANIFEST, Manifest, write_manifest
from pipelines.plan import plan_shards
from pipelines.quarantine import QUARANTINE, refuse_damaged, refuse_damaged_parts
from pipelines.shard_record import Quarantined, WrittenShard, pack_label_counts
from pipelines.shard_table import SHARDS, read_written, write_shard_table
from pipelines.shards import write_shard
from pipelines.sources.catalog import open_source
from pipelines.specs import IngestSpec
from pipelines.storage import Folder
from pipelines.verify import verify
from tests.memory_source import ingest, jpegs, memory_source


def source(bad: int = 0):
    return memory_source({"train": [b"no image"] * bad + jpegs(13 - bad), "val": jpegs(4, 50)})


def test_a_manifest_read_is_the_manifest_written(tmp_path):
    folder, manifest = ingest(tmp_path, source(bad=1), max_bad=0.5)
    again = Manifest.load(folder)
    assert again == manifest
    assert again.digest == manifest.digest
    assert again.libraries == manifest.libraries == {libraries("tfrecord"): 4}
    assert (again.format, again.encoding, again.size_px, again.num_classes) == ("tfrecord", "jpeg", 24, 3)
    assert list(again.splits) == ["train", "val"]
    assert again.label_counts("val") == {0: 2, 1: 1, 2: 1}


def test_the_totals_balance(tmp_path):
    folder, _ = ingest(tmp_path, source(bad=3), max_bad=0.5)
    train = json.loads(folder.read(MANIFEST))["splits"]["train"]
    assert (train["listed"], train["stored"], train["quarantined"], train["shards"]) == (13, 10, 3, 3)
    assert train["bytes"] == sum(path.stat().st_size for path in tmp_path.glob("data/train-*.tfrecord"))
    assert sum(train["labels"].values()) == 10


@pytest.mark.parametrize("lost", ["a shard", "a row", "a quarantined image"])
def test_a_manifest_that_does_not_balance_is_never_written(tmp_path, lost):
    folder, spec = Folder.at(tmp_path), IngestSpec(source="memory", size=24, rows_per_shard=5, max_bad=0.5)
    records = [write_shard(task) for task in plan_shards(source(bad=3), spec, folder)]
    bad = next(i for i, record in enumerate(records) if record.quarantined)
    if lost == "a shard":
        del records[1]
    elif lost == "a row":
        records[0] = dataclasses.replace(records[0], rows=records[0].rows - 1)
    else:
        records[bad] = dataclasses.replace(records[bad], quarantined=())
    with pytest.raises(AssertionError):
        write_manifest(folder, source(bad=3), spec, records)
    assert folder.size(MANIFEST) is None


def test_the_digest_covers_content_and_neither_places_nor_versions(tmp_path):
    _, manifest = ingest(tmp_path / "a", source())
    assert ingest(tmp_path / "b", source(), source="elsewhere", max_bad=0.3)[1].digest == manifest.digest
    assert dataclasses.replace(manifest, libraries={}).digest == manifest.digest
    assert dataclasses.replace(manifest, class_names=("x", "y", "z")).digest != manifest.digest
    assert ingest(tmp_path / "c", source(), seed=1)[1].digest != manifest.digest
    assert ingest(tmp_path / "d", source(), quality=80)[1].digest != manifest.digest
    assert str(tmp_path) not in (tmp_path / "a" / MANIFEST).read_text()


def test_too_many_damaged_images_stop_with_counts_reasons_and_the_list(tmp_path):
    with pytest.raises(ValueError, match="3 of 17 images are damaged, more than ingest.max_bad=0.1") as error:
        ingest(tmp_path, source(bad=3), max_bad=0.1)
    assert re.search(r"train/\d.jpg: no image of a known format", str(error.value))
    assert str(tmp_path / QUARANTINE) in str(error.value)
    assert (tmp_path / QUARANTINE).exists()
    assert not (tmp_path / MANIFEST).exists()


def test_the_stage_may_stop_once_too_many_are_certain(tmp_path):
    folder, manifest = ingest(tmp_path, source(bad=3), max_bad=0.5)
    first = [record for record in manifest.records() if record.quarantined][:1]
    bad = len(first[0].quarantined)
    refuse_damaged(folder, first, listed=10 * bad, max_bad=0.1)
    with pytest.raises(ValueError, match=f"{bad} of {10 * bad - 1} images are damaged"):
        refuse_damaged(folder, first, listed=10 * bad - 1, max_bad=0.1)


def split_by_class(split: str, images: int, damaged: int, label: int) -> tuple[WrittenShard, ...]:
    """One shard of a class, some of whose images are set aside."""
    bad = tuple(Quarantined(i, f"{split}/{i}.jpg", label, "", 0, "cut") for i in range(damaged))
    left = images - damaged
    labels = f"{label}:{left}" if left else ""
    return (WrittenShard(f"{split}-{label}", split, 0, images, left, 0, "", bad, labels=labels, libraries=""),)


@pytest.mark.parametrize(
    ("records", "message"),
    [
        (
            (("train", 1000, 0, 0), ("val", 50, 10, 0)),
            "10 of 50 images of val are damaged, more than",
        ),
        ((("train", 9000, 0, 0), ("train", 100, 2, 1)), r"2 of 100 images of 'dog' in train are damaged"),
        ((("train", 9000, 0, 0), ("val", 990, 0, 0), ("val", 5, 5, 1)), r"5 of 5 images of 'dog' in val"),
        ((("train", 9000, 0, 0), ("val", 1000, 0, 0), ("val", 50, 1, 1)), None),  # one of a class may be
        ((("train", 1000, 10, 0),), None),
    ],
)
def test_no_split_and_no_class_loses_more_than_max_bad(tmp_path, records, message):
    made = [record for part in records for record in split_by_class(*part)]
    if message is None:
        refuse_damaged_parts(Folder.at(tmp_path), made, ("cat", "dog"), 0.01)
        return
    with pytest.raises(ValueError, match=message):
        refuse_damaged_parts(Folder.at(tmp_path), made, ("cat", "dog"), 0.01)
    assert (tmp_path / QUARANTINE).exists()


def test_max_bad_is_the_largest_fraction_allowed(tmp_path):
    assert (
        ingest(tmp_path / "a", memory_source({"train": [b"", *jpegs(9)]}), max_bad=0.1)[1].num_quarantined("train") == 1
    )
    with pytest.raises(ValueError, match="1 of 10"):
        ingest(tmp_path / "b", memory_source({"train": [b"", *jpegs(9)]}), max_bad=0.0999)


def test_a_folder_without_manifest_says_what_to_do(tmp_path):
    with pytest.raises(ValueError, match=r"holds no _manifest.json.*run it"):
        Manifest.load(Folder.at(tmp_path))


def test_an_edited_manifest_is_refused(tmp_path):
    folder, _ = ingest(tmp_path, source())
    path = tmp_path / MANIFEST
    path.write_text(path.read_text().replace('"size_px": 24', '"size_px": 32'))
    with pytest.raises(ValueError, match="was changed after it was written"):
        Manifest.load(folder)


def test_a_table_of_shards_that_is_not_the_manifest_s_is_refused(tmp_path):
    folder, _ = ingest(tmp_path, source())
    first, second, *others = read_written(folder)
    swapped = [dataclasses.replace(a, sha256=b.sha256) for a, b in ((first, second), (second, first))]
    write_shard_table(folder, [*swapped, *others])
    with pytest.raises(ValueError, match="was changed after it was written"):
        Manifest.load(folder)
    folder.write(SHARDS, folder.read(SHARDS)[:-9])
    with pytest.raises(ValueError, match=r"_shards.parquet cannot be read .*alexnet verify"):
        Manifest.load(folder)
    folder.delete(SHARDS)
    assert "_shards.parquet cannot be read" in verify(folder)[0]


def test_shards_of_the_former_layout_are_said_to_be_and_of_a_later_one_too(tmp_path):
    folder, _ = ingest(tmp_path, source())
    document = folder.read(MANIFEST)
    folder.write(MANIFEST, document.replace(b'"layout": 2', b'"layout": 3'))
    with pytest.raises(ValueError, match="is of layout 3, this code reads 2: run `alexnet ingest`"):
        Manifest.load(folder)
    folder.delete(MANIFEST)
    folder.write("manifest.json", document.replace(b'"layout": 2', b'"layout": 1'))
    with pytest.raises(ValueError, match="holds shards of the former layout, which is not read: run `alexnet ingest`"):
        Manifest.load(folder)


def test_others_read_label_counts_as_maps(tmp_path):
    folder, manifest = ingest(tmp_path, source(bad=1), max_bad=0.5)
    table = pq.read_table(tmp_path / SHARDS).to_pylist()
    assert [dict(row["labels"]) for row in table] == [shard.label_counts for shard in read_written(folder)]
    assert [row["name"] for row in table] == [record.name for record in manifest.records()]


def test_the_manifest_counts_the_libraries_that_wrote_its_shards_and_its_digest_leaves_them_out(tmp_path):
    folder, manifest = ingest(tmp_path, source())
    assert libraries("parquet") == f"{libraries('tfrecord')}, pyarrow {pa.__version__}"
    assert f"simplejpeg {simplejpeg.__version__}" in libraries("tfrecord")
    first, *others = read_written(folder)
    older = [dataclasses.replace(first, libraries="simplejpeg 1.8.0"), *others]
    again = write_manifest(folder, source(), IngestSpec(source="memory", size=24, rows_per_shard=5), older)
    assert again.libraries == {"simplejpeg 1.8.0": 1, libraries("tfrecord"): 3}
    assert again.digest == manifest.digest


def test_label_counts_survive_packing(tmp_path):
    _, manifest = ingest(tmp_path, source())
    assert pack_label_counts([3, 1, 3, -1]) == "-1:1 1:1 3:2"
    assert sum(sum(manifest.label_counts(split).values()) for split in manifest.splits) == 17


def test_the_quarantine_list_is_that_of_the_manifest_with_damage_in_three_splits(tmp_path):
    splits = {name: [b"no image", *jpegs(7, seed)] for name, seed in (("train", 0), ("val", 20), ("test", 40))}
    folder, manifest = ingest(tmp_path, memory_source(splits), max_bad=0.5)
    assert [manifest.num_quarantined(split) for split in manifest.splits] == [1, 1, 1]
    assert verify(folder) == []


def test_the_quarantine_list_says_which_member_of_which_archive_and_why(tmp_path):
    files = {f"{name}/{i}.jpg": jpegs(1, i)[0] for name in "ab" for i in range(4)}
    files["b/2.jpg"] = b"no image"
    archive = tmp_path / "images.tar"
    archive.write_bytes(tar_bytes(files))
    folder, _ = ingest(tmp_path / "shards", open_source(IngestSpec(source=str(archive), val_fraction=0)), max_bad=0.5)
    (row,) = pq.read_table(tmp_path / "shards" / QUARANTINE).to_pylist()
    assert (row["key"], row["label"], row["split"]) == ("b/2.jpg", 1, "train")
    assert Path(row["file"]).name == "images.tar"
    assert archive.read_bytes()[row["offset"] :].startswith(b"no image")
    assert "no image of a known format" in row["reason"]


def test_shards_are_in_order_where_their_numbers_outgrow_five_digits(tmp_path):
    """Sorted by name, number 100000 would come before number 10001."""
    _, manifest = ingest(tmp_path, memory_source({"train": jpegs(10)}))
    first, second = read_written(Folder.at(tmp_path))
    renamed = [
        dataclasses.replace(second, name="train-100000-of-100001.tfrecord"),
        dataclasses.replace(first, name="train-99999-of-100001.tfrecord"),
    ]
    spec = IngestSpec(source="memory", size=24, rows_per_shard=5)
    again = write_manifest(Folder.at(tmp_path), memory_source({"train": jpegs(10)}), spec, renamed)
    assert [record.first_id for record in again.splits["train"]] == [0, 5]
