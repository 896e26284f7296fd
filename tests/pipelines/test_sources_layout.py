"""Class folders, on disk, in a tar and in an object store: what is an image, of which class and split."""

import re
import shutil
import tarfile
from pathlib import Path

import builders
import pytest

from pipelines.names import EXTENSIONS, IMAGE_NAME
from pipelines.sources.catalog import open_source
from pipelines.specs import IngestSpec


def opened(source, **options):
    options = {"val_fraction": 0.0} | options
    return open_source(IngestSpec(source=str(source), **options))


def as_folder(path, files):
    return builders.write_files(path / "set", files)


def as_tar(path, files):
    builders.write_files(path, {"set.tar": builders.tar_bytes(files, folders=True)})
    return path / "set.tar"


def as_zip(path, files):
    builders.write_files(path, {"set.zip": builders.zip_bytes(files, folders=True)})
    return path / "set.zip"


packed = pytest.mark.parametrize("pack", [as_folder, as_tar, as_zip])


def contents(source, split) -> dict[str, tuple[str, bytes]]:
    """key -> (class name, bytes) of a split."""
    rows = source.splits[split]
    names = [source.class_names[label] for label in rows["label"].to_pylist()]
    return dict(zip(rows["key"].to_pylist(), zip(names, source.reader.read(rows), strict=True), strict=True))


@packed
def test_plain_class_folders_are_all_train(tmp_path, pack):
    files = builders.class_folders()
    source = opened(pack(tmp_path, files))
    assert source.class_names == source.class_titles == ("cat", "dog")
    assert list(source.splits) == ["train"]
    assert contents(source, "train") == {path: (path[:3], data) for path, data in files.items()}


@packed
@pytest.mark.parametrize("val", ["val", "validation", "valid", "dev", "Val", "VALIDATION", "ILSVRC2012_img_val"])
def test_split_folders_become_splits(tmp_path, pack, val):
    files = builders.class_folders("train/", f"{val}/", "test/")
    source = opened(pack(tmp_path, files))
    assert list(source.splits) == ["train", "val", "test"]
    for split, prefix in (("train", "train/"), ("val", f"{val}/"), ("test", "test/")):
        expected = {path.removeprefix(prefix): data for path, data in files.items() if path.startswith(prefix)}
        assert {key: data for key, (_, data) in contents(source, split).items()} == expected


@packed
def test_without_val_the_test_split_serves(tmp_path, pack):
    source = opened(pack(tmp_path, builders.class_folders("train/", "test/")), val_fraction=0.5)
    assert "there is no val: the images of test are stored as val" in source.notes
    assert {split: rows.num_rows for split, rows in source.splits.items()} == {"train": 6, "val": 6}


@packed
def test_unlabelled_test_images_are_left_out(tmp_path, pack):
    files = builders.class_folders("train/", "val/") | {"test/1.jpg": builders.jpeg(1), "test/2.jpg": builders.jpeg(2)}
    assert list(opened(pack(tmp_path, files)).splits) == ["train", "val"]


@packed
def test_val_is_a_share_chosen_by_key(tmp_path, pack):
    files = builders.class_folders(images=200)
    source = opened(pack(tmp_path, files), val_fraction=0.25)
    train, val = (set(source.splits[split]["key"].to_pylist()) for split in ("train", "val"))
    assert not train & val
    assert train | val == set(files)
    assert 70 <= len(val) <= 130
    fewer = {path: data for path, data in files.items() if path.startswith("cat")}
    again = opened(pack(tmp_path / "other", {**fewer, "dog/dog_0.jpg": files["dog/dog_0.jpg"]}), val_fraction=0.25)
    assert {key for key in again.splits["val"]["key"].to_pylist() if key in fewer} == {
        key for key in val if key in fewer
    }


@packed
def test_the_share_for_val_leaves_every_class_an_image_to_train_on(tmp_path, pack):
    files = {f"{name}/{i}.jpg": b"" for name, count in (("a", 1), ("b", 2), ("c", 40)) for i in range(count)}
    source = opened(pack(tmp_path, files), val_fraction=0.99)
    assert set(source.splits["train"]["label"].to_pylist()) == {0, 1, 2}
    assert sum(rows.num_rows for rows in source.splits.values()) == 43
    assert source.splits["train"]["label"].to_pylist().count(0) == 1
    assert source.splits["train"].num_rows == 3


