"""WebDataset shards: the samples of the webdataset package, each with its label; what is incomplete is said."""

import json
import tarfile

import builders
import pytest

from pipelines.sources.catalog import open_source
from pipelines.specs import IngestSpec

TIMM = {
    "imagenet12k-train-0000.tar": {"n1_10": {"cls": "2", "json": '{"x": 1}'}, "n0_7": {"cls": "0", "json": "{}"}},
    "imagenet12k-train-0001.tar": {"n1_10": {"cls": "1\n"}, "n2_3": {"cls": "2"}, "n1_12": {"cls": "1"}},
    "imagenet12k-validation-00.tar": {"val_1": {"cls": "1"}, "val_2": {"cls": "0"}},
}


def opened(source, **options):
    return open_source(IngestSpec(source=str(source), **{"val_fraction": 0.0} | options))


def labelled(source, split) -> dict[str, tuple[str, bytes]]:
    """key -> (name of the class, bytes)."""
    rows = source.splits[split]
    names = [source.class_names[label] for label in rows["label"].to_pylist()]
    return dict(zip(rows["key"].to_pylist(), zip(names, source.reader.read(rows), strict=True), strict=True))


def test_samples_and_labels_are_those_of_the_webdataset_package(tmp_path):
    webdataset = pytest.importorskip("webdataset")
    builders.webdataset(tmp_path, TIMM)
    source = opened(tmp_path)
    for split, word in (("train", "train"), ("val", "validation")):
        paths = sorted(map(str, tmp_path.glob(f"*-{word}-*.tar")))
        theirs = [(s["jpg"], int(s["cls"])) for s in webdataset.WebDataset(paths, shardshuffle=False)]
        rows = source.splits[split]
        assert list(zip(source.reader.read(rows), rows["label"].to_pylist(), strict=True)) == theirs


def test_labels_that_are_numbers_are_kept_and_splits_come_from_the_names(tmp_path):
    images = builders.webdataset(tmp_path, TIMM)
    source = opened(tmp_path)
    assert source.class_names == ("0", "1", "2")
    assert labelled(source, "train") == {
        f"{shard[:-4]}/{key}.jpg": (texts["cls"].strip(), images[f"{shard[:-4]}/{key}.jpg"])
        for shard, samples in TIMM.items()
        if "train" in shard
        for key, texts in samples.items()
    }
    assert [name for name, _ in labelled(source, "val").values()] == ["1", "0"]
    assert source.notes == ()


@pytest.mark.parametrize("split", ["val", "Validation", "dev", "test"])
@pytest.mark.parametrize("place", ["", "data"])
def test_folders_of_splits_hold_shards_too(tmp_path, split, place):
    shards = {"train/000000.tar": {"a": {"cls": "0"}, "b": {"cls": "1"}}, f"{split}/000000.tar": {"a": {"cls": "1"}}}
    images = builders.webdataset(tmp_path / place, shards)
    source = opened(tmp_path)
    assert labelled(source, "val") == {f"{split}/000000/a.jpg": ("1", images[f"{split}/000000/a.jpg"])}
    assert source.splits["train"].num_rows == 2


def test_shards_without_a_word_for_a_split_are_train_and_one_alone_is_a_source(tmp_path):
    builders.webdataset(tmp_path, {f"shard-{i}.tar": {"a": {"cls": "0"}, "b": {"cls": "1"}} for i in range(3)})
    assert {split: rows.num_rows for split, rows in opened(tmp_path).splits.items()} == {"train": 6}
    assert opened(tmp_path / "shard-1.tar").splits["train"].num_rows == 2


