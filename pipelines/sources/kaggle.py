"""ImageNet as Kaggle packs it (CLS-LOC): class folders for training, one flat folder and a CSV for validation."""

import csv
import io
from typing import Protocol

import pyarrow as pa

from pipelines.names import VAL
from pipelines.sources.devkit import NUM_CLASSES
from pipelines.sources.imagenet import missing_notes
from pipelines.sources.layout import class_layout, files_of
from pipelines.sources.numbered import Flat, set_apart
from pipelines.sources.source import Source, fingerprint_of, listed, listing
from pipelines.sources.tree import Tree
from pipelines.storage import Folder

SOLUTION, TITLES = "LOC_val_solution.csv", "LOC_synset_mapping.txt"
_AROUND = ("ILSVRC", "Data", "CLS-LOC")  # folders around the images, the tables beside the first


class Tables(Protocol):
    """Where the tables are: a folder, or the archive that the images are in."""

    def size(self, name: str, /) -> int | None: ...

    def read(self, name: str, /) -> bytes: ...


def tables_around(folder: Folder) -> list[Folder]:
    """Where the tables of images in this folder may lie: in it, or in those around it in Kaggle's layout."""
    around = [folder]
    while len(around) <= len(_AROUND) and around[-1].split()[1] in _AROUND:
        around.append(around[-1].split()[0])
    return around


def find_kaggle(folder: Folder) -> str | None:
    """Where train/ and val/ lie in a folder: that of the tables, or one between them and the images; None: nowhere."""
    for start in range(len(_AROUND)):
        inside = "/".join(_AROUND[start:])
        if "train" in folder.child(inside).folders():
            return inside
    has_table = any(place.size(SOLUTION) is not None for place in tables_around(folder))
    return "" if has_table and "train" in folder.folders() else None


def open_kaggle(tree: Tree, tables: Tables) -> Source:
    rest, flat = set_apart(tree.paths, (VAL,))
    names, splits, notes = class_layout(rest, tree.where, tree.archive, tree.empty_in)
    if VAL in flat:
        if VAL in splits:
            raise ValueError(f"{tree.where} has val images in class folders, and flat in {flat[VAL].folder}; keep one")
        splits[VAL], missing = _list_val(flat[VAL], tables, names, tree)
        notes += missing
    if len(names) == NUM_CLASSES:
        notes += tuple(missing_notes({split: rows.num_rows for split, rows in splits.items()}, 2012))
    titles = _read_titles(tables)
    return Source(
        kind="kaggle",
        fingerprint=fingerprint_of(["kaggle", *listed(splits)]),
        class_names=names,
        class_titles=tuple(titles.get(name, name) for name in names),
        splits=splits,
        reader=tree.reader,
        notes=(*notes, *tree.notes),
    )


def _list_val(flat: Flat, tables: Tables, names: tuple[str, ...], tree: Tree) -> tuple[pa.Table, tuple[str, ...]]:
    """Flat images, each with its class in the CSV; and how many the CSV knows that are not there."""
    solution = _read_solution(tables)
    keys = [path.rpartition("/")[2] for path in flat.images["path"].to_pylist()]
    wnids = {key: solution.pop(key.rpartition(".")[0], "") for key in keys}
    label_of = {name: i for i, name in enumerate(names)}
    if unknown := [key for key in keys if wnids[key] not in label_of]:
        raise ValueError(
            f"{tree.where}/{flat.folder}: {unknown[0]} has no class in {SOLUTION}, or one that train/ lacks"
        )
    labels = [label_of[wnids[key]] for key in keys]
    files = files_of(flat.images, tree.archive or flat.folder)
    missing = f"{len(solution):,} images that {SOLUTION} labels are missing, such as {next(iter(solution), None)}"
    rows = listing(keys, labels, files, flat.images["offset"], flat.images["size"])
    return rows, (missing,) if solution else ()


def _read_solution(tables: Tables) -> dict[str, str]:
    """Image name -> wnid; a line reads ILSVRC2012_val_00048981,n03995372 85 1 499 272 (a class and its boxes)."""
    rows = csv.reader(io.StringIO(tables.read(SOLUTION).decode()))
    return {row[0]: row[1].partition(" ")[0] for row in rows if len(row) == 2 and row[0] != "ImageId"}


def _read_titles(tables: Tables) -> dict[str, str]:
    """wnid -> words, one line each: n01440764 tench, Tinca tinca."""
    if tables.size(TITLES) is None:
        return {}
    lines = tables.read(TITLES).decode().splitlines()
    return {wnid: words for wnid, _, words in (line.partition(" ") for line in lines)}