@packed
def test_folders_around_the_data_set_are_seen_through(tmp_path, pack):
    files = builders.class_folders("some/where/train/", "some/where/val/")
    source = opened(pack(tmp_path, files))
    assert source.splits["train"]["key"][0].as_py() == "cat/cat_0.jpg"
    assert contents(source, "val")["dog/dog_2.jpg"] == ("dog", files["some/where/val/dog/dog_2.jpg"])


@packed
def test_other_files_and_hidden_files_are_no_images_and_are_counted(tmp_path, pack):
    files = builders.class_folders()
    extra = {"README.txt": b"hello", "cat/._cat_0.jpg": b"mac", "dog/labels.csv": b"1,2", ".DS_Store": b""}
    extra |= {"cat/a.TXT": b"", "cat/b.ppm": b"P6", "cat/LICENSE": b"", ".ipynb_checkpoints/a/1.jpg": b"x"}
    extra |= {"__MACOSX/cat/1.jpg": b"x", "cat/@eaDir/cat_0.jpg/1.jpg": b"x", ".Trash-1000/files/1.jpg": b"x"}
    source = opened(pack(tmp_path, files | extra))
    assert source.class_names == ("cat", "dog")
    assert source.splits["train"].num_rows == len(files)
    (note,) = source.notes
    total, _, kinds = note.partition(" files left out: ")
    assert total == "11"
    assert set(kinds.split(", ")) == {
        "4 in hidden folders",
        "2 .txt",
        "2 without an ending",
        "1 .csv",
        "1 .jpg",
        "1 .ppm",
    }


def test_one_table_of_extensions_serves_listing_and_decoding():
    from PIL import Image

    from pipelines.images import _PILLOW_FORMATS

    registered = Image.registered_extensions()
    for extension in EXTENSIONS:
        assert registered[f".{extension}"] in _PILLOW_FORMATS
        assert re.search(IMAGE_NAME, f"a/b.{extension.upper()}")
    assert {registered[f".{extension}"] for extension in EXTENSIONS} == set(_PILLOW_FORMATS)


@packed
@pytest.mark.parametrize("inner", ["images/", "JPEG/"])
def test_one_folder_of_the_same_name_in_each_class_is_seen_through(tmp_path, pack, inner):
    files = {f"train/{name}/{inner}{i}.jpg": f"{name}{i}".encode() for name in ("a", "b") for i in range(2)}
    source = opened(pack(tmp_path, files | {"val/a/1.jpg": b"v"}))
    assert source.class_names == ("a", "b")
    assert contents(source, "train")[f"b/{inner}1.jpg"] == ("b", b"b1")
    assert contents(source, "val") == {"a/1.jpg": ("a", b"v")}


@packed
def test_classes_that_are_each_packed_with_a_folder_of_their_name_are_seen_through(tmp_path, pack):
    files = {f"{name}/{name}/{i}.jpg": f"{name}{i}".encode() for name in ("a", "b") for i in range(2)}
    assert contents(opened(pack(tmp_path, files)), "train") == {path: (path[0], data) for path, data in files.items()}


@packed
def test_folders_named_by_numbers_are_labelled_by_value(tmp_path, pack):
    source = opened(pack(tmp_path, {f"{i}/1.jpg": str(i).encode() for i in (0, 2, 10, 9, 100)}))
    assert source.class_names == ("0", "2", "9", "10", "100")
    assert contents(source, "train")["10/1.jpg"] == ("10", b"10")
    mixed = opened(pack(tmp_path / "mixed", {"10/1.jpg": b"", "9/1.jpg": b"", "a/1.jpg": b""}))
    assert mixed.class_names == ("10", "9", "a")  # as everybody sorts them


@packed
def test_classes_that_differ_only_in_case_are_two_and_said(tmp_path, pack):
    source = opened(pack(tmp_path, {"Cat/1.jpg": b"1", "cat/1.jpg": b"2", "dog/1.jpg": b"3"}))
    assert source.class_names == ("Cat", "cat", "dog")
    assert source.notes == ("1 names of classes differ only in case, such as 'Cat' and 'cat'; each is a class",)


@pytest.mark.parametrize("prefix", ["", "train/"])
def test_an_empty_class_keeps_its_label_and_is_said(tmp_path, prefix):
    folder = as_folder(tmp_path, builders.class_folders(prefix, classes=("cat", "elk")))
    for name in ("dog", ".hidden", "@eaDir"):
        (Path(folder) / prefix / name).mkdir()
    source = opened(folder)
    assert source.class_names == ("cat", "dog", "elk")
    assert set(source.splits["train"]["label"].to_pylist()) == {0, 2}
    assert source.notes == ("1 classes have no image, such as 'dog'; each keeps its label",)


