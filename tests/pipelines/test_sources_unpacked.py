"""ImageNet as people have unpacked it: each image has the label of its archive, however the splits are packed."""

import shutil
import tarfile
import zipfile
from pathlib import Path

import builders
import pytest

from pipelines.sources.catalog import open_source
from pipelines.specs import IngestSpec

TRAIN, VAL = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
KIT = "ILSVRC2012_devkit_t12.tar.gz"


def opened(source, **options):
    return open_source(IngestSpec(source=str(source), **options))


def extract(archive: Path, to: Path, keep: bool = False) -> None:
    with tarfile.open(archive) as tar:
        tar.extractall(to, filter="data")
    if not keep:
        archive.unlink()


def unpack_val(folder: Path, to: str = "val") -> Path:
    extract(folder / VAL, folder / to)
    return folder


def unpack_train(folder: Path, to: str = "train") -> Path:
    """As the usual scripts do: the tar, then each of the class tars in it."""
    extract(folder / TRAIN, folder / to)
    for tar in (folder / to).glob("*.tar"):
        extract(tar, tar.with_suffix(""))
    return folder


def pack(folder: Path, name: str, *parts: str) -> Path:
    """Folders go into an archive with their names, or what is in the only one without."""
    with tarfile.open(folder / f"{name}.tar", "w") as tar:
        for part in parts:
            tar.add(folder / part, part if len(parts) > 1 else ".")
    for part in parts:
        shutil.rmtree(folder / part)
    return folder


def flat_val_beside_the_train_archive(folder: Path) -> Path:
    return unpack_val(folder)


def flat_val_under_its_archives_name(folder: Path) -> Path:
    return unpack_val(folder, "ILSVRC2012_img_val")


def flat_val_in_a_folder_of_images(folder: Path) -> Path:
    return unpack_val(folder, "val/images")


def class_folders_beside_the_val_archive(folder: Path) -> Path:
    return unpack_train(folder)


def class_folders_and_flat_val(folder: Path) -> Path:
    return unpack_train(unpack_val(folder))


def class_folders_and_flat_val_in_folders_around(folder: Path) -> Path:
    unpack_train(unpack_val(folder, "some/where/val"), "some/where/Train")
    return folder


def a_folder_of_class_tars_beside_the_val_archive(folder: Path) -> Path:
    extract(folder / TRAIN, folder / "train")
    return folder


def a_folder_of_class_tars_and_flat_val(folder: Path) -> Path:
    return a_folder_of_class_tars_beside_the_val_archive(unpack_val(folder))


def a_tar_of_both_splits(folder: Path) -> Path:
    return pack(class_folders_and_flat_val(folder), "set", "train", "val") / "set.tar"


def a_zip_of_both_splits(folder: Path) -> Path:
    class_folders_and_flat_val(folder)
    with zipfile.ZipFile(folder / "set.zip", "w", strict_timestamps=False) as archive:
        for path in sorted(path for split in ("train", "val") for path in (folder / split).rglob("*.JPEG")):
            archive.write(path, path.relative_to(folder))
    return folder / "set.zip"


def a_tar_for_each_split(folder: Path) -> Path:
    return pack(pack(class_folders_and_flat_val(folder), "train", "train"), "Val", "val")


def tars_packed_with_the_name_of_their_split(folder: Path) -> Path:
    class_folders_and_flat_val(folder)
    for split in ("train", "val"):
        with tarfile.open(folder / f"{split}.tar", "w") as tar:
            tar.add(folder / split, split)
        shutil.rmtree(folder / split)
    return folder


def a_train_archive_under_another_name(folder: Path) -> Path:
    (folder / TRAIN).rename(folder / "train.tar")
    return folder


def kaggles_folders(folder: Path) -> Path:
    (folder / "ILSVRC/Data/CLS-LOC").mkdir(parents=True)
    return unpack_train(unpack_val(folder, "ILSVRC/Data/CLS-LOC/val"), "ILSVRC/Data/CLS-LOC/train")


def kaggles_data(folder: Path) -> Path:
    return kaggles_folders(folder) / "ILSVRC/Data"


def kaggles_images(folder: Path) -> Path:
    return kaggles_folders(folder) / "ILSVRC/Data/CLS-LOC"


LAYOUTS = (
    flat_val_beside_the_train_archive,
    flat_val_under_its_archives_name,
    flat_val_in_a_folder_of_images,
    class_folders_beside_the_val_archive,
    class_folders_and_flat_val,
    class_folders_and_flat_val_in_folders_around,
    a_folder_of_class_tars_beside_the_val_archive,
    a_folder_of_class_tars_and_flat_val,
    a_tar_of_both_splits,
    a_zip_of_both_splits,
    a_tar_for_each_split,
    tars_packed_with_the_name_of_their_split,
    a_train_archive_under_another_name,
    kaggles_folders,
    kaggles_data,
    kaggles_images,
)


