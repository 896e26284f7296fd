"""The layouts of the Hub: folders of splits and of configurations, labels that are words; every refusal leads on."""

import re

import builders
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.sources.catalog import open_source
from pipelines.specs import IngestSpec

LABELS = {"train/0000.parquet": [0, 1, 1], "train/0001.parquet": [1, 0], "validation/0000.parquet": [1, 1, 0]}


def opened(source, **options):
    return open_source(IngestSpec(source=str(source), **{"val_fraction": 0.0} | options))


def write(folder, files, **options):
    for i, (name, labels) in enumerate(files.items()):
        place, _, file = name.rpartition("/")
        builders.huggingface(folder / place, {file: labels}, first=10 * i, **options)
    return folder


def labelled(source, split) -> list[tuple[str, bytes]]:
    """(name of the class, bytes) of each row."""
    rows = source.splits[split]
    return list(zip([source.class_names[i] for i in rows["label"].to_pylist()], source.reader.read(rows), strict=True))


@pytest.mark.parametrize("place", ["", "default", "data", "refs/default"])
@pytest.mark.parametrize("partial", ["", "partial-"])
def test_data_sets_as_the_hub_converts_them_are_read(tmp_path, place, partial):
    write(tmp_path / place, {f"{partial}{name}": labels for name, labels in LABELS.items()})
    source = opened(tmp_path / place.partition("/")[0])
    assert source.class_names == ("cat", "dog")
    expected = [("cat", 0), ("dog", 1), ("dog", 2), ("dog", 10), ("cat", 11)]
    assert labelled(source, "train") == [(name, builders.jpeg(seed)) for name, seed in expected]
    assert [name for name, _ in labelled(source, "val")] == ["dog", "dog", "cat"]
    notes = [
        f"partial-{split}/ is a part of its split: the Hub did not convert it to its end"
        for split in ("train", "validation")
    ]
    assert source.notes == (tuple(notes) if partial else ())


def test_labels_and_images_are_those_of_the_datasets_package(tmp_path):
    datasets = pytest.importorskip("datasets")
    write(tmp_path, LABELS)
    files = [str(tmp_path / name) for name in LABELS if "train" in name]
    theirs = datasets.Dataset.from_parquet(files, cache_dir=str(tmp_path / "cache"))
    theirs = theirs.cast_column("image", datasets.Image(decode=False))
    expected = [(theirs.features["label"].int2str(row["label"]), row["image"]["bytes"]) for row in theirs]
    assert labelled(opened(tmp_path), "train") == expected


def test_one_of_several_configurations_is_to_be_named(tmp_path):
    for name in ("small", "large"):
        write(tmp_path / name, LABELS)
    with pytest.raises(ValueError, match=r"several configurations: large, small; name one, such as (\S+)") as error:
        opened(tmp_path)
    named = re.search(r"such as (\S+)", str(error.value))[1]
    assert opened(named).splits["train"].num_rows == 5


@pytest.mark.parametrize(
    "name", ["default/train/0000.parquet", "train-00000-of-00001.parquet", "data/train.parquet", "x/all.parquet"]
)
def test_the_folder_that_a_single_file_leads_to_is_a_source(tmp_path, name):
    write(tmp_path, {name: [0, 1, 1]})
    with pytest.raises(ValueError, match="is one Parquet file; name the folder") as error:
        opened(tmp_path / name)
    assert [label for label, _ in labelled(opened(str(error.value).rpartition(" ")[2]), "train")] == [
        "cat",
        "dog",
        "dog",
    ]


def test_files_whose_names_say_no_split_are_trained_on_or_left_out_and_said(tmp_path):
    write(tmp_path / "a", {"part-0.parquet": [0, 1], "part-1.parquet": [1]})
    source = opened(tmp_path / "a")
    assert [name for name, _ in labelled(source, "train")] == ["cat", "dog", "dog"]
    assert source.notes == ("part-0.parquet names no split, so all rows are taken to train on",)
    write(tmp_path / "b", {"train.parquet": [0, 1], "extra.parquet": [1]})
    assert opened(tmp_path / "b").notes == (
        "1 Parquet files left out, whose names say no split, such as extra.parquet",
    )


def test_class_folders_beside_a_table_stay_class_folders(tmp_path):
    builders.write_files(tmp_path, builders.class_folders())
    write(tmp_path, {"metadata.parquet": [0, 1]})
    assert opened(tmp_path).kind == "folder"


