"""Hugging Face Parquet and CIFAR pickles: the columns found, the labels checked, every image read from its row."""

import io
import pickle

import builders
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipelines.sources import huggingface
from pipelines.sources.catalog import open_source
from pipelines.specs import IngestSpec


def opened(source, cache=None, **options):
    return open_source(IngestSpec(source=str(source), **options), cache)


TWO_FILES = {"train-00000-of-00002.parquet": [0, 1, 1, 0, 1, 0, 0], "train-00001-of-00002.parquet": [1, 0, 1, 1]}
VALIDATION = {"validation-00000-of-00001.parquet": [1, 1, 0]}


@pytest.mark.parametrize("place", ["", "data"])
def test_labels_names_and_splits_come_from_the_files(tmp_path, place):
    builders.huggingface(tmp_path / place, TWO_FILES | VALIDATION)
    source = opened(tmp_path)
    assert source.class_names == ("cat", "dog")
    assert source.splits["train"]["label"].to_pylist() == [0, 1, 1, 0, 1, 0, 0, 1, 0, 1, 1]
    assert source.splits["val"]["label"].to_pylist() == [1, 1, 0]
    assert source.splits["train"]["key"].to_pylist() == [f"train/{i}" for i in range(11)]
    assert source.splits["train"]["offset"].to_pylist() == [*range(7), *range(4)]
    assert min(source.splits["train"]["size"].to_pylist()) > 100


@pytest.mark.parametrize("val", ["valid-00000-of-00001", "val", "Validation-0", "dev_0", "validation.0"])
def test_a_validation_split_has_many_names(tmp_path, val):
    source = opened(builders.huggingface(tmp_path, {"Train.parquet": [0, 1], f"{val}.parquet": [1, 1, 0]}))
    assert source.splits["val"]["label"].to_pylist() == [1, 1, 0]


def test_rows_in_any_order_get_their_own_image(tmp_path):
    source = opened(builders.huggingface(tmp_path, TWO_FILES | VALIDATION))
    order = np.random.default_rng(0).permutation(11)
    read = list(source.reader.read(source.splits["train"].take(order)))
    assert read == [builders.jpeg(int(i)) for i in order]
    assert list(source.reader.read(source.splits["val"])) == [builders.jpeg(11 + i) for i in range(3)]


def test_each_row_group_is_read_once_and_only_if_asked_for(tmp_path, monkeypatch):
    source = opened(builders.huggingface(tmp_path, TWO_FILES, row_group=2), val_fraction=0)
    read = []
    original = pq.ParquetFile.iter_batches
    monkeypatch.setattr(
        pq.ParquetFile,
        "iter_batches",
        lambda file, *args, row_groups, **options: (
            read.extend(row_groups) or original(file, *args, row_groups=row_groups, **options)
        ),
    )
    rows = source.splits["train"].take([0, 1, 4, 5, 9, 10])
    assert list(source.reader.read(rows)) == [builders.jpeg(i) for i in (0, 1, 4, 5, 9, 10)]
    assert read == [0, 2, 1]  # rows 0-1 and 4-5 of the first file, 2-3 of the second, which has rows 7 to 10


@pytest.mark.parametrize(
    ("files", "sizes"),
    [
        (TWO_FILES | VALIDATION | {"test-00000-of-00001.parquet": [-1, -1]}, {"train": 11, "val": 3}),
        (TWO_FILES | {"test-00000-of-00001.parquet": [0, 1]}, {"train": 11, "val": 2}),
        ({"train.parquet": [0, 1], "validation.parquet": [1]}, {"train": 2, "val": 1}),
        ({"train-00000-of-00001-a09b74b3ef9c3b56.parquet": [0, 1] * 50}, None),
    ],
)
def test_validation_else_test_else_a_share_is_val(tmp_path, files, sizes):
    source = opened(builders.huggingface(tmp_path, files))
    found = {split: rows.num_rows for split, rows in source.splits.items()}
    assert found == sizes if sizes else (sum(found.values()) == 100 and 0 < found["val"] < 30)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"train.parquet": [0, 1], "test.parquet": [0, -1]}, r"test has no label in row 1 \(it says -1\)"),
        ({"train.parquet": [0, None]}, r"train has no label in row 1 \(it says None\)"),
        ({"train.parquet": [0, 2]}, r"train has the label 2, but there are 2 class names"),
        ({"validation.parquet": [0, 1]}, r"has val Parquet files but no train-"),
        ({"train-00000-of-00003.parquet": [0]}, r"lacks 2 of its Parquet files, such as train-00001-of-00003.parquet"),
    ],
)
def test_unusable_labels_and_missing_files_are_refused(tmp_path, files, message):
    builders.huggingface(tmp_path, files)
    with pytest.raises(ValueError, match=message):
        opened(tmp_path)


@pytest.mark.parametrize("name", ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"])
@pytest.mark.parametrize("content", [b"PAR1 and nothing", b""])
def test_a_file_that_is_no_parquet_is_named(tmp_path, name, content):
    builders.huggingface(tmp_path, TWO_FILES)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name} is no Parquet file or is damaged: .*; fetch it again"):
        opened(tmp_path)


