"""Class folders, as found in a folder or a tar: which paths are images, and what their class and split are.

Either CLASS/image.jpg, or train/CLASS/image.jpg with or without val/ (or validation/) and test/ beside it. Everything
here works on whole Arrow columns, because a listing may have millions of rows.
"""

from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.names import IMAGE_NAME, SPLIT_FOLDERS, TEST, TRAIN
from pipelines.sources.source import listing

EXPECTED = "expected CLASS/image.jpg or train/CLASS/image.jpg (val/ and test/ beside train/ if there are any)"
_PIECE = 65536  # rows taken apart at once


def class_layout(paths: pa.Table, where: str, archive: str = "") -> tuple[tuple[str, ...], dict[str, pa.Table]]:
    """Class names and splits from a table of path, offset, size.

    A key is the path from the class folder on; `file` is the archive, or else the folder above the class folders.
    """
    images = _only_images(paths, where)
    root, images = _strip_common_folders(images)
    parts = _by_split(images, root, where)
    classes = {split: first_folders(table["path"]) for split, (_, table) in parts.items()}
    names = sorted(set(classes[TRAIN][1]))
    for split, (_, found) in classes.items():
        if unknown := sorted(set(found) - set(names)):
            raise ValueError(f"{where}: {split} has the class {unknown[0]!r}, which train lacks; {EXPECTED}")
    label_of = {name: i for i, name in enumerate(names)}
    splits = {}
    for split, (folder, table) in parts.items():
        codes, found = classes[split]
        labels = np.array([label_of[name] for name in found], np.int32)[codes]
        splits[split] = listing(table["path"], labels, archive or folder, table["offset"], table["size"])
    return tuple(names), splits


def _only_images(paths: pa.Table, where: str) -> pa.Table:
    if not paths.num_rows:
        raise ValueError(f"{where} is empty; {EXPECTED}")
    is_image = pc.match_substring_regex(paths["path"], IMAGE_NAME)
    images = paths if pc.all(is_image).as_py() else paths.filter(is_image)
    if not images.num_rows:
        names = (path.rpartition("/")[2] for path in paths["path"].slice(0, 10_000).to_pylist())
        kinds = Counter("." + name.rpartition(".")[2] if "." in name else name for name in names)
        found = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(4))
        raise ValueError(f"{where} holds no images: found {found}; {EXPECTED}")
    return images


def _strip_common_folders(images: pa.Table) -> tuple[str, pa.Table]:
    """Without the folders that all paths begin with (an archive is often packed with one); the last one is a class."""
    shortest, first = pc.min_max(images["path"]).as_py().values()  # the extremes share what all share
    common = 0
    while True:
        end = shortest.find("/", common) + 1
        deeper = end > 0 and shortest[:end] == first[:end] and "/" in shortest[end:] and "/" in first[end:]
        if not deeper or shortest[common : end - 1] in SPLIT_FOLDERS:
            break
        common = end
    if common:
        images = images.set_column(0, "path", pc.utf8_slice_codeunits(images["path"], common))
    return shortest[:common], images


def _by_split(images: pa.Table, root: str, where: str) -> dict[str, tuple[str, pa.Table]]:
    """split -> (its folder, its images with paths from there)."""
    codes, tops = first_folders(images["path"])
    present = {name for name in tops if name in SPLIT_FOLDERS}
    if not present:
        _require_class_folders(images, root or ".", where)
        return {TRAIN: (root.rstrip("/"), images)}
    if "train" not in present:
        raise ValueError(f"{where} has {sorted(present)[0]}/ but no train/; {EXPECTED}")
    parts: dict[str, tuple[str, pa.Table]] = {}
    for name in sorted(present):
        split = SPLIT_FOLDERS[name]
        if split in parts:
            raise ValueError(f"{where} has both {parts[split][0]}/ and {name}/; keep one of them")
        rows = images.filter(pa.array(codes == tops.index(name)))
        rows = rows.set_column(0, "path", pc.utf8_slice_codeunits(rows["path"], len(name) + 1))
        if split == TEST and not pc.any(pc.match_substring(rows["path"], "/")).as_py():
            continue  # images without classes: nothing to measure with
        _require_class_folders(rows, root + name, where)
        parts[split] = (root + name, rows)
    return parts


def _require_class_folders(images: pa.Table, folder: str, where: str) -> None:
    flat = images.filter(pc.invert(pc.match_substring(images["path"], "/")))
    if flat.num_rows:
        example = flat["path"][0].as_py()
        raise ValueError(
            f"{where}: {flat.num_rows} images lie outside class folders, such as {example!r} in {folder}; {EXPECTED}"
        )


def first_folders(paths: pa.ChunkedArray) -> tuple[np.ndarray, list[str]]:
    """The first part of each path, as codes into a list of the distinct ones; by pieces, to hold no copy of all."""
    pieces = [paths.slice(start, _PIECE) for start in range(0, len(paths), _PIECE)]
    firsts = [pc.list_element(pc.split_pattern(piece, "/", max_splits=1), 0).dictionary_encode() for piece in pieces]
    unified = pa.chunked_array([chunk for first in firsts for chunk in first.chunks]).unify_dictionaries()
    codes = np.concatenate([chunk.indices.to_numpy() for chunk in unified.chunks])
    return codes, unified.chunk(0).dictionary.to_pylist()