def test_links_are_followed_counted_and_no_loop_is_walked_twice(tmp_path):
    folder = Path(as_folder(tmp_path, builders.class_folders()))
    (folder / "elk").symlink_to(folder / "dog")
    (folder / "cat" / "more.jpg").symlink_to(folder / "dog" / "dog_0.jpg")
    (folder / "cat" / "gone.jpg").symlink_to("nowhere.jpg")
    (folder / "cat" / "around").symlink_to(folder)
    source = opened(folder)
    assert source.class_names == ("cat", "dog", "elk")
    assert {"cat/more.jpg", "elk/dog_0.jpg"} <= set(source.splits["train"]["key"].to_pylist())
    assert source.notes == ("1 links lead to no file, such as cat/gone.jpg",)


def test_links_in_a_tar_that_lead_nowhere_are_said(tmp_path):
    folder = Path(as_folder(tmp_path, builders.class_folders()))
    (folder / "cat" / "gone.jpg").symlink_to("nowhere.jpg")
    (folder / "cat" / "more.jpg").symlink_to("../dog/dog_0.jpg")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(folder, arcname=".")
    source = opened(tmp_path / "a.tar")
    assert source.notes == ("1 links lead to no file, such as ./cat/gone.jpg",)
    assert "cat/more.jpg" in source.splits["train"]["key"].to_pylist()


@pytest.mark.parametrize("target", ["cat", "."])
def test_links_to_folders_in_a_tar_are_refused(tmp_path, target):
    """A folder's are followed, so that the same images would have other labels."""
    folder = Path(as_folder(tmp_path, builders.class_folders()))
    (folder / "bird").symlink_to(target)
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(folder, arcname=".")
    with pytest.raises(ValueError, match=rf"links to folders, such as './bird' to '{target}'; pack the files"):
        opened(tmp_path / "a.tar")


def packed_as(folder: Path, kind: str) -> str:
    return str(folder) if kind == "folder" else shutil.make_archive(str(folder), kind, folder)


in_any_form = pytest.mark.parametrize("kind", ["folder", "tar", "zip"])


@in_any_form
@pytest.mark.parametrize("prefix", ["", "train/", "set/Train/"])
def test_a_class_without_images_keeps_its_label_in_any_form(tmp_path, kind, prefix):
    others = {f"{prefix}bird/.gitkeep": b"", f"{prefix}crow/1.heic": b"x", f"{prefix}.cache/x": b"x"}
    folder = Path(as_folder(tmp_path, builders.class_folders(prefix) | others))
    (folder / prefix / "eel").mkdir()
    (folder / prefix / "gr\nün").mkdir()
    (folder / prefix / "a" / "within").mkdir(parents=True)
    source, plain = opened(packed_as(folder, kind)), builders.class_folders()
    assert source.class_names == ("a", "bird", "cat", "crow", "dog", "eel", "gr\nün")
    assert contents(source, "train") == {path: (path[:3], data) for path, data in plain.items()}
    assert "5 classes have no image, such as 'a'; each keeps its label" in source.notes
    (folder / prefix / "eel").rmdir()
    assert opened(packed_as(folder, kind)).fingerprint != source.fingerprint


@in_any_form
@pytest.mark.parametrize(
    ("name", "found"), [("val/cat/1.heic", r"1 \.heic"), ("Validation/images.zip", r"1 \.zip"), ("test/", "nothing")]
)
def test_a_split_without_images_is_not_passed_over(tmp_path, kind, name, found):
    folder = Path(as_folder(tmp_path, builders.class_folders("train/")))
    split, _, file = name.partition("/")
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(b"x") if file else (folder / split).mkdir()
    with pytest.raises(ValueError, match=rf": (\./)?{split}/ holds no images: found {found}; move it away"):
        opened(packed_as(folder, kind))


def test_a_share_of_train_that_is_stored_as_val_is_said(tmp_path):
    source = opened(as_folder(tmp_path, builders.class_folders()), val_fraction=0.5)
    count = source.splits["val"].num_rows
    assert f"there is no val: {count} images of train are stored as val (ingest.val_fraction)" in source.notes
    assert opened(tmp_path / "set").notes == ()