def test_a_split_without_rows_is_not_passed_over(tmp_path):
    builders.huggingface(tmp_path, {"train.parquet": [0, 1], "validation.parquet": []})
    with pytest.raises(ValueError, match=r"validation.parquet has no rows, and nor has any other file of val; fetch"):
        opened(tmp_path)


@pytest.mark.parametrize("name", ["data_batch_1", "data_batch_3", "test_batch", "batches.meta"])
@pytest.mark.parametrize("folder", ["cifar-10-batches-py", "renamed"])
def test_an_unpacked_cifar_that_lacks_a_file_says_which(tmp_path, folder, name):
    builders.write_files(tmp_path, builders.cifar_files())
    place = (tmp_path / "cifar-10-batches-py").rename(tmp_path / folder)
    (place / name).unlink()
    with pytest.raises(ValueError, match=rf"{folder} lacks {name}; fetch it again"):
        opened(place)


def write_table(folder, columns: dict) -> None:
    pq.write_table(pa.table(columns), folder / "train.parquet")


def test_columns_without_metadata_are_found_by_their_types(tmp_path):
    image = pa.array([{"bytes": builders.jpeg(i), "path": None} for i in range(3)])
    write_table(tmp_path, {"width": [1, 2, 3], "picture": image, "caption": ["a", "b", "c"], "label": [0, 2, 1]})
    source = opened(tmp_path, val_fraction=0)
    assert source.class_names == ("0", "1", "2")
    assert source.splits["train"]["label"].to_pylist() == [0, 2, 1]
    write_table(tmp_path, {"jpg": [builders.jpeg(5), None], "cls": pa.array([1, 0], pa.int8())})
    source = opened(tmp_path, val_fraction=0)
    assert list(source.reader.read(source.splits["train"])) == [builders.jpeg(5), b""]


@pytest.mark.parametrize(
    "columns",
    [
        {"label": [0, 1]},
        {"image": [b"1", b"2"]},
        {"image": [b"1", b"2"], "other": [b"1", b"2"], "label": [0, 1]},
        {"image": [b"1", b"2"], "width": [0, 1], "height": [0, 1]},
    ],
)
def test_columns_that_cannot_be_told_are_listed(tmp_path, columns):
    write_table(tmp_path, columns)
    with pytest.raises(ValueError, match=r"cannot tell the image and label columns from \['(label|image)'"):
        opened(tmp_path)


@pytest.mark.parametrize("more", [{}, {"width": [5, 6]}])
@pytest.mark.parametrize(
    ("kind", "word"), [(pa.float64(), "double"), (pa.float16(), "halffloat"), (pa.bool_(), "bool")]
)
def test_labels_of_another_type_are_named_with_it_and_are_read_once_they_are_integers(tmp_path, kind, word, more):
    """Whatever integers are beside them."""
    labels = pa.array([0, 1]).cast(pa.float32()).cast(kind)
    columns = {"image": [builders.jpeg(i) for i in range(2)], "label": labels} | more
    write_table(tmp_path, columns)
    with pytest.raises(ValueError, match=rf"the column 'label' is of {word}, and labels are integers or words: write"):
        opened(tmp_path)
    write_table(tmp_path, columns | {"label": [0, 1]})
    assert opened(tmp_path, val_fraction=0).splits["train"]["label"].to_pylist() == [0, 1]


def test_a_listing_kept_from_before_reads_no_labels_again(tmp_path, monkeypatch):
    builders.huggingface(tmp_path / "set", TWO_FILES | VALIDATION)
    first = opened(tmp_path / "set", tmp_path / "cache")
    monkeypatch.setattr(huggingface, "_list_file", pytest.fail)  # would fail if it were called again
    again = opened(tmp_path / "set", tmp_path / "cache")
    assert again.fingerprint == first.fingerprint
    assert again.splits["train"].equals(first.splits["train"])


def test_the_fingerprint_follows_the_labels(tmp_path):
    prints = {
        opened(builders.huggingface(tmp_path / str(i), {"train.parquet": labels})).fingerprint
        for i, labels in enumerate(([0, 1, 1], [0, 1, 1], [1, 0, 1]))
    }
    assert len(prints) == 2


def test_cifar_10_in_parquet(real_data):
    source = opened(real_data / "cifar10")
    assert source.class_names[:2] == ("airplane", "automobile")
    assert {split: rows.num_rows for split, rows in source.splits.items()} == {"train": 50_000, "val": 10_000}
    rows = source.splits["train"].take(np.random.default_rng(0).permutation(50_000)[:500])
    table = pq.read_table(real_data / "cifar10" / "train-00000-of-00001.parquet", columns=["img", "label"])
    expected = table.take(rows["offset"])
    assert rows["label"].to_pylist() == expected["label"].to_pylist()
    assert list(source.reader.read(rows)) == [image["bytes"] for image in expected["img"].to_pylist()]