def contents(source) -> dict[str, tuple[str, bytes]]:
    """File name -> (class, bytes) of all splits, with the splits' names."""
    return {
        f"{split}: {key.rpartition('/')[2]}": (source.class_names[label], data)
        for split, rows in source.splits.items()
        for key, label, data in zip(
            rows["key"].to_pylist(), rows["label"].to_pylist(), source.reader.read(rows), strict=True
        )
    }


def as_archived(folder: Path, ids: dict[str, int]) -> dict[str, tuple[str, bytes]]:
    """The same by the builder's own record and Python's tarfile."""
    wnid_of = {id_: wnid for id_, wnid, _ in builders.synsets(6, 3)}
    tars = builders.tar_members((folder / TRAIN).read_bytes()).values()
    images = {f"train: {name}": data for tar in tars for name, data in builders.tar_members(tar).items()}
    images |= {f"val: {name}": data for name, data in builders.tar_members((folder / VAL).read_bytes()).items()}
    of_name = {key.rpartition("/")[2]: id_ for key, id_ in ids.items()}
    return {name: (wnid_of[of_name[name.partition(": ")[2]]], data) for name, data in images.items()}


@pytest.mark.parametrize("labels", ["wnid", "devkit"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_image_has_the_label_that_the_archives_give_it(tmp_path, layout, labels):
    ids = builders.ilsvrc(tmp_path, 2012, num_classes=6, num_ancestors=3)
    expected = as_archived(tmp_path, ids)
    source = opened(layout(tmp_path), labels=labels)
    assert contents(source) == expected
    assert source.kind == "ilsvrc2012"
    wnids = [wnid for _, wnid, _ in builders.synsets(6, 0)]
    assert source.class_names == tuple(wnids if labels == "devkit" else sorted(wnids))
    assert [note for note in source.notes if "archive" in note or "missing" in note] == []


def test_the_test_images_of_2010_keep_their_labels_when_unpacked(tmp_path):
    builders.ilsvrc(tmp_path, 2010, num_classes=6, num_ancestors=3)
    expected = contents(opened(tmp_path))
    for split, to in (("train", "train"), ("val", ""), ("test", "")):  # the last two hold val/ and test/
        extract(tmp_path / f"ILSVRC2010_images_{split}.tar", tmp_path / to)
    source = opened(tmp_path)
    assert contents(source) == expected
    assert source.kind == "ilsvrc2010"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda val: val(3).rename(val(3).with_name("ILSVRC2010_val_00000003.JPEG")),
            "'ILSVRC2010_val_00000003.JPEG', wh",
        ),
        (
            lambda val: val(3).rename(val(3).with_name("dog.JPEG")),
            "holds 'dog.JPEG', whose label is not known: names are",
        ),
        (lambda val: val(3).rename(val(13)), "an image number 13, but the ground truth has 12 lines"),
        (lambda val: shutil.copy(val(3), val(3).with_suffix(".png")), "has 2 images of the number 3; keep one of them"),
        (lambda val: shutil.copytree(val(3).parents[1] / "train", val(3).parent, dirs_exist_ok=True), "keep one"),
        (lambda val: shutil.copytree(val(3).parent, val(3).parent / "n01440764"), "outside class folders"),
    ],
)
def test_flat_images_of_which_one_has_no_certain_label_are_refused(tmp_path, damage, message):
    builders.ilsvrc(tmp_path, 2012, num_classes=6, num_ancestors=3)
    class_folders_and_flat_val(tmp_path)
    damage(lambda number: tmp_path / f"val/ILSVRC2012_val_{number:08d}.JPEG")
    with pytest.raises(ValueError, match=message):
        opened(tmp_path)


@pytest.mark.parametrize("layout", [class_folders_and_flat_val, a_tar_for_each_split, kaggles_images])
def test_missing_numbers_are_said_and_the_others_keep_their_labels(tmp_path, layout):
    ids = builders.ilsvrc(tmp_path, 2012, num_classes=6, num_ancestors=3)
    expected = as_archived(tmp_path, ids)
    members = builders.tar_members((tmp_path / VAL).read_bytes())
    del members["ILSVRC2012_val_00000001.JPEG"], members["ILSVRC2012_val_00000007.JPEG"]
    (tmp_path / VAL).write_bytes(builders.tar_bytes(members))
    source = opened(layout(tmp_path))
    assert contents(source).items() < expected.items()
    assert "2 of 12 images ILSVRC2012_val_… are missing, such as number 1" in source.notes


