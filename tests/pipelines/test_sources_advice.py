"""Refusals lead somewhere: whoever does what the message says, and nothing else, gets the data set."""

import bz2
import gzip
import lzma
import re
import shutil
import subprocess
import zipfile
from ast import literal_eval
from pathlib import Path
from unicodedata import normalize

import builders
import pytest

from pipelines.sources.catalog import open_source
from pipelines.specs import IngestSpec

KIT = "ILSVRC2012_devkit_t12.tar.gz"


def opened(source, **options):
    return open_source(IngestSpec(source=str(source), **({"val_fraction": 0.0} | options)))


def refusal(source, **options) -> str:
    with pytest.raises(ValueError, match=".") as error:
        opened(source, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def run_command_of(message: str) -> None:
    command = re.search("`(.+)`", message)[1]
    subprocess.run(["bash", "-ec", command], check=True, timeout=60)


def named_by(message: str) -> str:
    return re.search(r"\bname (it itself, )?(/\S+)$", message)[2]


def zstd(data: bytes) -> bytes:
    return subprocess.run(["zstd", "-q", "-c"], input=data, stdout=subprocess.PIPE, check=True).stdout


COMPRESS = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}
if shutil.which("zstd"):
    COMPRESS["zst"] = zstd
ENDINGS = [
    (".tgz", "gz"),
    (".tbz2", "bz2"),
    (".txz", "xz"),
    (".tzst", "zst"),
    (".tar", "gz"),
    (".tar", "zst"),
    (".gz", "gz"),
]
endings = pytest.mark.parametrize(
    ("ending", "kind"),
    [(f".tar.{kind}", kind) for kind in COMPRESS] + [(ending, kind) for ending, kind in ENDINGS if kind in COMPRESS],
)


@endings
def test_a_compressed_archive_is_refused_with_the_command_that_unpacks_it(tmp_path, ending, kind):
    path = tmp_path / f"my set{ending}"
    path.write_bytes(COMPRESS[kind](builders.tar_bytes(builders.class_folders())))
    message = refusal(path)
    assert "is compressed, so its members cannot be read in place" in message
    run_command_of(message)
    assert opened(message.rpartition(" name ")[2]).splits["train"].num_rows == 6


@endings
def test_a_compressed_split_in_a_folder_is_not_passed_over(tmp_path, ending, kind):
    for split in ("train", "val"):
        data = builders.tar_bytes(builders.class_folders(images=2 if split == "val" else 3))
        name, data = (f"{split}{ending}", COMPRESS[kind](data)) if split == "val" else ("train.tar", data)
        (tmp_path / name).write_bytes(data)
    message = refusal(tmp_path)
    run_command_of(message)
    source = opened(tmp_path)
    assert {split: rows.num_rows for split, rows in source.splits.items()} == {"train": 6, "val": 4}


def test_compressed_archives_of_ilsvrc_are_refused_with_one_command(tmp_path):
    ids = builders.ilsvrc(tmp_path, 2012, num_classes=6, num_ancestors=3)
    for split in ("train", "val"):
        path = tmp_path / f"ILSVRC2012_img_{split}.tar"
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    run_command_of(refusal(tmp_path))
    source = opened(tmp_path, labels="devkit")
    assert sum(rows.num_rows for rows in source.splits.values()) == len(ids)


def test_a_compressed_archive_that_is_not_read_anyway_is_named_and_stops_nothing(tmp_path):
    builders.ilsvrc(tmp_path, 2012, num_classes=6, num_ancestors=3)
    (tmp_path / "ILSVRC2012_img_test_v10102019.tar.gz").write_bytes(gzip.compress(b"unlabelled"))
    assert opened(tmp_path).notes == ("beside it and not used: ILSVRC2012_img_test_v10102019.tar.gz",)