@pytest.mark.parametrize(
    ("first", "second", "names"),
    [
        ({"txt": "dog"}, {"txt": "cat\n"}, ("cat", "dog")),
        ({"json": '{"label": "b"}'}, {"json": '{"label": "a"}'}, ("a", "b")),
        ({"json": '{"label": 1}'}, {"json": '{"label": 0}'}, ("0", "1")),
        ({"json": "1"}, {"json": "0"}, ("0", "1")),
        ({"cls": "1", "txt": "a dog"}, {"cls": "0", "txt": "a cat"}, ("a cat", "a dog")),
        ({"cls": "1", "json": '{"wnid": "n7"}'}, {"cls": "0", "json": '{"wnid": "n9"}'}, ("n9", "n7")),
        ({"cls": "1", "json": '{"label": 7}'}, {"cls": "0", "json": '{"label": 7}'}, ("0", "1")),
        ({"txt": "2"}, {"txt": "10"}, tuple(map(str, range(11)))),
    ],
)
def test_labels_and_names_come_from_cls_json_or_txt(tmp_path, first, second, names):
    images = builders.webdataset(tmp_path, {"a-0.tar": {"s0": first, "s1": second, "s2": first}})
    source = opened(tmp_path)
    assert source.class_names == names
    classes = [name for name, _ in labelled(source, "train").values()]
    assert classes[0] == classes[2] != classes[1]
    assert [data for _, data in labelled(source, "train").values()] == list(images.values())


def test_captions_are_no_names_of_classes(tmp_path):
    captions = ("a dog on a log", "a cat on a mat", "a dog in fog")
    builders.webdataset(tmp_path, {"a.tar": {f"{i}": {"cls": f"{i % 2}", "txt": t} for i, t in enumerate(captions)}})
    assert opened(tmp_path).class_names == ("0", "1")


def info(**more) -> dict[str, bytes]:
    train = {"name": "train", "filenames": ["imagenet12k-train-{0000..0001}.tar"], "num_samples": 5}
    val = {"name": "validation", "filenames": ["imagenet12k-validation-00.tar"], "num_samples": 2}
    return {"_info.json": json.dumps({"splits": {"train": train | more, "validation": val}}).encode()}


@pytest.mark.parametrize("place", ["", "./a.b/", "x.y/z.w/"])
def test_an_image_may_have_an_ending_of_two_parts_and_a_key_ends_at_the_first_dot_of_a_name(tmp_path, place):
    webdataset = pytest.importorskip("webdataset")
    images = [builders.jpeg(seed) for seed in range(3)]
    files = {f"{i}.{kind}": data for i in range(3) for kind, data in (("in.JPG", images[i]), ("cls", b"%d" % (i % 2)))}
    data = builders.tar_bytes({f"{place}{name}": data for name, data in files.items()})
    builders.write_files(tmp_path, {"train-0.tar": data})
    source = opened(tmp_path)
    assert [data for _, data in labelled(source, "train").values()] == images
    assert [name for name, _ in labelled(source, "train").values()] == ["0", "1", "0"]
    theirs = list(webdataset.WebDataset(str(tmp_path / "train-0.tar"), shardshuffle=False))
    assert [(sample["in.jpg"], sample["cls"]) for sample in theirs] == [(images[i], b"%d" % (i % 2)) for i in range(3)]


def test_beside_plain_images_those_with_an_ending_of_two_parts_are_none(tmp_path):
    """Also of samples, and in shards, that have no other."""
    first = {"a.jpg": b"1", "a.seg.png": b"m", "a.cls": b"0", "b.seg.png": b"m", "b.depth.png": b"m", "b.cls": b"1"}
    second = {"c.seg.png": b"m", "c.cls": b"1", "d.seg.png": b"m", "d.cls": b"0"}
    files = {"train-0.tar": builders.tar_bytes(first), "train-1.tar": builders.tar_bytes(second)}
    builders.write_files(tmp_path, files | {"classes.txt": b"cat\ndog"})
    source = opened(tmp_path)
    assert labelled(source, "train") == {"train-0/a.jpg": ("cat", b"1")}
    assert source.notes[:2] == (
        "5 files left out: 4 .seg.png, 1 .depth.png",
        "3 samples without an image left out, such as train-0/b.seg.png",
    )