@pytest.mark.parametrize("pack", ["zip", "tar"])
def test_kaggles_own_archive_is_read_with_the_tables_in_it(tmp_path, pack):
    folder = builders.kaggle(tmp_path / "set")
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    files["ILSVRC/Annotations/CLS-LOC/val/ILSVRC2012_val_00000001.xml"] = b"<annotation/>"
    data = builders.zip_bytes(files) if pack == "zip" else builders.tar_bytes(files)
    builders.write_files(tmp_path, {f"download.{pack}": data})
    packed, unpacked = (opened(tmp_path / name) for name in (f"download.{pack}", "set"))
    assert contents(packed) == contents(unpacked)
    assert packed.class_titles == unpacked.class_titles == ("thing 64, other", "thing 67, other")
    assert packed.notes == ("3 files left out: 2 images of test/ without a class, 1 .xml",)


def test_classes_without_an_image_keep_their_label_however_a_split_is_packed(tmp_path):
    packed = builders.tar_bytes(builders.class_folders(classes=("cat", "elk")))
    builders.write_files(
        tmp_path / "folders", builders.class_folders("train/", classes=("cat", "elk")) | {"val.tar": packed}
    )
    (tmp_path / "folders/train/dog").mkdir()
    source = opened(tmp_path / "folders")
    assert source.class_names == ("cat", "dog", "elk")
    assert set(source.splits["val"]["label"].to_pylist()) == {0, 2}
    tars = {f"train/n0{i}000000.tar": builders.tar_bytes({f"{i}.JPEG": b"x"} if i != 1 else {}) for i in range(3)}
    source = opened(builders.write_files(tmp_path / "tars", tars))
    assert source.class_names == ("n00000000", "n01000000", "n02000000")
    assert source.notes == ("1 classes have no image, such as 'n01000000'; each keeps its label",)


def test_images_that_are_gzipped_under_their_plain_names_are_read_when_unpacked_too(tmp_path):
    files = builders.class_folders()
    packed = {path: builders.gzipped(data) for path, data in files.items()}
    rows = opened(builders.write_files(tmp_path, packed), val_fraction=0).splits["train"]
    assert list(opened(tmp_path).reader.read(rows)) == [files[key] for key in rows["key"].to_pylist()]


def test_the_images_that_lack_of_the_published_ones_are_counted_in_every_split(tmp_path):
    wnids = [wnid for _, wnid, _ in builders.synsets(1000, 0)]
    files = {f"train/{wnid}/{wnid}_1.JPEG": b"x" for wnid in wnids[:3]} | {
        f"val/{wnid}/1.JPEG": b"x" for wnid in wnids[:2]
    }
    files |= {"test/ILSVRC2012_test_00000007.JPEG": b"x", KIT: builders.devkit(2012, builders.truth(1000, 50), 1000, 3)}
    assert opened(builders.write_files(tmp_path, files), labels="devkit").notes == (
        "1 files left out: 1 images of test/ without a class",
        "train: 1,281,164 of 1,281,167 published images are missing",
        "val: 49,998 of 50,000 published images are missing",
        "test: 99,999 of 100,000 published images are missing",
    )


def test_numbered_images_loose_beside_class_folders_are_refused_as_what_they_are(tmp_path):
    builders.write_files(tmp_path, builders.class_folders() | {"ILSVRC2012_val_00000001.JPEG": b"x"})
    with pytest.raises(ValueError, match="1 images lie outside class folders, such as 'ILSVRC2012_val_00000001.JPEG'"):
        opened(tmp_path)


@pytest.mark.parametrize("layout", [flat_val_beside_the_train_archive, class_folders_beside_the_val_archive])
def test_the_fingerprint_follows_the_names_in_every_part(tmp_path, layout):
    """Also of an image that is not among those whose contents are sampled, as this one of 180 is not."""
    prints = []
    for name in ("n01440764_10.JPEG", "n01440764_10.jpeg"):
        folder = tmp_path / name
        builders.ilsvrc(folder, 2012, images=30, num_classes=6, num_ancestors=3)
        tars = builders.tar_members((folder / TRAIN).read_bytes())
        members = builders.tar_members(tars["n01440764.tar"])
        renamed = {name if "_10." in member else member: content for member, content in members.items()}
        tars["n01440764.tar"] = builders.tar_bytes(renamed)
        (folder / TRAIN).write_bytes(builders.tar_bytes(tars))
        prints += [opened(layout(folder)).fingerprint, opened(folder).fingerprint]
    assert prints[0] == prints[1] != prints[2] == prints[3]
