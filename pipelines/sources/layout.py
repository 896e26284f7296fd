"""Class folders, as found in a folder or a tar: which paths are images, and what their class and split are.

Either CLASS/image.jpg, or train/CLASS/image.jpg with or without val/ and test/ beside it (under any of their usual
names). All images of a class lie at one depth: directly in its folder, or all of them in one folder of the same name in
each class, such as images/, or in one of the class's own. Everything here works on whole Arrow columns, because a
listing may have millions of rows.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import NamedTuple
from unicodedata import normalize

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.names import TEST, TRAIN, split_of
from pipelines.sources.left_out import by_kind, left_out_notes, only_images
from pipelines.sources.source import listing

EXPECTED = "expected CLASS/image.jpg or train/CLASS/image.jpg (val/ and test/ beside train/ if there are any)"
_TABLES = (".csv", ".tsv", ".xlsx")
_PIECE = 65536  # rows taken apart at once


class Layout(NamedTuple):
    """What class folders hold; the notes say what is left out and what is odd."""

    class_names: tuple[str, ...]
    splits: dict[str, pa.Table]
    notes: tuple[str, ...]


def class_layout(
    paths: pa.Table, where: str, archive: str = "", empty_in: Callable[[str], Iterable[str]] = lambda folder: ()
) -> Layout:
    """Class names and splits from a table of path, offset, size, and file where the paths are of several archives.

    A key is the path from the class folder on; `file` is the archive, or else the folder above the class folders.

    Args:
        empty_in: Names of the folders in a folder that hold no image: classes without images, or splits.

    Raises:
        ValueError: The folders are no classes, or some of them are not; a split holds no images.
    """
    images, left_out = _only_images(paths, where)
    root = common_folders(images["path"])
    try:
        _require_images(paths, root, empty_in, where)
        return _class_layout(images, root, left_out, where, archive, empty_in)
    except ValueError as error:
        tables = by_kind(Counter({kind: left_out[kind] for kind in _TABLES if kind in left_out}))
        if not tables:
            raise
        hint = f"labels in tables ({tables}) are not read: put each image into a folder of its class"
        raise ValueError(f"{error}; {hint}") from error


def _require_images(paths: pa.Table, root: str, empty_in: Callable[[str], Iterable[str]], where: str) -> None:
    """ValueError where a folder that is named as a split holds none, which would be passed over."""
    for name in filter(split_of, empty_in(root.rstrip("/"))):
        inside = paths.filter(pc.starts_with(paths["path"], f"{root}{name}/"))
        found = by_kind(only_images(inside)[1]) or "nothing"
        raise ValueError(f"{where}: {root}{name}/ holds no images: found {found}; move it away, or fill it")


def _class_layout(
    images: pa.Table,
    root: str,
    left_out: Counter[str],
    where: str,
    archive: str,
    empty_in: Callable[[str], Iterable[str]],
) -> Layout:
    parts, unlabelled = _by_split(without(root, images), root, where)
    classes = {split: first_folders(table["path"]) for split, (_, table) in parts.items()}
    empty = sorted(set(empty_in(parts[TRAIN][0])) - set(classes[TRAIN][1]))
    names = in_order({*classes[TRAIN][1], *empty})
    _require_classes(names, where)
    for split, (_, found) in classes.items():
        if unknown := sorted(set(found) - set(names)):
            raise ValueError(f"{where}: {split} has the class {unknown[0]!r}, {_which_train_lacks(unknown[0], names)}")
    label_of = {name: i for i, name in enumerate(names)}
    splits = {}
    for split, (folder, table) in parts.items():
        codes, found = classes[split]
        labels = np.array([label_of[name] for name in found], np.int32)[codes]
        files = files_of(table, archive or folder)
        splits[split] = listing(table["path"], labels, files, table["offset"], table["size"])
    return Layout(tuple(names), splits, _notes(left_out + unlabelled, names, empty))


def _which_train_lacks(name: str, names: list[str]) -> str:
    """What is wrong with a class, and what helps; equal letters may be written as one code point or as two."""
    twin = next((other for other in names if normalize("NFC", other) == normalize("NFC", name)), None)
    if twin is None:
        return f"which train lacks; {EXPECTED}"
    return f"and train has it in another Unicode form, {ascii(name)} against {ascii(twin)}: give both the same name"


def files_of(paths: pa.Table, name: str) -> pa.ChunkedArray | str:
    """Where a reader finds these files: as their listing says, or else all in one archive or folder."""
    return paths["file"] if "file" in paths.column_names else name


def in_order(names: Iterable[str]) -> list[str]:
    """Class names by the alphabet, as everybody numbers them; by value where all are numbers (0..999)."""
    names = sorted(names)
    return sorted(names, key=int) if all(name.isascii() and name.isdecimal() for name in names) else names


def _only_images(paths: pa.Table, where: str) -> tuple[pa.Table, Counter[str]]:
    """The images, and how many files of each other kind there are. ValueError where there are no images."""
    if not paths.num_rows:
        raise ValueError(f"{where} is empty; {EXPECTED}")
    images, left_out = only_images(paths)
    if not images.num_rows:
        packed = {".tar", ".zip"} & set(left_out)
        hint = "; unpack the archives there, each into a folder of its name if it is a class" if packed else ""
        raise ValueError(f"{where} holds no images: found {by_kind(left_out)}; {EXPECTED}{hint}")
    return images, left_out


def _notes(left_out: Counter[str], names: list[str], empty: list[str]) -> tuple[str, ...]:
    notes = [*left_out_notes(left_out), *empty_notes(empty)]
    twins = [name for name, count in Counter(name.lower() for name in names).items() if count > 1]
    if twins:
        alike = " and ".join(repr(name) for name in names if name.lower() == twins[0])
        notes.append(f"{len(twins):,} names of classes differ only in case, such as {alike}; each is a class")
    return tuple(notes)


def empty_notes(empty: list[str]) -> list[str]:
    return [f"{len(empty):,} classes have no image, such as {empty[0]!r}; each keeps its label"] if empty else []


def _require_classes(names: list[str], where: str) -> None:
    """ValueError where the folders are hardly classes."""
    if len(names) == 1:
        raise ValueError(
            f"{where} holds a single class, {names[0]!r}; name the folder that holds the folders of all classes"
        )
    if all(map(split_of, names)):
        raise ValueError(f"{where}: {names[0]}/ and {names[1]}/ are names of splits, not of classes; {EXPECTED}")


def common_folders(paths: pa.ChunkedArray, through_splits: bool = False) -> str:
    """The folders that all paths begin with (an archive is often packed with one), but the last one, which is a class.

    Those behind a name of a split are within it, unless they are looked through.
    """
    shortest, first = pc.min_max(paths).as_py().values()  # the extremes share what all share
    common = 0
    while True:
        end = shortest.find("/", common) + 1
        deeper = end > 0 and shortest[:end] == first[:end] and "/" in shortest[end:] and "/" in first[end:]
        if not deeper or (split_of(shortest[common : end - 1]) and not through_splits):
            return shortest[:common]
        common = end


def without(folder: str, images: pa.Table) -> pa.Table:
    """The images with their paths from the folder on."""
    return images.set_column(0, "path", pc.utf8_slice_codeunits(images["path"], len(folder))) if folder else images


def _by_split(images: pa.Table, root: str, where: str) -> tuple[dict[str, tuple[str, pa.Table]], Counter[str]]:
    """split -> (its folder, its images with paths from there); and how many images have no class."""
    codes, tops = first_folders(images["path"])
    present = sorted(name for name in tops if split_of(name))
    if not present:
        _require_class_folders(images, root or ".", where)
        return {TRAIN: (root.rstrip("/"), images)}, Counter()
    if strangers := sorted(set(tops) - set(present)):
        raise ValueError(
            f"{where} has {present[0]}/, a split, beside {strangers[0]!r}, which is none: name a folder that holds "
            f"nothing else than splits, or than classes; a class of that name lies in train/{present[0]}/; {EXPECTED}"
        )
    if TRAIN not in map(split_of, present):
        raise ValueError(f"{where} has {present[0]}/ but no train/; {EXPECTED}")
    parts: dict[str, tuple[str, pa.Table]] = {}
    unlabelled = Counter[str]()
    for name in present:
        split = split_of(name)
        assert split, name
        if split in parts:
            raise ValueError(f"{where} has both {parts[split][0]}/ and {name}/; keep one of them")
        rows = images.filter(pa.array(codes == tops.index(name)))
        rows = without(f"{name}/", rows)
        if split == TEST and not pc.any(pc.match_substring(rows["path"], "/")).as_py():
            unlabelled[f"images of {name}/ without a class"] = rows.num_rows  # nothing to measure with
            continue
        _require_class_folders(rows, root + name, where)
        parts[split] = (root + name, rows)
    return parts, unlabelled


def _require_class_folders(images: pa.Table, folder: str, where: str) -> None:
    """ValueError where images lie elsewhere than in their class folder, or all in one folder of it."""
    depths = pc.count_substring(images["path"], "/")
    least, most = pc.min_max(depths).as_py().values()
    if least == most == 1:
        return
    if least == 0:
        flat = images.filter(pc.equal(depths, 0))
        example = flat["path"][0].as_py()
        raise ValueError(
            f"{where}: {flat.num_rows} images lie outside class folders, such as {example!r} in {folder}; {EXPECTED}"
        )
    deepest = images["path"].filter(pc.equal(depths, most))[0].as_py()
    if least < most:
        nearest = images["path"].filter(pc.equal(depths, least))[0].as_py()
        raise ValueError(
            f"{where}: images lie at different depths in {folder}, such as {nearest!r} and {deepest!r}, so which "
            f"folder is the class? Move them to one depth; {EXPECTED}"
        )
    parts = pc.split_pattern(images["path"], "/", max_splits=2)
    inner = pc.list_element(parts, 1)
    is_own = pc.all(pc.equal(inner, pc.list_element(parts, 0))).as_py()  # each class packed with its own name
    if most > 2 or (pc.count_distinct(inner).as_py() > 1 and not is_own):
        raise ValueError(
            f"{where}: images lie deeper than in their class folder, such as {deepest!r} in {folder}: if the inner "
            f"folders are the classes, move them up, or name the folder around them; {EXPECTED}"
        )


def first_folders(paths: pa.ChunkedArray) -> tuple[np.ndarray, list[str]]:
    """The first part of each path, as codes into a list of the distinct ones; by pieces, to hold no copy of all."""
    if not len(paths):
        return np.zeros(0, np.int32), []
    pieces = [paths.slice(start, _PIECE) for start in range(0, len(paths), _PIECE)]
    firsts = [pc.list_element(pc.split_pattern(piece, "/", max_splits=1), 0).dictionary_encode() for piece in pieces]
    unified = pa.chunked_array([chunk for first in firsts for chunk in first.chunks]).unify_dictionaries()
    codes = np.concatenate([chunk.indices.to_numpy() for chunk in unified.chunks])
    return codes, unified.chunk(0).dictionary.to_pylist()