def test_what_the_set_says_of_itself_is_compared(tmp_path):
    builders.webdataset(tmp_path, TIMM)
    builders.write_files(tmp_path, info())
    assert opened(tmp_path).notes == ()
    builders.write_files(tmp_path, info(num_samples=6))
    assert opened(tmp_path).notes == ("train has 5 images, and _info.json says 6",)
    builders.write_files(tmp_path, info(filenames=["imagenet12k-train-{0000..0003}.tar"]))
    with pytest.raises(ValueError, match=r"lacks 2 of the shards that _info.json lists, such as .*train-0002.tar"):
        opened(tmp_path)
    for odd in ('{"splits": [1]}', '{"splits": {"train": 3}}', '{"splits": {"train": {"filenames": 3}}}'):
        (tmp_path / "_info.json").write_text(odd)
        with pytest.raises(ValueError, match=r"_info.json is not as timm writes it: .*; take it away"):
            opened(tmp_path)
    (tmp_path / "_info.json").write_text("{")
    with pytest.raises(ValueError, match=r"_info.json is no JSON"):
        opened(tmp_path)


def test_names_of_classes_lie_beside_the_shards(tmp_path):
    builders.webdataset(tmp_path, TIMM)
    builders.write_files(tmp_path, {"classnames.txt": b"tench\ncrane\ncrane\n"})
    source = opened(tmp_path)
    assert source.class_names == ("0", "1", "2")
    assert source.class_titles == ("tench", "crane", "crane")
    builders.write_files(tmp_path, {"classnames.txt": b"tench\ncrane\nelk"})
    assert opened(tmp_path).class_names == ("tench", "crane", "elk")
    builders.write_files(tmp_path, {"classnames.txt": b"tench\ncrane"})
    with pytest.raises(ValueError, match="has the label 2, but there are 2 names of classes"):
        opened(tmp_path)


def test_samples_that_are_not_whole_are_counted(tmp_path):
    files = {"a.jpg": b"1", "a.cls": b"0", "b.jpg": b"2", "c.cls": b"1", "d.jpg": b"4", "d.cls": b"-1", "e.png": b"5"}
    files |= {"e.cls": b"3", "e.npy": b"x", "LICENSE": b"free", "._f.jpg": b"mac"}
    builders.write_files(tmp_path, {"train-1.tar": builders.tar_bytes(files), "train-3.tar": builders.tar_bytes(files)})
    source = opened(tmp_path)
    assert list(labelled(source, "train")) == [f"train-{i}/{name}" for i in (1, 3) for name in ("a.jpg", "e.png")]
    assert source.notes == (
        "6 files left out: 4 without an ending, 2 .npy",
        "2 samples without an image left out, such as train-1/c.cls",
        "4 samples without a label left out, such as train-1/b.jpg",
        "2 classes have no image to train on, such as '1'; each keeps its label",
        "1 shards are missing by their numbers, such as train-2",
    )


def test_names_that_say_how_many_shards_there_are_are_counted_to_the_last(tmp_path):
    sample = {"a": {"cls": "0"}, "b": {"cls": "1"}}
    builders.webdataset(tmp_path, {f"x-0000{i}-of-00004.tar": sample for i in range(3)})
    assert opened(tmp_path).notes == ("1 shards are missing by their numbers, such as x-3",)


