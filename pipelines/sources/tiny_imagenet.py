"""Tiny ImageNet as downloaded, in a folder or an archive.

Training images lie in train/WNID/images/, those of val/images/ are labelled by a table, and those of test/images/ have
no published labels. Where val/ was sorted into class folders, as some scripts do, these count.
"""

import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.names import IMAGE_NAME, VAL
from pipelines.sources.layout import class_layout
from pipelines.sources.source import Source, fingerprint_of, listed, listing
from pipelines.sources.tree import Tree

_ANNOTATIONS, _WNIDS, _TITLES = "val/val_annotations.txt", "wnids.txt", "words.txt"


def tiny_imagenet_root(paths: pa.Table) -> str | None:
    """What stands before train/ and val/ in the paths of a Tiny ImageNet; None where it is another layout."""
    is_table = pc.match_substring_regex(paths["path"], rf"^([^/]+/)*({_ANNOTATIONS}|{_WNIDS})$")
    for path in paths["path"].filter(is_table).to_pylist():
        root = path.removesuffix(_ANNOTATIONS).removesuffix(_WNIDS)
        if path.endswith(_ANNOTATIONS) or pc.any(_flat_images(paths, f"{root}val/")).as_py():
            return root
    return None


def open_tiny_imagenet(tree: Tree, root: str) -> Source:
    flat, tests = _flat_images(tree.paths, f"{root}val/"), _flat_images(tree.paths, f"{root}test/")
    used = pa.array([root + name for name in (_ANNOTATIONS, _WNIDS, _TITLES)])
    others = pc.invert(pc.or_(pc.or_(flat, tests), pc.is_in(tree.paths["path"], value_set=used)))
    names, splits, notes = class_layout(tree.paths.filter(others), tree.where, tree.archive, tree.empty_in)
    _require_listed_classes(tree, root, names)
    if pc.any(flat).as_py():
        if VAL in splits:
            raise ValueError(f"{tree.where} has class folders and other images in {root}val/; keep one of them")
        splits[VAL], unused = _list_val(tree, tree.paths.filter(flat), root, names)
        notes += (f"{unused:,} lines of {_ANNOTATIONS} name no image that is there",) if unused else ()
    if count := pc.sum(tests).as_py():
        notes += (f"{count:,} images of test/ left out: they have no labels",)
    titles = _table(tree, root + _TITLES)
    return Source(
        kind="tiny imagenet",
        fingerprint=fingerprint_of(["tiny imagenet", *tree.identity, *listed(splits)]),
        class_names=names,
        class_titles=tuple(titles.get(name, name) for name in names),
        splits=splits,
        reader=tree.reader,
        notes=(*notes, *tree.notes),
    )


def _flat_images(paths: pa.Table, folder: str) -> pa.ChunkedArray:
    """Which images lie directly in a folder, or in images/ in it."""
    is_image = pc.match_substring_regex(paths["path"], IMAGE_NAME)
    return pc.and_(is_image, pc.match_substring_regex(paths["path"], rf"^{re.escape(folder)}(images/)?[^/]+$"))


def _list_val(tree: Tree, images: pa.Table, root: str, names: tuple[str, ...]) -> tuple[pa.Table, int]:
    """The rows of val, and how many lines of the table are of images that are not there."""
    keys = pc.utf8_slice_codeunits(images["path"], len(f"{root}val/"))
    files = pc.replace_substring(keys, "images/", "", max_replacements=1).to_pylist()
    wnids, label_of = _table(tree, root + _ANNOTATIONS), {name: i for i, name in enumerate(names)}
    if unknown := [file for file in files if wnids.get(file) not in label_of]:
        raise ValueError(
            f"{tree.where}: {len(unknown):,} images of {root}val/ have no class of train/ in {_ANNOTATIONS}, such as "
            f"{unknown[0]}; fetch it again"
        )
    labels = np.array([label_of[wnids[file]] for file in files], np.int32)
    rows = listing(keys, labels, tree.archive or f"{root}val", images["offset"], images["size"])
    return rows, len(wnids.keys() - set(files))


def _require_listed_classes(tree: Tree, root: str, names: tuple[str, ...]) -> None:
    """ValueError where the class folders are not those of wnids.txt, if that is there."""
    listed_wnids = set(_table(tree, root + _WNIDS)) or set(names)
    if missing := sorted(listed_wnids - set(names)):
        raise ValueError(
            f"{tree.where} lacks {len(missing)} classes of {_WNIDS}, such as {missing[0]}: fetch it again, or take "
            f"them out of {_WNIDS} if that is meant"
        )
    if strange := sorted(set(names) - listed_wnids):
        raise ValueError(f"{tree.where}: train/ has {strange[0]!r}, which is no class of {_WNIDS}; move it away")


def _table(tree: Tree, path: str) -> dict[str, str]:
    """First and second column of a file with a line for each, parted by tabs; empty where there is no such file."""
    if not pc.any(pc.equal(tree.paths["path"], path)).as_py():
        return {}
    table: dict[str, str] = {}
    for line in filter(None, _text(tree, path).splitlines()):
        first, _, second = line.partition("\t")
        second = second.partition("\t")[0]
        if table.setdefault(first, second) != second:
            raise ValueError(f"{tree.where}: {path} says both {table[first]!r} and {second!r} of {first}; mend it")
    return table


def _text(tree: Tree, path: str) -> str:
    try:
        return tree.read(path).decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{tree.where}: {path} is no text: {error}; fetch it again") from error
