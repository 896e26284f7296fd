"""ImageNet in its published layouts: labels of every split, in both orders, straight from the archives."""

import gzip
import hashlib
import tarfile

import builders
import numpy as np
import pytest

from pipelines.sources import ilsvrc
from pipelines.sources.catalog import open_source
from pipelines.specs import IngestSpec


def opened(source, cache=None, **options):
    return open_source(IngestSpec(source=str(source), **options), cache)


def wnid_of(id_: int, num_classes: int = 1000) -> str:
    return builders.synsets(num_classes, 0)[id_ - 1][1]


def labelled(source) -> dict[str, int]:
    return {
        key: label
        for rows in source.splits.values()
        for key, label in zip(rows["key"].to_pylist(), rows["label"].to_pylist(), strict=True)
    }


@pytest.fixture(scope="module", params=[2010, 2012])
def edition(request, tmp_path_factory):
    """(folder, ILSVRC id of every image, year); the kit has the 1,000 classes and all ancestors of the true one."""
    folder = tmp_path_factory.mktemp(f"ilsvrc{request.param}")
    ids = builders.ilsvrc(folder, request.param, num_ancestors=860 if request.param == 2012 else 676)
    return folder, ids, request.param


def test_labels_in_the_kits_order_are_ilsvrc_id_minus_1(edition):
    folder, ids, year = edition
    source = opened(folder, labels="devkit")
    assert source.kind == f"ilsvrc{year}"
    assert list(source.splits) == (["train", "val"] if year == 2012 else ["train", "val", "test"])
    assert labelled(source) == {key: id_ - 1 for key, id_ in ids.items()}
    assert source.class_names == tuple(wnid_of(id_) for id_ in range(1, 1001))
    assert source.class_titles[0] == builders.synsets(1000, 0)[0][2]


def test_labels_in_wnid_order_are_places_among_the_sorted_wnids(edition):
    folder, ids, _ = edition
    source = opened(folder)
    wnids = sorted(wnid_of(id_) for id_ in range(1, 1001))
    assert source.class_names == tuple(wnids)
    assert labelled(source) == {key: wnids.index(wnid_of(id_)) for key, id_ in ids.items()}
    assert all(name in title for name, title in zip(source.class_names, source.class_titles, strict=True))


def test_images_are_read_in_place_in_any_order(edition):
    folder, ids, year = edition
    source = opened(folder)
    seeds = {builders.jpeg(seed): seed for seed in range(1, 80)}
    train, val = source.splits["train"], source.splits["val"]
    order = np.random.default_rng(0).permutation(train.num_rows)
    assert [seeds[data] for data in source.reader.read(train.take(order))] == [
        int(i) + 1 for i in train_seeds(train)[order]
    ]
    count = len(val)
    assert [seeds[data] for data in source.reader.read(val)] == list(range(18 + count, 18, -1))


def train_seeds(train) -> np.ndarray:
    """The builder made the images class by class in the kit's order; the archive holds the classes sorted."""
    made = [wnid_of(id_) for id_ in range(1, 7) for _ in range(3)]
    keys = [f"{wnid}/{wnid}_{3 * (i % 3) + 1}.JPEG" for i, wnid in enumerate(made)]
    return np.array([keys.index(key) for key in train["key"].to_pylist()])


def test_an_index_kept_from_before_gives_the_same_source(edition, tmp_path):
    folder, _, _ = edition
    first = opened(folder, tmp_path)
    again = opened(folder, tmp_path)
    assert again.fingerprint == first.fingerprint == opened(folder).fingerprint
    assert all(again.splits[split].equals(rows) for split, rows in first.splits.items())


def test_patched_images_replace_the_blank_ones(tmp_path):
    ids = builders.ilsvrc(tmp_path, 2010, num_classes=6, num_ancestors=3)
    before = opened(tmp_path)
    train_key = before.splits["train"]["key"][4].as_py()
    patch = {
        f"patch_images/train/{train_key.rpartition('/')[2]}": builders.jpeg(901),
        "patch_images/test/ILSVRC2010_test_00000002.JPEG": builders.jpeg(902),
    }
    builders.write_files(tmp_path, {"patch_images.tar": builders.tar_bytes(patch)})
    source = opened(tmp_path)
    assert labelled(source) == labelled(before)
    assert len(ids) == len(labelled(source))
    assert source.fingerprint != before.fingerprint
    for split, position, seed in (("train", 4, 901), ("test", 1, 902)):
        expected = list(before.reader.read(before.splits[split]))
        expected[position] = builders.jpeg(seed)
        assert list(source.reader.read(source.splits[split])) == expected
    assert source.splits["val"].to_pylist() == before.splits["val"].to_pylist()


