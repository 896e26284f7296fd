"""Every layout in an object store is the same source as on disk: same rows, same bytes, same fingerprint."""

from pathlib import Path

import builders
import numpy as np
import pytest

from pipelines.sources.catalog import open_source
from pipelines.specs import IngestSpec
from pipelines.storage import Folder

pytestmark = pytest.mark.slow


def write_folder(folder: Path) -> str:
    builders.write_files(folder, builders.class_folders("train/", "val/", images=12))
    return ""


def write_tar(folder: Path) -> str:
    builders.write_files(folder, {"set.tar": builders.tar_bytes(builders.class_folders("train/", "val/", images=12))})
    return "set.tar"


def write_zip(folder: Path) -> str:
    builders.write_files(folder, {"set.zip": builders.zip_bytes(builders.class_folders("train/", "val/", images=12))})
    return "set.zip"


def write_tiny_imagenet(folder: Path) -> str:
    builders.write_files(folder, builders.tiny_imagenet()[0])
    return ""


def write_webdataset(folder: Path) -> str:
    samples = {f"{i}": {"cls": f"{i % 3}"} for i in range(9)}
    builders.webdataset(folder, {"train-0.tar": samples, "train-1.tar": samples, "val-0.tar": samples})
    return ""


def write_ilsvrc(folder: Path) -> str:
    builders.ilsvrc(folder, 2010, num_classes=6, num_ancestors=3)
    return ""


def write_unpacked_val(folder: Path) -> str:
    builders.ilsvrc(folder, 2012, num_classes=6, num_ancestors=3)
    val = folder / "ILSVRC2012_img_val.tar"
    builders.write_files(folder / "val", builders.tar_members(val.read_bytes()))
    val.unlink()
    return ""


def write_tar_of_class_tars(folder: Path) -> str:
    write_synset_tars(folder / "parts")
    tars = {path.name: path.read_bytes() for path in (folder / "parts").iterdir()}
    builders.write_files(folder, {"whole.tar": builders.tar_bytes(tars)})
    return "whole.tar"


def write_synset_tars(folder: Path) -> str:
    tars = {f"n0{i}000000.tar": builders.tar_bytes({f"{i}.JPEG": builders.jpeg(i)}) for i in range(5)}
    builders.write_files(folder, tars)
    return ""


def write_kaggle(folder: Path) -> str:
    builders.kaggle(folder)
    return ""


def write_parquet(folder: Path) -> str:
    builders.huggingface(folder / "data", {"train-00000-of-00001.parquet": [0, 1, 1, 0], "test.parquet": [1]})
    return ""


def write_cifar(folder: Path) -> str:
    archive = builders.gzipped(builders.tar_bytes(builders.cifar_files()))
    builders.write_files(folder, {"cifar-10-python.tar.gz": archive})
    return "cifar-10-python.tar.gz"


@pytest.mark.parametrize(
    "write",
    [
        write_folder,
        write_tar,
        write_zip,
        write_tiny_imagenet,
        write_webdataset,
        write_ilsvrc,
        write_synset_tars,
        write_unpacked_val,
        write_tar_of_class_tars,
        write_kaggle,
        write_parquet,
        write_cifar,
    ],
)
def test_a_source_is_the_same_from_disk_and_from_an_object_store(tmp_path, s3_folder, write):
    name = write(tmp_path)
    remote = Folder.at(s3_folder)
    for entry in Folder.at(tmp_path).files(recursive=True):
        data = (tmp_path / entry.name).read_bytes()
        remote.publish(entry.name, lambda file, data=data: file.write(data))
    here = open_source(IngestSpec(source=str(tmp_path / name)))
    there = open_source(IngestSpec(source=remote.child(name).url if name else remote.url), tmp_path / "cache")
    assert there.kind == here.kind
    assert there.fingerprint == here.fingerprint
    assert there.class_names == here.class_names
    assert list(there.splits) == list(here.splits)
    for split, rows in here.splits.items():
        assert there.splits[split].equals(rows)
        order = np.random.default_rng(0).permutation(rows.num_rows)
        assert list(there.reader.read(rows.take(order))) == list(here.reader.read(rows.take(order)))


def test_a_whole_bucket_is_a_source(s3_folder):
    bucket = Folder.at(s3_folder).split()[0].split()[0]
    for path, data in builders.class_folders().items():
        bucket.publish(path, lambda file, data=data: file.write(data))
    assert open_source(IngestSpec(source=bucket.url)).class_names == ("cat", "dog")


def test_what_is_not_there_is_said_without_the_options_of_the_url(s3_folder):
    with pytest.raises(ValueError, match=r"no file or folder s3://[^?]*/gone;"):
        open_source(IngestSpec(source=Folder.at(s3_folder).child("gone").url))
    no_bucket = s3_folder.replace("s3://bucket", "s3://no-bucket")
    with pytest.raises(ValueError, match=r"^ingest.source: [^?\n]*$"):
        open_source(IngestSpec(source=no_bucket))


def test_an_archive_that_became_shorter_is_named(s3_folder):
    folder = Folder.at(s3_folder)
    data = builders.tar_bytes(builders.class_folders(images=8))
    folder.publish("set.tar", lambda file: file.write(data))
    source = open_source(IngestSpec(source=folder.child("set.tar").url, val_fraction=0))
    folder.publish("set.tar", lambda file: file.write(data[:3000]))
    with pytest.raises(ValueError, match=r"set.tar ends inside the image at offset \d+"):
        list(source.reader.read(source.splits["train"]))


def test_splits_in_archives_are_read_by_blocks_and_those_in_folders_file_by_file(tmp_path, s3_folder):
    write_unpacked_val(tmp_path)
    remote = Folder.at(s3_folder)
    for entry in Folder.at(tmp_path).files(recursive=True):
        remote.write(entry.name, (tmp_path / entry.name).read_bytes())
    source = open_source(IngestSpec(source=remote.url))
    assert source.reader.blocks(source.splits["train"]).tolist() == [0] * 18
    assert source.reader.blocks(source.splits["val"]) is None