def write_words(path, labels, kind, **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [{"bytes": builders.jpeg(i), "path": None} for i in range(len(labels))]
    pq.write_table(pa.table({"image": images, "label": pa.array(labels, pa.string()).cast(kind), **more}), path)


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_labels_that_are_words_are_numbered_by_the_alphabet(tmp_path, kind):
    write_words(tmp_path / "train-0.parquet", ["elk", "cat", "elk"], kind, width=[0, 1, 2])
    write_words(tmp_path / "train-1.parquet", ["dog"], kind)
    write_words(tmp_path / "val.parquet", ["dog", "cat"], kind)
    source = opened(tmp_path)
    assert source.class_names == ("cat", "dog", "elk")
    assert [name for name, _ in labelled(source, "train")] == ["elk", "cat", "elk", "dog"]
    assert [name for name, _ in labelled(source, "val")] == ["dog", "cat"]


@pytest.mark.parametrize(
    ("train", "val", "message"),
    [
        (["a", "b"], ["a", "c"], r"val has the class 'c', which train lacks"),
        (["a", "b"], ["a", None], r"val has no label in row 1 \(it says None\)"),
        (["a", "", "b"], ["a"], r"train has no label in row 1"),
        (["a", "a"], ["a"], r"train has the labels \['a'\], which are no classes"),
    ],
)
def test_words_that_are_no_classes_are_refused(tmp_path, train, val, message):
    write_words(tmp_path / "train.parquet", train, pa.string())
    write_words(tmp_path / "val.parquet", val, pa.string())
    with pytest.raises(ValueError, match=message):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"train/0000.parquet": [0, 1], "train/0002.parquet": [0]},
            r"lacks 1 of its Parquet files, such as train/0001",
        ),
        ({"train/0000.parquet": [0, 1], "partial-train/0000.parquet": [0]}, r"two folders of the split train"),
        ({"default/validation/0000.parquet": [0, 1]}, r"default has val Parquet files but no train"),
    ],
)
def test_files_that_are_not_there_or_twice_are_refused(tmp_path, files, message):
    with pytest.raises(ValueError, match=message):
        opened(write(tmp_path, files))


@pytest.mark.parametrize("place", ["", "data", "default"])
def test_what_lies_beside_and_is_not_read_is_named(tmp_path, place):
    write(tmp_path / place, LABELS)
    builders.write_files(tmp_path, {"README.md": b"x", "more/1.jpg": b"x", ".gitattributes": b"x"})
    assert opened(tmp_path).notes == ("beside it and not used: more/, README.md",)


IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def columns(image="image", label="label", labels=(0, 1), kind=None) -> pa.Table:
    images = [{"bytes": builders.jpeg(i), "path": None} for i in range(len(labels))]
    return pa.table({image: pa.array(images, IMAGE), label: pa.array(labels, kind)})


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"train.parquet": columns(), "val.parquet": columns(labels=("a", "b"))},
            r"val.parquet has other columns, image.bytes and label of words, than train, image.bytes and label of int",
        ),
        (
            {"train.parquet": columns(), "val.parquet": columns("img", "cls")},
            r"val.parquet has other columns, img.bytes and cls of integers, than train, image.bytes and label",
        ),
        (
            {"train-0.parquet": columns(), "train-1.parquet": columns(labels=("a", "b"))},
            r"train-1.parquet lacks the columns of the other files, image.bytes and label of integers",
        ),
        (
            {"train-0.parquet": columns(), "train-1.parquet": columns(image="img")},
            r"train-1.parquet lacks the columns of the other files, image.bytes and label of integers",
        ),
        ({"train.parquet": columns(labels=(0, 10**9))}, r"has the label 1000000000, which is no number of a class"),
        ({"train.parquet": columns(labels=(0, 10**12))}, r"has the label 1000000000000, which is no number of a class"),
        ({"train.parquet": columns(labels=(), kind=pa.int64())}, r"train.parquet has no rows"),
    ],
)
def test_files_that_do_not_agree_are_refused(tmp_path, files, message):
    for name, table in files.items():
        pq.write_table(table, tmp_path / name)
    with pytest.raises(ValueError, match=message):
        opened(tmp_path)


def test_a_number_that_is_another_class_in_another_split_is_refused(tmp_path):
    write(tmp_path, {"train.parquet": [0, 1]})
    write(tmp_path, {"val.parquet": [0, 1]}, names=("dog", "cat"))
    with pytest.raises(ValueError, match="val.parquet has other names of classes than train, such as 'dog' for 'cat'"):
        opened(tmp_path)