@pytest.mark.parametrize("ending", [".tar.gz", ".tgz"])
def test_compressed_class_tars_are_refused_with_one_command(tmp_path, ending):
    packed = gzip.compress(builders.tar_bytes({"1.JPEG": b"x"}))
    builders.write_files(tmp_path, {f"n0{i}000000{ending}": packed for i in range(2)})
    run_command_of(refusal(tmp_path))
    assert opened(tmp_path).class_names == ("n00000000", "n01000000")


def test_the_only_archive_in_a_folder_is_to_be_named_compressed_or_not(tmp_path):
    packed = builders.tar_bytes(builders.class_folders())
    (tmp_path / "set.tar.gz").write_bytes(gzip.compress(packed))
    message = refusal(tmp_path)
    run_command_of(message)
    assert opened(named_by(message)).class_names == ("cat", "dog")
    assert opened(named_by(refusal(tmp_path))).class_names == ("cat", "dog")


@pytest.mark.parametrize(("train", "val"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_a_class_in_another_unicode_form_is_said_to_be_and_is_found_once_its_name_is_the_same(tmp_path, train, val):
    forms = {"train": normalize(train, "café"), "val": normalize(val, "café")}
    files = {f"{split}/{name}/1.jpg": b"x" for split, cafe in forms.items() for name in (cafe, "bar")}
    message = refusal(builders.write_files(tmp_path, files))
    assert "which train lacks" not in message
    has, twin = re.search(r"in another Unicode form, ('.+') against ('.+'): give both the same name$", message).groups()
    (tmp_path / "val" / literal_eval(has)).rename(tmp_path / "val" / literal_eval(twin))
    assert opened(tmp_path).class_names == ("bar", forms["train"])


def class_archives(*endings: str, inner: str = "") -> dict[str, bytes]:
    """An archive for each class, of these endings, one for each."""
    pack = {
        ".tar": builders.tar_bytes,
        ".zip": builders.zip_bytes,
        ".tar.gz": lambda files: gzip.compress(builders.tar_bytes(files)),
    }
    images = {
        f"a class {i}": {f"{inner.format(i)}{j}.jpg": builders.jpeg(5 * i + j) for j in range(3)}
        for i in range(len(endings))
    }
    return {f"{name}{ending}": pack[ending.lower()](images[name]) for name, ending in zip(images, endings, strict=True)}


@pytest.mark.parametrize("inner", ["", "a class {}/"])
@pytest.mark.parametrize(
    "endings", [(".zip", ".zip"), (".tar", ".tar", ".tar"), (".ZIP", ".tar"), (".tar.gz", ".tar.gz")]
)
def test_a_folder_of_one_archive_for_each_class_is_unpacked_by_the_command(tmp_path, endings, inner):
    folder = builders.write_files(tmp_path / "my sets", class_archives(*endings, inner=inner))
    message = refusal(folder)
    if ".tar.gz" in endings:
        run_command_of(message)
        message = refusal(message.rpartition(" and name ")[2])
    assert "none is named as a split: if each is a class" in message
    run_command_of(message)
    source = opened(re.search(r" and name (.+);", message)[1])
    assert source.class_names == tuple(f"a class {i}" for i in range(len(endings)))
    assert source.splits["train"]["label"].to_pylist() == [i for i in range(len(endings)) for _ in range(3)]
    assert list(source.reader.read(source.splits["train"]))[4] == builders.jpeg(6)


def test_archives_of_classes_in_the_folders_of_splits_are_to_be_unpacked_there(tmp_path):
    for split in ("train", "val"):
        builders.write_files(tmp_path / split, class_archives(".zip", ".zip"))
    assert refusal(tmp_path).endswith("; unpack the archives there, each into a folder of its name if it is a class")
    for path in tmp_path.glob("*/*.zip"):
        subprocess.run(["unzip", "-q", path, "-d", path.with_suffix("")], check=True)
    assert {split: rows.num_rows for split, rows in opened(tmp_path).splits.items()} == {"train": 6, "val": 6}


def test_several_archives_may_be_whole_sets_of_which_one_is_named(tmp_path):
    sets = {f"{name}.tar": builders.tar_bytes(builders.class_folders()) for name in ("a", "b")}
    message = refusal(builders.write_files(tmp_path, sets))
    assert message.endswith("; if one is the whole set, name it itself")
    assert opened(tmp_path / "b.tar").class_names == ("cat", "dog")


@pytest.mark.parametrize("val", ["val.tar", "val_1.tar", "Validation-a.zip"])
@pytest.mark.parametrize("ending", [".tar", ".zip"])
def test_parts_of_splits_are_unpacked_into_a_folder_of_each_by_the_command(tmp_path, val, ending):
    pack = {".tar": builders.tar_bytes, ".zip": builders.zip_bytes}
    files = list(builders.class_folders(images=4).items())
    parts = {f"train_part{i}{ending}": pack[ending](dict(files[i::2])) for i in range(2)}
    folder = builders.write_files(tmp_path / "my set", parts | {val: pack[val[-4:]](dict(files[:6]))})
    message = refusal(folder)
    assert "if those are parts of splits, run " in message
    run_command_of(message)
    source = opened(folder)
    assert {split: rows.num_rows for split, rows in source.splits.items()} == {"train": 8, "val": 6}
    assert source.notes[-1].startswith("beside it and not used: ")


def test_class_tars_unpacked_in_part_are_refused_with_both_counts_and_the_command_that_goes_on(tmp_path):
    tars = {f"n0{i}000000.tar": builders.tar_bytes({f"n0{i}_{j}.JPEG": b"x" for j in range(3)}) for i in range(5)}
    whole = opened(builders.write_files(tmp_path / "whole", tars))
    folder = builders.write_files(tmp_path / "in part", dict(list(tars.items())[2:]))
    unpacked = {f"n0{i}000000/n0{i}_{j}.JPEG": b"x" for i in range(3) for j in range(3 if i < 2 else 1)}
    builders.write_files(folder, unpacked)  # two classes, and one of three images of the third
    message = refusal(folder)
    assert "3 class tars, such as n02000000.tar, beside 3 class folders, such as n00000000/" in message
    run_command_of(message)
    source = opened(folder)
    assert source.splits["train"]["key"].to_pylist() == whole.splits["train"]["key"].to_pylist()
    assert source.splits["train"]["label"].to_pylist() == whole.splits["train"]["label"].to_pylist()


@pytest.mark.parametrize("around", ["train", "some/where/train", "imagenet"])
def test_class_tars_unpacked_in_part_are_found_below_other_folders(tmp_path, around):
    tars = {f"{around}/n0{i}000000.tar": builders.tar_bytes({f"n0{i}_0.JPEG": b"x"}) for i in range(3)}
    builders.write_files(tmp_path, tars | {f"{around}/n0{i}000000/n0{i}_0.JPEG": b"x" for i in (3, 4)})
    message = refusal(tmp_path)
    assert "3 class tars" in message
    assert "2 class folders" in message
    run_command_of(message)
    assert opened(tmp_path).splits["train"].num_rows == 5


def test_a_missing_kit_is_asked_for_where_it_is_then_found(tmp_path):
    builders.ilsvrc(tmp_path / "set", 2012, num_classes=6, num_ancestors=3)
    expected = opened(tmp_path / "set").splits["val"].to_pylist()
    shutil.move(tmp_path / "set" / KIT, tmp_path / KIT)
    message = refusal(tmp_path / "set")
    place, name, beside = re.search(r"^(\S+) lacks (\S+), .*; put it beside (\S+)$", message).groups()
    shutil.copy(tmp_path / name, (Path(place) / beside).parent)
    assert opened(tmp_path / "set").splits["val"].to_pylist() == expected


def flat_val(folder: Path) -> tuple[Path, Path]:
    files = {f"train/{wnid}/{wnid}_1.JPEG": b"t" for _, wnid, _ in builders.synsets(6, 0)}
    files |= {f"val/ILSVRC2012_val_{i:08d}.JPEG": b"v" for i in range(1, 13)}
    return folder, builders.write_files(folder, files)


def in_a_tar(folder: Path) -> tuple[Path, Path]:
    subprocess.run(["tar", "cf", folder / "set.tar", "-C", flat_val(folder)[0], "train", "val"], check=True)
    return folder / "set.tar", folder


def of_kaggle(folder: Path) -> tuple[Path, Path]:
    flat_val(folder / "ILSVRC/Data/CLS-LOC")
    return folder / "ILSVRC", folder


@pytest.mark.parametrize("make", [flat_val, in_a_tar, of_kaggle])
@pytest.mark.parametrize("labels", ["wnid", "devkit"])
def test_flat_images_without_a_table_ask_for_one_where_it_is_then_found(tmp_path, make, labels):
    (tmp_path / "set").mkdir()
    source, _ = make(tmp_path / "set")
    message = refusal(source, labels=labels)
    kit, place = re.search(r"put (\S+?),.* into (\S+)$", message).groups()
    ids = builders.truth(6, 2)
    (Path(place) / kit).write_bytes(builders.devkit(2012, ids, 6, 3))
    found = opened(source, labels=labels)
    wnid_of = {id_: wnid for id_, wnid, _ in builders.synsets(6, 0)}
    assert [found.class_names[label] for label in found.splits["val"]["label"].to_pylist()] == [
        wnid_of[id_] for id_ in ids
    ]


def test_an_archive_of_ilsvrc_named_alone_says_to_name_its_folder(tmp_path):
    builders.ilsvrc(tmp_path, 2012, num_classes=6, num_ancestors=3)
    for split in ("train", "val"):
        message = refusal(tmp_path / f"ILSVRC2012_img_{split}.tar")
        assert opened(re.search(r"name the folder that holds them all, (\S+)$", message)[1]).kind == "ilsvrc2012"


def test_class_tars_beside_a_split_are_to_be_moved_into_train(tmp_path):
    ids = builders.ilsvrc(tmp_path, 2012, num_classes=6, num_ancestors=3)
    with_archive = opened(tmp_path)
    subprocess.run(["tar", "xf", tmp_path / "ILSVRC2012_img_train.tar", "-C", tmp_path], check=True)
    (tmp_path / "ILSVRC2012_img_train.tar").unlink()
    message = refusal(tmp_path)
    assert "beside ILSVRC2012_img_val.tar, which looks like a split" in message
    assert "move them into train/" in message
    (tmp_path / "train").mkdir()
    for tar in tmp_path.glob("n*.tar"):
        tar.rename(tmp_path / "train" / tar.name)
    source = opened(tmp_path)
    assert sum(rows.num_rows for rows in source.splits.values()) == len(ids)
    assert source.splits["val"]["label"].to_pylist() == with_archive.splits["val"]["label"].to_pylist()


def test_a_split_without_one_to_train_on_is_refused_and_what_is_asked_for_is_enough(tmp_path):
    builders.write_files(tmp_path, builders.class_folders() | {"val.tar": builders.tar_bytes(builders.class_folders())})
    message = refusal(tmp_path)
    assert "val.tar, which looks like a split, but nothing to train on beside it: put train/ or train.tar" in message
    (tmp_path / "train").mkdir()
    for name in ("cat", "dog"):
        (tmp_path / name).rename(tmp_path / "train" / name)
    assert {split: rows.num_rows for split, rows in opened(tmp_path).splits.items()} == {"train": 6, "val": 6}


def test_one_split_twice_is_refused_until_one_is_moved_away(tmp_path):
    packed = builders.tar_bytes(builders.class_folders())
    builders.write_files(tmp_path, builders.class_folders("val/") | {"train.tar": packed, "valid.tar": packed})
    assert "has both valid.tar and val; keep one of them there" in refusal(tmp_path)
    shutil.rmtree(tmp_path / "val")
    assert list(opened(tmp_path).splits) == ["train", "val"]


def test_a_split_that_holds_splits_is_to_be_named_alone(tmp_path):
    both = builders.tar_bytes(builders.class_folders("train/", "val/"))
    builders.write_files(tmp_path, {"train.tar": both, "test.tar": builders.tar_bytes(builders.class_folders())})
    message = refusal(tmp_path)
    assert "train.tar holds splits itself, such as train/" in message
    assert list(opened(message.partition(" holds")[0]).splits) == ["train", "val"]


@pytest.mark.parametrize("name", ["train.parquet", "data.parquet", "my images.parquet"])
def test_one_parquet_file_says_what_leads_to_it(tmp_path, name):
    builders.huggingface(tmp_path, {name: [0, 1, 1]})
    message = refusal(tmp_path / name)
    assert opened(message.rpartition(" name the folder ")[2]).splits["train"].num_rows == 3


@pytest.mark.parametrize("ending", [".tar.gz", ".tgz", ".tar.zst", ".gz"])
def test_a_tar_that_is_only_named_as_compressed_is_to_be_renamed(tmp_path, ending):
    packed = builders.tar_bytes(builders.class_folders())
    builders.write_files(tmp_path, {f"set{ending}": packed, f"splits/val{ending}": packed, "splits/train.tar": packed})
    for source in (tmp_path / f"set{ending}", tmp_path / "splits"):
        message = refusal(source)
        assert "is named as compressed and is not" in message
        run_command_of(message)
        opened(message.rpartition(" name ")[2])
    assert list(opened(tmp_path / "splits").splits) == ["train", "val"]


@pytest.mark.parametrize("name", ["train", "train.tar"])
def test_a_split_named_by_itself_says_where_the_others_are(tmp_path, name):
    files = builders.class_folders("val/") | builders.class_folders("train/")
    builders.write_files(tmp_path, files | {"train.tar": builders.tar_bytes(builders.class_folders())})
    (note,) = opened(tmp_path / name).notes
    assert note.startswith("beside it and not used: val; name ")
    assert list(opened(re.search(r" name (\S+) to read all", note)[1]).splits) == ["train", "val"]


def test_sums_are_not_said_to_be_right_where_nothing_has_a_published_one(tmp_path):
    builders.ilsvrc(tmp_path, 2012, num_classes=6, num_ancestors=3)
    for split in ("train", "val"):
        (tmp_path / f"ILSVRC2012_img_{split}.tar").rename(tmp_path / f"{split}.tar")
    assert "check_md5 needs the ILSVRC archives as downloaded; leave it false" in refusal(tmp_path, check_md5=True)
    assert opened(tmp_path, check_md5=False).kind == "ilsvrc2012"


def test_a_kit_of_another_edition_is_to_be_replaced(tmp_path):
    flat_val(tmp_path)
    (tmp_path / "devkit.tar").write_bytes(builders.devkit(2010, builders.truth(6, 2), 6, 3))
    wrong, name = re.search(r"^(\S+) is the kit of ILSVRC2010; put (\S+) in its place$", refusal(tmp_path)).groups()
    Path(wrong).unlink()
    (tmp_path / name).write_bytes(builders.devkit(2012, builders.truth(6, 2), 6, 3))
    assert opened(tmp_path).splits["val"].num_rows == 12


def test_all_archives_in_one_tar_ask_for_the_kit_beside_it(tmp_path):
    ids = builders.ilsvrc(tmp_path / "set", 2012, num_classes=6, num_ancestors=3)
    expected = opened(tmp_path / "set").splits["val"]["label"].to_pylist()
    subprocess.run(["tar", "cf", tmp_path / "all.tar", "-C", tmp_path / "set", "."], check=True)
    kit, place = re.search(r"put (\S+?),.* into (\S+)$", refusal(tmp_path / "all.tar")).groups()
    shutil.copy(tmp_path / "set" / kit, place)
    source = opened(tmp_path / "all.tar")
    assert source.splits["val"]["label"].to_pylist() == expected
    assert sum(rows.num_rows for rows in source.splits.values()) == len(ids)


@pytest.mark.parametrize("to", ["", "validation_images", "my val"])
def test_validation_images_that_nothing_would_read_are_to_be_moved(tmp_path, to):
    builders.ilsvrc(tmp_path, 2012, num_classes=6, num_ancestors=3)
    expected = opened(tmp_path).splits["val"]["label"].to_pylist()
    (tmp_path / to).mkdir(exist_ok=True)
    subprocess.run(["tar", "xf", tmp_path / "ILSVRC2012_img_val.tar", "-C", tmp_path / to], check=True)
    assert opened(tmp_path).notes[0].startswith("beside it and not used: ")  # the archive has them too
    (tmp_path / "ILSVRC2012_img_val.tar").unlink()
    run_command_of(refusal(tmp_path))
    assert opened(tmp_path).splits["val"]["label"].to_pylist() == expected


def test_flat_images_without_any_to_train_on_say_what_is_missing(tmp_path):
    builders.ilsvrc(tmp_path, 2012, num_classes=6, num_ancestors=3)
    expected = opened(tmp_path).splits["val"]["label"].to_pylist()
    builders.write_files(tmp_path / "val", builders.tar_members((tmp_path / "ILSVRC2012_img_val.tar").read_bytes()))
    (tmp_path / "ILSVRC2012_img_val.tar").unlink()
    train = (tmp_path / "ILSVRC2012_img_train.tar").rename(tmp_path.parent / f"{tmp_path.name}.tar")
    message = refusal(tmp_path)
    assert "has flat images in val, and none to train on" in message
    assert "name the folder around it" in refusal(tmp_path / "val")
    train.rename(tmp_path / re.search(r"or (\S+)$", message)[1])
    assert opened(tmp_path).splits["val"]["label"].to_pylist() == expected


def test_a_kit_above_the_archives_is_asked_for_beside_them(tmp_path):
    builders.ilsvrc(tmp_path / "set", 2012, num_classes=6, num_ancestors=3)
    (tmp_path / "set" / KIT).rename(tmp_path / KIT)
    place, name = re.search(r"^(\S+) lacks (\S+), ", refusal(tmp_path)).groups()
    (tmp_path / KIT).rename(Path(place) / name)
    assert opened(tmp_path).kind == "ilsvrc2012"


def test_what_lies_beside_class_tars_of_a_split_is_named(tmp_path):
    tars = {f"train/n0{i}000000.tar": builders.tar_bytes({f"n0{i}_0.JPEG": b"x"}) for i in range(3)}
    builders.write_files(tmp_path, tars | {"train/x.JPEG": b"x"})
    assert opened(tmp_path).notes == ("train/: beside it and not used: x.JPEG",)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_of_another_method_is_unpacked_by_the_command(tmp_path, method):
    files = builders.class_folders()
    builders.write_files(tmp_path / "my sets", {"pets.zip": builders.zip_bytes(files, method)})
    message = refusal(tmp_path / "my sets" / "pets.zip")
    assert f"packed by method {method}, which is not read in place" in message
    run_command_of(message)
    assert opened(message.rpartition("and name ")[2]).splits["train"].num_rows == len(files)


def test_a_tar_of_class_tars_and_class_folders_is_to_be_unpacked_step_by_step(tmp_path):
    packed = {f"n0{i}000000.tar": builders.tar_bytes({f"n0{i}_0.JPEG": b"x"}) for i in range(2)}
    mixed = builders.tar_bytes(packed | {"n09000000/n09_0.JPEG": b"x"})
    (tmp_path / "set.tar").write_bytes(mixed)
    assert "Unpack it, then what is packed in it, and name the folder" in refusal(tmp_path / "set.tar")
    (tmp_path / "set").mkdir()
    subprocess.run(["tar", "xf", tmp_path / "set.tar", "-C", tmp_path / "set"], check=True)
    run_command_of(refusal(tmp_path / "set"))
    assert opened(tmp_path / "set").class_names == ("n00000000", "n01000000", "n09000000")
