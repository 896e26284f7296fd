"""ImageNet in its published layouts: labels of every split, in both orders, straight from the archives."""

import hashlib

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
    assert source.splits["val"].equals(before.splits["val"])


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
        ("ILSVRC2012_devkit_t12.tar.gz", builders.gzipped(builders.tar_bytes({"a": b""})), "kit: it lacks 'meta.mat'"),
        ("ILSVRC2012_devkit_t12.tar.gz", builders.devkit(2012, [1, 7], 6, 3), "does not hold ILSVRC ids from 1 to 6"),
        ("ILSVRC2012_devkit_t12.tar.gz", builders.devkit(2012, [1, 2], 6, 3), "image number 12, but .* 2 lines"),
        ("ILSVRC2012_devkit_t12.tar.gz", builders.devkit(2012, [1] * 12, 3, 3), "'n0.*', which is no class of the"),
        (
            "ILSVRC2012_img_val.tar",
            builders.tar_bytes({"a.txt": b"1"}),
            r"numbered .JPEG files only, but has \['a.txt'\]",
        ),
        ("ILSVRC2012_img_train.tar", builders.tar_bytes({}), "img_train.tar holds no images"),
    ],
)
def test_damaged_sets_are_refused_in_one_line(small, name, content, message):
    (small / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        opened(small)
    assert "\n" not in str(error.value)


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


def test_kaggles_solution_must_cover_val(tmp_path):
    builders.kaggle(tmp_path)
    (tmp_path / "LOC_val_solution.csv").write_text(
        "ImageId,PredictionString\nILSVRC2012_val_00000001,n01440764 1 2 3 4 \n"
    )
    with pytest.raises(ValueError, match=r"ILSVRC2012_val_00000002.JPEG has no class in LOC_val_solution.csv"):
        opened(tmp_path)
    (tmp_path / "LOC_val_solution.csv").unlink()
    with pytest.raises(ValueError, match=r"lacks LOC_val_solution.csv, which labels the images of val"):
        opened(tmp_path)