@pytest.mark.parametrize("url", ["s3://", "http://x/y", "nonsense://x"])
def test_a_url_that_nothing_opens_is_refused_in_one_line(url):
    with pytest.raises(
        ValueError, match=rf"ingest.source: cannot read {url}.*: .*; use a path, or a URL such as s3://"
    ):
        opened(url)


@packed
def test_unlabelled_test_images_are_counted(tmp_path, pack):
    files = builders.class_folders("train/") | {"test/1.jpg": b"1", "test/2.jpg": b"2"}
    assert opened(pack(tmp_path, files)).notes == ("2 files left out: 2 images of test/ without a class",)


@packed
@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"a/notes.txt": b"1", "a/more.txt": b"2", "b.csv": b"3"},
            r"no images: found 2 \.txt, 1 \.csv; expected CLASS/",
        ),
        ({"1.jpg": b"x", "2.jpg": b"x"}, r"2 images lie outside class folders, such as '1.jpg'"),
        ({"train/a/1.jpg": b"x", "train/2.jpg": b"x"}, r"1 images lie outside class folders, such as '2.jpg' in train"),
        ({"val/a/1.jpg": b"x", "test/a/2.jpg": b"x"}, r"has test/ but no train/"),
        (
            {"train/a/1.jpg": b"x", "train/c/1.jpg": b"x", "val/a/1.jpg": b"x", "val/b/1.jpg": b"x"},
            r"val has the class 'b', which train lacks",
        ),
        (
            {"train/a/1.jpg": b"x", "train/b/1.jpg": b"x", "val/a/1.jpg": b"x", "valid/a/1.jpg": b"x"},
            r"both val/ and valid/",
        ),
        ({"cat/1.jpg": b"x"}, r"a single class, 'cat'; name the folder that holds the folders of all classes"),
        ({"train/images/1.jpg": b"x", "val/images/1.jpg": b"x"}, r"a single class, 'images'"),
        (
            {"train/a/1.jpg": b"x", "train/b/1.jpg": b"x", "thumbs/a/1.jpg": b"x"},
            r"has train/, a split, beside 'thumbs', which is none: name a folder that holds nothing else",
        ),
        ({"a/1.jpg": b"x", "b/1.jpg": b"x", "VALIDATION/1.jpg": b"x"}, r"has VALIDATION/, a split, beside 'a'"),
        (
            {"a/b/1.jpg": b"x", "a/c/1.jpg": b"x", "d/b/1.jpg": b"x"},
            r"deeper than in their class folder, such as 'a/b/1",
        ),
        ({"a/i/1/1.jpg": b"x", "b/i/1/2.jpg": b"x"}, r"deeper than in their class folder"),
        ({"a/1.jpg": b"x", "b/c/2.jpg": b"x"}, r"different depths in \., such as 'a/1.jpg' and 'b/c/2.jpg', so which"),
        (
            {"train/a/1.jpg": b"x", "train/a/b/2.jpg": b"x", "train/b/1.jpg": b"x"},
            r"different depths in train, such as 'a/1.jpg' and 'a/b/2.jpg'",
        ),
        (
            {"x/train/1.jpg": b"x", "x/val/1.jpg": b"x"},
            r"1 images lie outside class folders, such as '1.jpg' in (x/)?train",
        ),
        ({"x/dev/a/1.jpg": b"x", "x/val/a/1.jpg": b"x"}, r"has dev/ but no train/"),
        ({"sets/train/val/1.jpg": b"x", "sets/train/test/1.jpg": b"x"}, r"test/ but no train/|names of splits"),
    ],
)
def test_unusable_layouts_are_refused_in_one_line(tmp_path, pack, files, message):
    with pytest.raises(ValueError, match=message) as error:
        opened(pack(tmp_path, files))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("images", ["", "images/"])
@pytest.mark.parametrize("kind", ["csv", "tsv"])
def test_images_whose_labels_are_in_a_table_are_refused_with_a_word_on_it(tmp_path, images, kind):
    table = {f"labels.{kind}": b"file,label\n0.jpg,cat\n"}
    folder = as_folder(tmp_path, {f"{images}{i}.jpg": b"x" for i in range(2)} | table)
    with pytest.raises(ValueError, match=rf"; labels in tables \(1 \.{kind}\) are not read: put each image"):
        opened(folder)
    (folder / f"labels.{kind}").unlink()
    with pytest.raises(ValueError, match=r"outside class folders|a single class") as error:
        opened(folder)
    assert "table" not in str(error.value)


