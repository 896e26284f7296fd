"""Images that lie flat, such as ILSVRC2012_val_00000001.JPEG: the number in the name is a line of the ground truth."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.sources.source import listing


def list_numbered(images: pa.Table, ids: np.ndarray, stem: str, where: str, file: str) -> tuple[pa.Table, list[str]]:
    """Rows by number, with the ILSVRC id of each as its label; and what there is to say of missing numbers.

    Args:
        images: Columns path, offset, size, of images only.
        ids: The truth; image number 1 has the first.
        stem: What the names begin with, such as ILSVRC2012_val.
        file: Where the reader finds the images.
    """
    match = pc.extract_regex(images["path"], rf"(?P<key>{stem}_(?P<number>\d{{1,9}})\.[^./]+)$").combine_chunks()
    if match.null_count:
        odd = images["path"].filter(pc.is_null(match))[0].as_py()
        raise ValueError(
            f"{where} holds {odd!r}, whose label is not known: names are like {stem}_00000001.JPEG; move it elsewhere"
        )
    numbers = match.field("number").cast(pa.int64()).to_numpy()
    _require_known(numbers, len(ids), where)
    order = np.argsort(numbers, kind="stable")
    rows = images.take(order)
    keys = match.field("key").take(pa.array(order))
    missing = np.setdiff1d(np.arange(1, len(ids) + 1), numbers)
    return listing(keys, ids[numbers[order] - 1], file, rows["offset"], rows["size"]), (
        [f"{len(missing):,} of {len(ids):,} images {stem}_… are missing, such as number {missing[0]}"]
        if len(missing)
        else []
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