@pytest.mark.parametrize(
    ("shards", "message"),
    [
        ({"a.tar": {"a.jpg": b"1", "a.png": b"2", "a.cls": b"0"}}, r"a sample has the images a.jpg and a.png"),
        (
            {"a.tar": [("a.jpg", b"1"), ("a.cls", b"0"), ("a.cls", b"1"), ("b.jpg", b"2"), ("b.cls", b"0")]},
            r"a sample has a.cls twice, so which is it\? Pack it again with one",
        ),
        (
            {"a.tar": [(f"{key}.{kind}", b"1") for key in "aba" for kind in ("jpg", "cls")]},
            r"a.tar holds 'a.jpg' 2 times, at offsets \[512, 4608\]; pack it again",
        ),
        (
            {"a.tar": {"a.in.jpg": b"1", "a.out.jpg": b"2", "a.cls": b"0"}},
            r"a sample has the images a.in.jpg and a.out.jpg, so which is it\? Pack it again with one",
        ),
        ({"a.tar": {"a.jpg": b"1", "a.cls": b"0", "b.jpg": b"1", "b.cls": b"dog"}}, r"others are not, such as 'dog'"),
        ({"a.tar": {"a.jpg": b"1", "a.cls": b"1440764"}}, r"has the label 1440764, which is no number of a class"),
        ({"a.tar": {"a.jpg": b"1", "a.cls": b"0"}}, r"holds a single class, '0'; name what holds all classes"),
        ({"a.tar": {"a.jpg": b"1", "a.cls": b""}}, r"no sample has both an image and a label"),
        ({"a.tar": {"a.jpg": b"1", "a.json": b"{"}}, r"a.tar: a.json is no JSON"),
        (
            {"train.tar": {"a.jpg": b"1", "a.cls": b"0"}, "x.tar": {"a.jpg": b"", "a.cls": b"1"}},
            r"x.tar names no split",
        ),
        ({"train/a-val-0.tar": {"a.jpg": b"1", "a.cls": b"0"}}, r"train/a-val-0.tar names several splits"),
        ({"train-dev.tar": {"a.jpg": b"1", "a.cls": b"0"}}, r"train-dev.tar names several splits"),
        ({"a.tar": {"a.jpg": b"1", "a.cls": b"0"}, "b.tar": {"LICENSE": b"x"}}, r"b.tar holds no samples"),
    ],
)
def test_what_cannot_be_told_is_refused_in_one_line(tmp_path, shards, message):
    builders.write_files(tmp_path, {name: builders.tar_bytes(files) for name, files in shards.items()})
    with pytest.raises(ValueError, match=message) as error:
        opened(tmp_path)
    assert "\n" not in str(error.value)


def test_class_folders_with_a_text_beside_each_image_stay_class_folders(tmp_path):
    files = builders.class_folders()
    texts = {path.replace(".jpg", ".json"): b'{"label": 5}' for path in files}
    builders.write_files(tmp_path, {"a.tar": builders.tar_bytes(dict(sorted((files | texts).items())))})
    assert opened(tmp_path / "a.tar").kind == "tar"


def test_a_cut_shard_is_refused(tmp_path):
    builders.webdataset(tmp_path, TIMM)
    path = tmp_path / "imagenet12k-train-0001.tar"
    path.write_bytes(path.read_bytes()[:4000])
    with pytest.raises(ValueError, match=r"train-0001.tar is truncated"):
        opened(tmp_path)


def test_links_in_a_shard_are_refused(tmp_path):
    builders.webdataset(tmp_path, {"a.tar": {f"{i:03d}": {"cls": "0"} for i in range(150)}})
    with tarfile.open(tmp_path / "a.tar", "a") as archive:
        link = tarfile.TarInfo("zzz.jpg")
        link.type, link.linkname = tarfile.LNKTYPE, "000.jpg"
        archive.addfile(link)
        archive.addfile(tarfile.TarInfo("zzz.txt"))
    with pytest.raises(ValueError, match=r"a.tar holds links, .*; pack the files themselves"):
        opened(tmp_path)


def test_labels_are_of_one_kind_of_file(tmp_path):
    """Numbers in .json may count otherwise than those in .cls."""
    texts = {"a": {"cls": "1"}, "b": {"json": '{"label": 9}'}, "c": {"cls": "0"}}
    builders.webdataset(tmp_path, {"a.tar": texts})
    source = opened(tmp_path)
    assert [name for name, _ in labelled(source, "train").values()] == ["1", "0"]
    assert source.notes == ("1 samples without a label left out, such as a/b.jpg",)


def test_shards_here_and_in_a_folder_of_a_split_are_read_together_and_the_rest_is_named(tmp_path):
    shards = {"train-0.tar": {"a": {"cls": "0"}, "b": {"cls": "1"}}, "val/0.tar": {"a": {"cls": "1"}}}
    builders.webdataset(tmp_path, shards)
    builders.write_files(tmp_path, {"test/1.jpg": b"x", "README.md": b"x", "classnames.txt": b"cat\ndog"})
    source = opened(tmp_path)
    assert {split: rows.num_rows for split, rows in source.splits.items()} == {"train": 2, "val": 1}
    assert source.notes == ("beside it and not used: test/, README.md",)
