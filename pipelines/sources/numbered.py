"""Images that lie flat, such as ILSVRC2012_val_00000001.JPEG: the number in the name is a line of the ground truth."""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.names import EXTENSIONS, split_of
from pipelines.sources.left_out import only_images


class Flat(NamedTuple):
    """The images of a split that lie flat in one folder."""

    folder: str  # where they lie in their tree
    images: pa.Table  # path, offset, size and more


def set_apart(paths: pa.Table, splits: tuple[str, ...]) -> tuple[pa.Table, dict[str, Flat]]:
    """The files without those in the folder that holds all numbered images of a split; and these images, by split."""
    found = {}
    for split in splits:
        if (folder := _flat_folder(paths["path"], split)) is not None:
            is_deeper = pc.greater(pc.count_substring(paths["path"], "/"), folder.count("/"))
            is_here = pc.and_not(pc.starts_with(paths["path"], folder), is_deeper)
            images, _ = only_images(paths.filter(is_here))
            found[split] = Flat(folder.rstrip("/"), images)
            is_flat = pc.is_in(paths["path"], value_set=images["path"].combine_chunks())
            paths = paths.filter(pc.invert(is_flat))
    return paths, found


def _flat_folder(paths: pa.ChunkedArray, split: str) -> str | None:
    folders = numbered_folders(paths, split)
    flat = [folder for folder in folders if split in map(split_of, folder.split("/"))]
    return flat[0] if len(folders) == len(flat) == 1 else None


def numbered_folders(paths: pa.ChunkedArray, split: str = "(val|test)") -> list[str]:
    """The folders that hold numbered images, each with a / at its end."""
    is_numbered = pc.match_substring_regex(paths, rf"(^|/)ILSVRC\d{{4}}_{split}_\d+\.(?i:{'|'.join(EXTENSIONS)})$")
    numbered = paths.filter(is_numbered)
    return pc.unique(pc.replace_substring_regex(numbered, r"[^/]+$", "")).to_pylist()


def year_of(flat: Flat) -> int:
    """The year in the names of numbered images, of most where they differ."""
    years = pc.extract_regex(flat.images["path"], r"(?:^|/)ILSVRC(?P<year>\d{4})_[^/]+$").combine_chunks()
    return pc.mode(years.drop_null().field("year").cast(pa.int64()))[0].as_py()["mode"]


class Numbered(NamedTuple):
    keys: pa.Array
    ids: np.ndarray
    images: pa.Table
    notes: list[str]  # what there is to say of missing numbers


def by_number(images: pa.Table, truth: np.ndarray, stem: str, where: str) -> Numbered:
    """The images in the order of their numbers, each with its line of the truth.

    Args:
        images: At least the column path.
        truth: Image number 1 has the first ILSVRC id.
        stem: What the names begin with, such as ILSVRC2012_val.
    """
    match = pc.extract_regex(images["path"], rf"(?P<key>{stem}_(?P<number>\d{{1,9}})\.[^./]+)$").combine_chunks()
    if match.null_count:
        odd = images["path"].filter(pc.is_null(match))[0].as_py().rpartition("/")[2]
        raise ValueError(
            f"{where} holds {odd!r}, whose label is not known: names are like {stem}_00000001.JPEG; move it elsewhere"
        )
    numbers = match.field("number").cast(pa.int64()).to_numpy()
    _require_known(numbers, len(truth), where)
    order = np.argsort(numbers, kind="stable")
    missing = np.setdiff1d(np.arange(1, len(truth) + 1), numbers)
    note = f"{len(missing):,} of {len(truth):,} images {stem}_… are missing, such as number {[*missing, 0][0]}"
    return Numbered(
        keys=match.field("key").take(pa.array(order)),
        ids=truth[numbers[order] - 1],
        images=images.take(order),
        notes=[note] if len(missing) else [],
    )


def _require_known(numbers: np.ndarray, num_ids: int, where: str) -> None:
    """ValueError where a number has no label, or two images have the same."""
    if numbers.min() < 1 or numbers.max() > num_ids:
        odd = numbers.max() if numbers.max() > num_ids else numbers.min()
        raise ValueError(
            f"{where} has an image number {odd}, but the ground truth has {num_ids} lines; is it of another edition?"
        )
    counts = np.bincount(numbers)
    if counts.max() > 1:
        raise ValueError(f"{where} has {counts.max()} images of the number {counts.argmax()}; keep one of them")
