"""A source is known by some of its contents, and files that are replaced show in what is kept of their times."""

import os
import shutil
import time
from pathlib import Path

import builders
import pytest

from pipelines.sources.catalog import open_source
from pipelines.sources.contents import files_now
from pipelines.specs import IngestSpec
from pipelines.storage import Folder


def write_folder(folder: Path) -> tuple[Path, Path]:
    builders.write_files(folder / "images", even(builders.class_folders(images=5)))
    return folder / "images", folder / "images"


def write_tar(folder: Path) -> tuple[Path, Path]:
    files = even(builders.class_folders(images=5))
    builders.write_files(folder, {"set.tar": builders.tar_bytes(files)})
    return folder / "set.tar", folder / "set.tar"


def write_synset_tars(folder: Path) -> tuple[Path, Path]:
    tars = {f"n0{i:02d}00000.tar": builders.tar_bytes(even({"1.JPEG": builders.jpeg(i)})) for i in range(20)}
    builders.write_files(folder / "tars", tars)
    return folder / "tars", folder / "tars" / "n00700000.tar"


def write_parquet(folder: Path) -> tuple[Path, Path]:
    builders.huggingface(folder / "data", {"train-00000-of-00001.parquet": [0, 1, 1, 0]})
    return folder / "data", folder / "data" / "train-00000-of-00001.parquet"


def write_cifar(folder: Path) -> tuple[Path, Path]:
    builders.write_files(folder, builders.cifar_files())
    return folder / "cifar-10-batches-py", folder / "cifar-10-batches-py" / "data_batch_1"


def write_splits(folder: Path) -> tuple[Path, Path]:
    builders.write_files(folder / "splits" / "val", even(builders.class_folders(images=5)))
    write_tar(folder)
    (folder / "set.tar").rename(folder / "splits" / "train.tar")
    return folder / "splits", folder / "splits" / "val"


WRITERS = [write_splits, write_folder, write_tar, write_synset_tars, write_parquet, write_cifar]


def even(files: dict[str, bytes]) -> dict[str, bytes]:
    """All as long as the longest."""
    size = max(map(len, files.values()))
    return {name: data + bytes(size - len(data)) for name, data in files.items()}


def opened(source: Path):
    return open_source(IngestSpec(source=str(source), val_fraction=0))


def swap(a: Path, b: Path) -> None:
    """The contents of two files of one size, whose times stay as they are."""
    times = [(path.stat().st_atime_ns, path.stat().st_mtime_ns) for path in (a, b)]
    contents = [path.read_bytes() for path in (a, b)]
    for path, content, ns in zip((a, b), reversed(contents), times, strict=True):
        path.write_bytes(content)
        os.utime(path, ns=ns)


def test_swapped_contents_are_another_source(tmp_path):
    source, _ = write_folder(tmp_path)
    before = opened(source)
    swap(source / "cat" / "cat_1.jpg", source / "dog" / "dog_1.jpg")
    after = opened(source)
    assert after.splits["train"].equals(before.splits["train"])
    assert after.fingerprint != before.fingerprint
    swap(source / "cat" / "cat_1.jpg", source / "dog" / "dog_1.jpg")
    assert opened(source).fingerprint == before.fingerprint


def test_of_many_images_some_are_looked_at_in_every_part(tmp_path):
    """Two halves of 200 that were swapped as wholes; and where it lies is no part of what a source is."""
    images = {f"{name}/{i:03d}.jpg": bytes([i, len(name)]) * 40 for name in ("a", "bb") for i in range(200)}
    builders.write_files(tmp_path / "one", images)
    names = {"a": "bb", "bb": "a"}
    swapped = {f"{names[path.split('/')[0]]}/{path.split('/')[1]}": data for path, data in images.items()}
    builders.write_files(tmp_path / "two", swapped)
    shutil.copytree(tmp_path / "one", tmp_path / "copy")
    fingerprints = [opened(tmp_path / name).fingerprint for name in ("one", "two", "copy")]
    assert fingerprints[0] != fingerprints[1]
    assert fingerprints[0] == fingerprints[2]


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("how", ["rewritten", "replaced by a copy of its times"])
def test_a_file_that_is_replaced_by_one_of_its_size_is_seen(tmp_path, write, how):
    source, file = write(tmp_path)
    listed = opened(source)
    before = files_now(listed)
    assert before.digests
    assert before.changed(files_now(listed)) == []
    file = file if file.is_file() else next(file.rglob("*.jpg"))
    if how == "rewritten":
        file.write_bytes(bytes(file.stat().st_size))
    else:
        shutil.copy2(file, tmp_path / "copy")
        (tmp_path / "copy").rename(file)
    (changed,) = before.changed(files_now(listed))
    assert changed.startswith(("train in ", "val in "))
    assert (files_now(listed).newest_ns > before.newest_ns) == (how == "rewritten")


def test_an_image_of_another_size_than_listed_is_an_error(tmp_path):
    source, _ = write_folder(tmp_path)
    listed = opened(source)
    file = source / "dog" / "dog_3.jpg"
    file.write_bytes(file.read_bytes() + b"more")
    with pytest.raises(ValueError, match=r"dog_3.jpg has [\d,]+ bytes and had [\d,]+ when it was listed"):
        list(listed.reader.read(listed.splits["train"]))


@pytest.mark.slow
def test_an_archive_in_a_store_that_is_replaced_is_seen(s3_folder):
    folder = Folder.at(s3_folder)
    archives = [builders.tar_bytes(even({"a/1.jpg": builders.jpeg(i), "b/2.jpg": builders.jpeg(9)})) for i in (1, 2)]
    folder.write("set.tar", archives[0])
    listed = open_source(IngestSpec(source=folder.child("set.tar").url, val_fraction=0))
    before = files_now(listed)
    time.sleep(1.1)  # a store's clock shows seconds
    folder.write("set.tar", archives[1][: len(archives[0])].ljust(len(archives[0]), b"\0"))
    assert before.changed(files_now(listed))