@pytest.fixture
def small(tmp_path):
    builders.ilsvrc(tmp_path, 2012, num_classes=6, num_ancestors=3)
    return tmp_path


def test_without_the_val_archive_a_share_of_train_serves(small):
    (small / "ILSVRC2012_img_val.tar").unlink()
    assert {split: rows.num_rows > 0 for split, rows in opened(small, val_fraction=0.4).splits.items()} == {
        "train": True,
        "val": True,
    }


def test_a_missing_kit_is_named(small):
    (small / "ILSVRC2012_devkit_t12.tar.gz").unlink()
    with pytest.raises(ValueError, match="lacks ILSVRC2012_devkit_t12.tar.gz, which says which class is which"):
        opened(small)


def test_a_missing_test_truth_is_named(tmp_path):
    builders.ilsvrc(tmp_path, 2010, num_classes=6, num_ancestors=3)
    (tmp_path / "ILSVRC2010_test_ground_truth.txt").unlink()
    with pytest.raises(ValueError, match="lacks ILSVRC2010_test_ground_truth.txt, which labels the test images"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("ILSVRC2012_devkit_t12.tar.gz", b"garbage", "devkit_t12.tar.gz is damaged"),
        ("ILSVRC2012_devkit_t12.tar.gz", builders.devkit(2012, [1] * 12, 6, 3)[:-100], "devkit_t12.tar.gz is damaged"),
        ("ILSVRC2012_devkit_t12.tar.gz", builders.kit_with(b"no matlab"), "meta.mat is damaged: .*; fetch it again"),
        (
            "ILSVRC2012_devkit_t12.tar.gz",
            builders.gzipped(builders.tar_bytes({"a": b""})),
            "kit: it lacks ILSVRC…_validation",
        ),
        ("ILSVRC2012_devkit_t12.tar.gz", builders.devkit(2012, [1, 7], 6, 3), "does not hold ILSVRC ids from 1 to 6"),
        (
            "ILSVRC2012_devkit_t12.tar.gz",
            builders.devkit(2012, [1, 2, 3, 4, 5, 6], 6, 3),
            "image number 12, but .* 6 lines",
        ),
        ("ILSVRC2012_devkit_t12.tar.gz", builders.devkit(2012, [1, 2, 3], 3, 3), "'n0.*', which is no class of the"),
        (
            "ILSVRC2012_img_val.tar",
            builders.tar_bytes({"a.txt": b"1"}),
            r"img_val.tar holds no images: found 1 .txt",
        ),
        (
            "ILSVRC2012_img_val.tar",
            builders.tar_bytes({"ILSVRC2012_val_00000001.JPEG": b"1", "ILSVRC2010_val_00000002.JPEG": b"1"}),
            r"holds 'ILSVRC2010_val_00000002.JPEG', whose label is not known: names are like ILSVRC2012_val_00000001",
        ),
        (
            "ILSVRC2012_img_val.tar",
            builders.tar_bytes({f"ILSVRC2012_val_00000003.{kind}": b"1" for kind in ("jpg", "JPEG")}),
            r"has 2 images of the number 3; keep one",
        ),
        (
            "ILSVRC2012_img_val.tar",
            builders.tar_bytes({"ILSVRC2012_val_00000000.JPEG": b"1"}),
            "an image number 0, but",
        ),
        ("ILSVRC2012_img_train.tar", builders.tar_bytes({}), "img_train.tar holds no images"),
    ],
)
def test_damaged_sets_are_refused_in_one_line(small, name, content, message):
    (small / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        opened(small)
    assert "\n" not in str(error.value)


PUBLISHED = builders.truth(1000, 50)


@pytest.mark.parametrize(
    ("num_classes", "ids", "message"),
    [
        (6, [1, 2, 3, 4, 5, 6, 6], "the class 1 has 1 images and the class 6 has 2, where each has as many"),
        (6, [1, 2, 3, 4, 5], "the class 6 has 0 images and the class 1 has 1"),
        (1000, list(range(1, 1001)), "1,000 classes and the labels of 1,000 validation images, where ILSVRC2012 has"),
        (10, [i % 10 + 1 for i in range(50_000)], "10 classes and the labels of 50,000 validation images"),
        (1000, sorted(PUBLISHED), r"begin with the classes \[1, 1, 1, 1\], not \[490, 361, 171, 822\]"),
        (1000, PUBLISHED[4:] + PUBLISHED[:4], "so they were put in another order; fetch it again"),
    ],
)
def test_a_kit_that_is_not_the_published_one_is_refused(small, num_classes, ids, message):
    (small / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(builders.devkit(2012, ids, num_classes, 3))
    with pytest.raises(ValueError, match=message):
        opened(small)


def test_a_truth_of_the_test_images_that_is_not_the_published_one_is_refused(tmp_path):
    builders.ilsvrc(tmp_path, 2010, num_ancestors=3)
    (tmp_path / "ILSVRC2010_test_ground_truth.txt").write_text("".join(f"{i}\n" for i in range(1, 1001)))
    with pytest.raises(ValueError, match="has 1,000 lines, not 150,000 as published; fetch it again"):
        opened(tmp_path)


def test_the_kit_of_task_3_is_no_kit(small):
    (small / "ILSVRC2012_devkit_t12.tar.gz").rename(small / "ILSVRC2012_devkit_t3.tar.gz")
    with pytest.raises(ValueError, match="lacks ILSVRC2012_devkit_t12.tar.gz"):
        opened(small)


def test_a_kit_of_another_year_is_refused(small):
    (small / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(builders.devkit(2010, [1, 2, 3, 4, 5, 6], 6, 3))
    with pytest.raises(ValueError, match="is the kit of ILSVRC2010; put ILSVRC2012_devkit_t12.tar.gz in its place"):
        opened(small)


@pytest.mark.parametrize("name", ["devkit_t12.tar.gz", "devkit_t12.tgz", "devkit_t12.tar", "devkit_t12 (1).tar.gz"])
@pytest.mark.parametrize("unzipped", [True, False])
def test_the_kit_opens_by_content_whatever_a_browser_made_of_it(small, name, unzipped):
    expected = opened(small)
    kit = (small / "ILSVRC2012_devkit_t12.tar.gz").read_bytes()
    (small / "ILSVRC2012_devkit_t12.tar.gz").unlink()
    (small / f"ILSVRC2012_{name}").write_bytes(gzip.decompress(kit) if unzipped else kit)
    source = opened(small)
    assert labelled(source) == labelled(expected)
    assert source.class_titles == expected.class_titles


@pytest.mark.parametrize("around", ["", "ILSVRC2012_devkit_t12", "devkit"])
def test_the_kit_opens_as_the_folder_that_it_unpacks_to(small, around):
    expected = opened(small)
    with tarfile.open(small / "ILSVRC2012_devkit_t12.tar.gz") as kit:
        kit.extractall(small / around, filter="data")
    (small / "ILSVRC2012_devkit_t12.tar.gz").unlink()
    source = opened(small, small / "cache")
    assert labelled(source) == labelled(expected)
    assert labelled(opened(small, small / "cache")) == labelled(expected)


def test_labels_come_from_the_number_in_the_name_and_missing_ones_are_said(small):
    expected = labelled(opened(small))
    members = builders.tar_members((small / "ILSVRC2012_img_val.tar").read_bytes())
    for number in (1, 5, 12):
        del members[f"ILSVRC2012_val_{number:08d}.JPEG"]
    (small / "ILSVRC2012_img_val.tar").write_bytes(builders.tar_bytes(members))
    source = opened(small)
    assert {key: expected[key] for key in members} == {key: labelled(source)[key] for key in members}
    assert source.splits["val"].num_rows == 9
    assert source.notes == ("3 of 12 images ILSVRC2012_val_… are missing, such as number 1",)


def test_the_images_that_lack_of_the_published_ones_are_counted(edition):
    folder, _, year = edition
    train = {2010: "1,261,388 of 1,261,406", 2012: "1,281,149 of 1,281,167"}[year]
    missing = [f"train: {train} published images are missing"]
    missing += [f"49,988 of 50,000 images ILSVRC{year}_val_… are missing, such as number 13"]
    missing += ["149,988 of 150,000 images ILSVRC2010_test_… are missing, such as number 13"] * (year == 2010)
    assert list(opened(folder).notes) == missing


SIDE_FILES = {"._a.JPEG": b"mac", ".DS_Store": b"", "README": b"", "x.txt": b"", "@eaDir/b.JPEG": b"x"}


def test_side_files_are_skipped_in_every_archive_alike_and_counted(small):
    expected = labelled(opened(small))
    for name in ("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"):
        members = builders.tar_members((small / name).read_bytes())
        inner, _ = next(iter(members.items()))
        if inner.endswith(".tar"):
            members[inner] = builders.tar_bytes(builders.tar_members(members[inner]) | SIDE_FILES)
        (small / name).write_bytes(builders.tar_bytes(members | SIDE_FILES))
    source = opened(small)
    assert labelled(source) == expected
    total, _, kinds = source.notes[0].partition(" files left out: ")
    assert total == "15"
    assert set(kinds.split(", ")) == {"6 without an ending", "3 .jpeg", "3 .txt", "3 in hidden folders"}


def test_md5_sums_are_checked_on_request_and_only_once(small, tmp_path, monkeypatch):
    assert opened(small)
    with pytest.raises(ValueError, match="has the MD5 sum [0-9a-f]{32}, not 1d675b47d978889d74fa0da5fadfb00e; fetch"):
        opened(small, check_md5=True)
    sums = ilsvrc.EDITIONS[0].md5
    for name in sums:
        monkeypatch.setitem(sums, name, hashlib.md5((small / name).read_bytes()).hexdigest())
    opened(small, tmp_path / "cache", check_md5=True)
    monkeypatch.setattr(ilsvrc, "_md5", pytest.fail)  # would fail if it were called again
    opened(small, tmp_path / "cache", check_md5=True)


def test_md5_sums_that_were_never_published_cannot_be_checked(tmp_path):
    builders.ilsvrc(tmp_path, 2010, num_classes=6, num_ancestors=3)
    with pytest.raises(ValueError, match="no MD5 sums are known for ILSVRC2010"):
        opened(tmp_path, check_md5=True)


def test_a_folder_of_synset_tars(tmp_path):
    tars = {}
    for wnid, count in (("n02000000", 2), ("n01000000", 3)):
        members = {f"{wnid}_{i}.JPEG": builders.jpeg(i) for i in range(count)}
        tars[f"{wnid}.tar"] = builders.tar_bytes(members)
    builders.write_files(tmp_path / "set", tars | {"other.tar": b"", "readme": b""})
    source = opened(tmp_path / "set", tmp_path / "cache", val_fraction=0)
    assert source.class_names == ("n01000000", "n02000000")
    rows = source.splits["train"]
    assert rows["key"].to_pylist() == [
        f"n0{k}000000/n0{k}000000_{i}.JPEG" for k, n in ((1, 3), (2, 2)) for i in range(n)
    ]
    assert rows["label"].to_pylist() == [0, 0, 0, 1, 1]
    assert rows["file"].to_pylist() == ["n01000000.tar"] * 3 + ["n02000000.tar"] * 2
    assert list(source.reader.read(rows)) == [builders.jpeg(i) for i in (0, 1, 2, 0, 1)]
    assert opened(tmp_path / "set", tmp_path / "cache", val_fraction=0).fingerprint == source.fingerprint


def test_many_archives_are_read_with_few_open_files(tmp_path):
    import resource

    names = [f"n{i:08d}" for i in range(300)]
    builders.write_files(
        tmp_path, {f"{n}.tar": builders.tar_bytes({f"{n}_{i}.JPEG": n.encode() for i in range(2)}) for n in names}
    )
    source = opened(tmp_path, val_fraction=0)
    rows = source.splits["train"].take(np.random.default_rng(0).permutation(600))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (150, hard))
    try:
        read = list(source.reader.read(rows))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert [data.decode() for data in read] == [key[:9] for key in rows["key"].to_pylist()]


def test_kaggles_layout(tmp_path):
    source = opened(builders.kaggle(tmp_path))
    assert source.kind == "kaggle"
    assert source.class_names == ("n01440764", "n02089867")
    assert source.class_titles == ("thing 64, other", "thing 67, other")
    assert {split: rows.num_rows for split, rows in source.splits.items()} == {"train": 4, "val": 3}
    assert labelled(source)["n02089867/n02089867_1.JPEG"] == 1
    assert source.splits["val"]["label"].to_pylist() == [1, 0, 1]
    assert list(source.reader.read(source.splits["val"])) == [builders.jpeg(50 + i) for i in (1, 2, 3)]
    assert list(source.reader.read(source.splits["train"])) == [builders.jpeg(i) for i in (0, 1, 0, 1)]


def test_side_files_in_class_tars_and_in_kaggles_folders_are_skipped_and_counted(tmp_path):
    tars = {f"n0{i}000000.tar": builders.tar_bytes({f"{i}.JPEG": builders.jpeg(i)} | SIDE_FILES) for i in (1, 2)}
    source = opened(builders.write_files(tmp_path / "tars", tars), val_fraction=0)
    assert labelled(source) == {"n01000000/1.JPEG": 0, "n02000000/2.JPEG": 1}
    assert source.notes[0].startswith("10 files left out: ")
    before = labelled(opened(builders.kaggle(tmp_path / "kaggle")))
    data = tmp_path / "kaggle" / "ILSVRC/Data/CLS-LOC"
    builders.write_files(data / "val", SIDE_FILES)
    builders.write_files(data / "train/n01440764", SIDE_FILES)
    source = opened(tmp_path / "kaggle")
    assert labelled(source) == before
    assert [note.partition(" files left out: ")[0] for note in source.notes] == ["12"]


def test_a_class_tar_without_images_keeps_its_label_and_one_set_without_any_is_refused(tmp_path):
    full, empty = builders.tar_bytes({"1.JPEG": b"1"}), builders.tar_bytes({"README": b""})
    builders.write_files(tmp_path / "a", {"n01000000.tar": empty, "n02000000.tar": full})
    source = opened(tmp_path / "a", val_fraction=0)
    assert labelled(source) == {"n02000000/1.JPEG": 1}
    assert source.notes[1:] == ("1 classes have no image, such as 'n01000000'; each keeps its label",)
    with pytest.raises(ValueError, match="there are no images in its class tars"):
        opened(builders.write_files(tmp_path / "b", {"n01000000.tar": empty}))


def test_kaggles_solution_must_cover_val(tmp_path):
    builders.kaggle(tmp_path)
    (tmp_path / "LOC_val_solution.csv").write_text(
        "ImageId,PredictionString\nILSVRC2012_val_00000001,n01440764 1 2 3 4 \n"
    )
    with pytest.raises(ValueError, match=r"ILSVRC2012_val_00000002.JPEG has no class in LOC_val_solution.csv"):
        opened(tmp_path)
    (tmp_path / "LOC_val_solution.csv").unlink()
    with pytest.raises(
        ValueError, match=r"number alone: put ILSVRC2012_devkit_t12.tar.gz, or Kaggle's LOC_val_solution.csv, into"
    ):
        opened(tmp_path)


def class_tars(*wnids: str, images: int = 2) -> dict[str, bytes]:
    """n01000000.tar with n01000000_0.JPEG ..; each image tells where it is from."""
    return {
        f"{wnid}.tar": builders.tar_bytes({f"{wnid}_{i}.JPEG": f"{wnid}_{i}".encode() for i in range(images)})
        for wnid in wnids
    }


@pytest.mark.parametrize("around", ["", "winter21_whole/", "./"])
def test_the_whole_of_imagenet_as_one_tar_of_class_tars(tmp_path, around):
    tars = {f"{around}{name}": data for name, data in class_tars("n02000000", "n01000000", "n03000000").items()}
    builders.write_files(tmp_path, {"fall11_whole.tar": builders.tar_bytes(tars)})
    source = opened(tmp_path / "fall11_whole.tar", val_fraction=0)
    assert source.class_names == ("n01000000", "n02000000", "n03000000")
    assert labelled(source) == {f"n0{k}000000/n0{k}000000_{i}.JPEG": k - 1 for k in (1, 2, 3) for i in (0, 1)}
    rows = source.splits["train"]
    assert [data.decode() for data in source.reader.read(rows)] == [
        key.partition("/")[2].removesuffix(".JPEG") for key in rows["key"].to_pylist()
    ]
    assert source.notes == ()


def test_class_tars_in_split_folders_of_one_tar_are_of_their_split(tmp_path):
    tars = {f"{split}/{name}": data for split in ("train", "val") for name, data in class_tars("n01", "n02").items()}
    builders.write_files(tmp_path, {"set.tar": builders.tar_bytes(tars)})
    source = opened(tmp_path / "set.tar")
    assert {split: rows["key"].to_pylist() for split, rows in source.splits.items()} == {
        split: [f"n0{k}/n0{k}_{i}.JPEG" for k in (1, 2) for i in (0, 1)] for split in ("train", "val")
    }


def test_a_tar_with_class_tars_beside_class_folders_is_refused_with_both_counts(tmp_path):
    mixed = class_tars("n01", "n02") | {"n03/1.JPEG": b"", "n03/README": b""}
    builders.write_files(tmp_path, {"set.tar": builders.tar_bytes(mixed)})
    with pytest.raises(ValueError, match=r"4 images in tars, such as 'n01.tar/n01_0.JPEG', and 1 others, such as 'n03"):
        opened(tmp_path / "set.tar")


def test_what_lies_beside_a_source_and_is_not_used_is_named(small, tmp_path):
    before = labelled(opened(small))
    builders.write_files(small, {"train/n01440764/1.JPEG": b"x", "val/1.JPEG": b"x", ".hidden": b"", "a.txt": b""})
    builders.write_files(small, {"ILSVRC2012_img_test.tar": b"", "n01440764.tar": b""})
    source = opened(small)
    assert labelled(source) == before
    assert source.notes == ("beside it and not used: train/, val/, ILSVRC2012_img_test.tar and 2 more",)


@pytest.mark.parametrize("beside", ["val/x.JPEG", "validation.tar", "ILSVRC2012_img_val.tar", "test/n01/1.JPEG"])
def test_a_split_beside_class_tars_is_refused_and_other_things_are_named(tmp_path, beside):
    builders.write_files(tmp_path, class_tars("n01000000", "n02000000") | {"thumbs/1.JPEG": b"x", "other.tar": b"x"})
    assert opened(tmp_path).notes == ("beside it and not used: thumbs/, other.tar",)
    builders.write_files(tmp_path, {beside: b"x"})
    with pytest.raises(ValueError, match=f"beside {beside.partition('/')[0]}, which looks like a split"):
        opened(tmp_path)


@pytest.mark.parametrize("around", ["fall11", "a/b"])
def test_class_tars_are_found_below_folders_around_them(tmp_path, around):
    builders.write_files(tmp_path / "set" / around, class_tars("n01000000", "n02000000"))
    (tmp_path / "set" / "README").write_bytes(b"")
    source = opened(tmp_path / "set", val_fraction=0)
    assert labelled(source) == {f"n0{k}000000/n0{k}000000_{i}.JPEG": k - 1 for k in (1, 2) for i in (0, 1)}
    assert source.notes == ("beside it and not used: README",)


def test_an_archive_beside_class_folders_is_named(tmp_path):
    builders.write_files(tmp_path, builders.class_folders() | {"more.tar": b"x", "a.txt": b"x"})
    assert "beside it and not used: more.tar" in opened(tmp_path).notes


def test_kaggles_other_files_are_named(tmp_path):
    builders.kaggle(tmp_path)
    builders.write_files(tmp_path, {"LOC_train_solution.csv": b"", "ILSVRC/Annotations/a.xml": b""})
    assert opened(tmp_path).notes[-1] == "beside it and not used: LOC_train_solution.csv"


@pytest.mark.parametrize("named", ["ILSVRC", "ILSVRC/Data", "ILSVRC/Data/CLS-LOC"])
def test_kaggles_copy_is_the_same_named_by_any_of_its_folders(tmp_path, named):
    whole, inner = opened(builders.kaggle(tmp_path)), opened(tmp_path / named)
    assert labelled(inner) == labelled(whole)
    assert (inner.kind, inner.fingerprint, inner.class_titles) == (whole.kind, whole.fingerprint, whole.class_titles)
    assert list(inner.reader.read(inner.splits["val"])) == list(whole.reader.read(whole.splits["val"]))


def test_kaggles_images_in_a_tar_with_the_table_beside_it(tmp_path):
    whole = opened(builders.kaggle(tmp_path))
    with tarfile.open(tmp_path / "imagenet_object_localization_patched2019.tar", "w") as tar:
        tar.add(tmp_path / "ILSVRC", "ILSVRC")
    source = opened(tmp_path / "imagenet_object_localization_patched2019.tar")
    assert labelled(source) == labelled(whole)
    assert source.class_titles == whole.class_titles


def test_images_that_kaggles_table_knows_and_that_are_not_there_are_counted(tmp_path):
    builders.kaggle(tmp_path)
    (tmp_path / "ILSVRC/Data/CLS-LOC/val/ILSVRC2012_val_00000002.JPEG").unlink()
    note = "1 images that LOC_val_solution.csv labels are missing, such as ILSVRC2012_val_00000002"
    assert note in opened(tmp_path).notes


def test_published_images_that_kaggles_copy_lacks_are_counted(tmp_path):
    wnids = [f"n{i:08d}" for i in range(1000)]
    builders.write_files(tmp_path, {f"CLS-LOC/train/{wnid}/{wnid}_1.JPEG": b"x" for wnid in wnids})
    assert "train: 1,280,167 of 1,281,167 published images are missing" in opened(tmp_path, val_fraction=0).notes