def test_missing_and_empty_sources_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"there is no file or folder .*/gone"):
        opened(tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"/empty is empty; expected CLASS/image"):
        opened(tmp_path / "empty")
    (tmp_path / "empty.tar").write_bytes(builders.tar_bytes({}))
    with pytest.raises(ValueError, match=r"empty.tar is empty"):
        opened(tmp_path / "empty.tar")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("image.jpg", "neither a folder nor a .tar or .zip"),
        ("train.parquet", "one Parquet file; name the folder"),
        ("ILSVRC2012_img_train.tar", "one of the ILSVRC archives; name the folder"),
    ],
)
def test_single_files_that_are_no_source_say_what_to_name(tmp_path, name, message):
    (tmp_path / name).write_bytes(b"anything")
    with pytest.raises(ValueError, match=message):
        opened(tmp_path / name)


def test_a_folder_of_archives_says_to_name_one(tmp_path):
    as_tar(tmp_path, builders.class_folders())
    with pytest.raises(ValueError, match="holds the archive set.tar: name it itself, "):
        opened(tmp_path)


def test_options_for_imagenet_are_refused_elsewhere(tmp_path):
    folder = as_folder(tmp_path, builders.class_folders())
    with pytest.raises(
        ValueError,
        match="labels=devkit needs the classes of ILSVRC and its development kit: put .* or use ingest.labels=wnid",
    ):
        opened(folder, labels="devkit")
    with pytest.raises(ValueError, match="check_md5 needs the ILSVRC archives"):
        opened(folder, check_md5=True)


@packed
def test_the_fingerprint_is_of_the_content_not_of_the_place(tmp_path, pack):
    files = builders.class_folders()
    here, there = (opened(pack(tmp_path / name, files)).fingerprint for name in ("here", "there"))
    assert here == there
    changed = {
        "longer": files | {"cat/cat_0.jpg": files["cat/cat_0.jpg"] + b"\0"},
        "renamed": {path.replace("cat_1", "cat_9"): data for path, data in files.items()},
        "fewer": dict(list(files.items())[1:]),
        "other class": {path.replace("dog/", "cow/"): data for path, data in files.items()},
    }
    prints = {opened(pack(tmp_path / name, content)).fingerprint for name, content in changed.items()}
    assert len(prints | {here}) == len(changed) + 1


def test_the_real_sample_lists_all_of_its_images(real_data):
    source = opened(real_data / "imagenet-sample-500.tar")
    rows = source.splits["train"]
    assert rows.num_rows == len(source.class_names) == 500
    with tarfile.open(real_data / "imagenet-sample-500.tar") as archive:
        members = [member for member in archive if member.isfile()]
        assert rows["key"].to_pylist() == [member.name for member in members]
        for data, member in zip(source.reader.read(rows), members, strict=True):
            assert data == archive.extractfile(member).read()


def test_a_gzipped_member_is_unzipped(tmp_path):
    files = builders.class_folders()
    zipped = {path: builders.gzipped(data) if "cat_1" in path else data for path, data in files.items()}
    assert {key: data for key, (_, data) in contents(opened(as_tar(tmp_path, zipped)), "train").items()} == files
    damaged = {path: data[:40] if "cat_1" in path else data for path, data in zipped.items()}
    found = contents(opened(as_tar(tmp_path, damaged)), "train")
    assert found["cat/cat_1.jpg"][1] == damaged["cat/cat_1.jpg"]


def test_a_reader_names_the_archive_that_became_shorter(tmp_path):
    path = as_tar(tmp_path, builders.class_folders())
    source = opened(path)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(ValueError, match=r"set.tar ends inside the image at offset \d+"):
        list(source.reader.read(source.splits["train"]))


def test_val_may_be_a_share_of_train_whatever_else_there_is(tmp_path):
    files = builders.class_folders("train/", "val/", "test/")
    own = opened(as_folder(tmp_path / "all", files))
    share = opened(as_folder(tmp_path / "again", files), val_from="train", val_fraction=0.5)
    sizes = {split: table.num_rows for split, table in share.splits.items()}
    assert sizes["train"] + sizes["val"] == own.splits["train"].num_rows
    assert sizes["val"] > 0
    assert share.splits["test"].equals(own.splits["test"])
    assert share.notes[-1].endswith("the source's own val is left out")
    two = as_folder(tmp_path / "two", builders.class_folders("train/", "val/"))
    only = opened(two, val_from="train", val_fraction=0.5)
    assert only.splits["test"]["key"].equals(own.splits["val"]["key"])
    assert only.notes[-1].endswith("the source's own val is stored as test")
