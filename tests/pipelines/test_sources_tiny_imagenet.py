"""Tiny ImageNet as downloaded: every image its own class, whatever it is packed in; what has no label is counted."""

import builders
import pytest

from pipelines.sources.catalog import open_source
from pipelines.specs import IngestSpec

ROOT = "tiny-imagenet-200/"
PACKED = {
    "folder": builders.write_files,
    "zip": lambda folder, files: builders.write_files(folder, {"a.zip": builders.zip_bytes(files)}) / "a.zip",
    "tar": lambda folder, files: builders.write_files(folder, {"a.tar": builders.tar_bytes(files)}) / "a.tar",
}
packed = pytest.mark.parametrize("pack", PACKED.values(), ids=PACKED)


def opened(source, **options):
    return open_source(IngestSpec(source=str(source), **options))


def classes(source) -> dict[str, dict[bytes, str]]:
    """By split, the class of each image by its bytes."""
    return {
        split: {
            data: source.class_names[label]
            for data, label in zip(source.reader.read(rows), rows["label"].to_pylist(), strict=True)
        }
        for split, rows in source.splits.items()
    }


@packed
@pytest.mark.parametrize("root", [ROOT, ""])
def test_every_image_has_the_class_of_its_folder_or_of_the_table(tmp_path, pack, root):
    files, truth = builders.tiny_imagenet(root)
    source = opened(pack(tmp_path, files))
    assert classes(source) == truth
    assert source.class_names == ("n01443537", "n02124075", "n04067472")
    assert source.class_titles == ("goldfish, Carassius auratus", "Egyptian cat", "n04067472")
    assert source.notes == ("3 files left out: 3 .txt", "5 images of test/ left out: they have no labels")


@packed
def test_validation_images_sorted_into_class_folders_count_too(tmp_path, pack):
    files, truth = builders.tiny_imagenet()
    files = {
        f"{ROOT}val/{truth['val'][data]}/{path.rpartition('/')[2]}" if data in truth["val"] else path: data
        for path, data in files.items()
    }
    source = opened(pack(tmp_path, files))
    assert classes(source) == truth


def test_validation_images_directly_in_val_count_too(tmp_path):
    files, truth = builders.tiny_imagenet()
    files = {path.replace("val/images/", "val/"): data for path, data in files.items()}
    assert classes(opened(builders.write_files(tmp_path, files))) == truth


def without(files, name):
    return {path: data for path, data in files.items() if path != ROOT + name}


def test_labels_without_an_image_are_counted(tmp_path):
    files, _ = builders.tiny_imagenet()
    source = opened(builders.write_files(tmp_path, without(files, "val/images/val_2.JPEG")))
    assert "1 lines of val/val_annotations.txt name no image that is there" in source.notes
    assert source.splits["val"].num_rows == 3


@packed
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda files: {"val/images/val_9.JPEG": b"x"},
            r"1 images of (tiny-imagenet-200/)?val/ have no class .* val_9",
        ),
        (
            lambda files: {"val/val_annotations.txt": b"val_0.JPEG\tn00000001\t0"},
            r"4 images .* have no class of train/",
        ),
        (
            lambda files: {"val/val_annotations.txt": b"val_0.JPEG\tn02124075\nval_0.JPEG\tn04067472\n"},
            r"val_annotations.txt says both 'n02124075' and 'n04067472' of val_0.JPEG; mend it",
        ),
        (lambda files: {"val/val_annotations.txt": b"\xff\xfe"}, r"val_annotations.txt is no text: .*; fetch it again"),
        (lambda files: {"wnids.txt": files[f"{ROOT}wnids.txt"] + b"\nn00000007"}, r"lacks 1 classes .* n00000007"),
        (lambda files: {"wnids.txt": b"n02124075\nn04067472"}, r"train/ has 'n01443537', which is no class of wnids"),
        (
            lambda files: {"val/n02124075/1.JPEG": b"x"},
            r"has class folders and other images in (tiny-imagenet-200/)?val/",
        ),
        (lambda files: {"../thumbs/a/1.JPEG": b"x"}, r"images lie at different depths|beside 'thumbs'"),
    ],
)
def test_what_does_not_fit_together_is_refused(tmp_path, pack, change, message):
    files, _ = builders.tiny_imagenet()
    files |= {f"{ROOT}{name}".replace(f"{ROOT}../", ""): data for name, data in change(files).items()}
    with pytest.raises(ValueError, match=message) as error:
        opened(pack(tmp_path, files))
    assert "\n" not in str(error.value)


def test_the_fingerprint_follows_the_table_of_labels(tmp_path):
    files, _ = builders.tiny_imagenet()
    changed = files | {
        f"{ROOT}val/val_annotations.txt": files[f"{ROOT}val/val_annotations.txt"].replace(
            b"val_0.JPEG\tn02124075", b"val_0.JPEG\tn04067472"
        )
    }
    first, second = (opened(builders.write_files(tmp_path / str(i), f)) for i, f in enumerate((files, changed)))
    assert first.fingerprint != second.fingerprint


def test_the_real_subset_is_labelled_as_its_own_tables_say(real_data):
    source = opened(real_data / "tiny-imagenet-subset.tar")
    assert {split: rows.num_rows for split, rows in source.splits.items()} == {"train": 12_000, "val": 2_000}
    assert len(source.class_names) == 200
    for row in source.splits["train"].slice(0, 500).to_pylist():
        assert row["key"].startswith(source.class_names[row["label"]])
    assert source.class_titles[0] == "goldfish, Carassius auratus"


@packed
def test_without_the_table_it_is_asked_for(tmp_path, pack):
    files, _ = builders.tiny_imagenet()
    with pytest.raises(ValueError, match=r"4 images of .*val/ have no class of train/ in val/val_annotations.txt"):
        opened(pack(tmp_path, without(files, "val/val_annotations.txt")))