@pytest.mark.parametrize("packed", [False, True])
def test_cifar_pickles_become_png_files_of_the_same_pixels(tmp_path, packed):
    files = builders.cifar_files()
    if packed:
        place = tmp_path / "cifar-10-python.tar.gz"
        place.write_bytes(builders.gzipped(builders.tar_bytes(files, folders=True)))
    else:
        place = builders.write_files(tmp_path, files)
    source = opened(place, tmp_path / "cache")
    assert source.class_names == ("airplane", "bird", "cat")
    assert {split: rows.num_rows for split, rows in source.splits.items()} == {"train": 20, "val": 4}
    for split, rows in source.splits.items():
        rows = rows.take(np.random.default_rng(1).permutation(rows.num_rows))
        for row, data in zip(rows.to_pylist(), source.reader.read(rows), strict=True):
            batch = pickle.loads(files[f"cifar-10-batches-py/{row['file']}"], encoding="bytes")
            pixels_HWC = np.asarray(Image.open(io.BytesIO(data)))
            assert (pixels_HWC == batch[b"data"][row["offset"]].reshape(3, 32, 32).transpose(1, 2, 0)).all(), split
            assert row["label"] == batch[b"labels"][row["offset"]]
            assert row["key"].startswith(source.class_names[row["label"]])
    assert opened(tmp_path, tmp_path / "cache").fingerprint == source.fingerprint


@pytest.mark.parametrize("packed", [False, True])
def test_cifars_binary_edition_is_the_pickled_one_by_key(tmp_path, packed):
    pickled = opened(builders.write_files(tmp_path / "pickled", builders.cifar_files()))
    files = builders.cifar_binary_files()
    if packed:
        files = {"cifar-10-binary.tar.gz": builders.gzipped(builders.tar_bytes(files, folders=True))}
    binary = opened(builders.write_files(tmp_path / "binary", files), tmp_path / "cache")
    assert binary.class_names == pickled.class_names
    for split, rows in pickled.splits.items():
        assert binary.splits[split].select(["key", "label"]).equals(rows.select(["key", "label"]))
        assert list(binary.reader.read(binary.splits[split])) == list(pickled.reader.read(rows))


def test_cifar_100s_binary_edition_takes_the_fine_labels(tmp_path):
    records = [bytes([coarse, fine]) + bytes([fine]) * 3072 for coarse, fine in ((0, 2), (1, 0), (1, 1))]
    files = {f"{name}.bin": b"".join(records) for name in ("train", "test")}
    files |= {"fine_label_names.txt": b"x\ny\nz\n", "coarse_label_names.txt": b"a\nb\n"}
    source = opened(builders.write_files(tmp_path / "cifar-100-binary", files))
    assert source.class_names == ("x", "y", "z")
    rows = source.splits["val"]
    assert rows["label"].to_pylist() == [2, 0, 1]
    for label, data in zip(rows["label"].to_pylist(), source.reader.read(rows), strict=True):
        assert set(np.asarray(Image.open(io.BytesIO(data))).ravel().tolist()) == {label}


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("data_batch_3.bin", bytes(3073 * 2 - 1), r"data_batch_3.bin is no CIFAR batch or is damaged"),
        ("test_batch.bin", b"\x07" + bytes(3072), r"test_batch.bin has labels for which batches.meta.txt has no name"),
    ],
)
def test_a_damaged_binary_batch_is_named(tmp_path, name, data, message):
    builders.write_files(tmp_path, builders.cifar_binary_files() | {f"cifar-10-batches-bin/{name}": data})
    with pytest.raises(ValueError, match=message):
        opened(tmp_path)


def test_cifar_100_takes_the_fine_labels(tmp_path):
    batch = {b"data": np.zeros((3, 3072), np.uint8), b"fine_labels": [2, 0, 1], b"coarse_labels": [0, 0, 0]}
    files = {name: builders.python2_pickle(batch) for name in ("train", "test")}
    meta = {b"fine_label_names": [b"x", b"y", b"z"], b"coarse_label_names": [b"all"]}
    builders.write_files(tmp_path / "cifar-100-python", files | {"meta": builders.python2_pickle(meta)})
    source = opened(tmp_path / "cifar-100-python")
    assert source.class_names == ("x", "y", "z")
    assert source.splits["val"]["label"].to_pylist() == [2, 0, 1]


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    class Attack:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    files = builders.cifar_files() | {"cifar-10-batches-py/data_batch_2": pickle.dumps(Attack(), protocol=2)}
    builders.write_files(tmp_path, files)
    with pytest.raises(ValueError, match=r"data_batch_2 is no CIFAR batch or is damaged: it asks for \w+.open"):
        opened(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_a_cut_cifar_archive_is_named(tmp_path):
    data = builders.gzipped(builders.tar_bytes(builders.cifar_files()))
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r"cifar-10-python.tar.gz (is damaged|lacks)"):
        opened(tmp_path)
