"""ImageNet as Kaggle packs it (CLS-LOC): class folders for training, one flat folder and a CSV for validation."""

import csv
import io

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.names import VAL
from pipelines.sources.layout import class_layout
from pipelines.sources.left_out import left_out_notes, only_images
from pipelines.sources.ranges import FileReader
from pipelines.sources.source import Source, fingerprint_of, listed, listing, with_val
from pipelines.sources.tree import list_paths
from pipelines.storage import Folder

_IMAGES = ("ILSVRC/Data/CLS-LOC", "Data/CLS-LOC", "CLS-LOC")
_SOLUTION, _TITLES = "LOC_val_solution.csv", "LOC_synset_mapping.txt"


def find_images(folder: Folder, files: set[str]) -> str | None:
    """Where train/ and val/ lie within a folder in Kaggle's layout; None where it is another layout."""
    for place in _IMAGES:
        if "train" in folder.child(place).folders():
            return place
    return "" if _SOLUTION in files and "train" in folder.folders() else None


def open_kaggle(folder: Folder, images: str, val_fraction: float) -> Source:
    place = folder.child(images) if images else folder
    prefix = f"{images}/" if images else ""
    names, splits, notes = class_layout(
        list_paths(place.child("train")), place.where("train"), archive=f"{prefix}train"
    )
    if "val" in place.folders():
        splits[VAL], val_notes = _list_val(folder, list_paths(place.child("val")), names, f"{prefix}val")
        notes = (*notes, *val_notes)
    titles = _read_titles(folder)
    return Source(
        kind="kaggle",
        fingerprint=fingerprint_of(["kaggle", *listed(splits)]),
        class_names=names,
        class_titles=tuple(titles.get(name, name) for name in names),
        splits=with_val(splits, val_fraction),
        reader=FileReader(folder),
        notes=notes,
    )


def _list_val(folder: Folder, paths: pa.Table, names: tuple[str, ...], place: str) -> tuple[pa.Table, list[str]]:
    """Flat images, each with its class in the CSV; or class folders, as some scripts sort them into."""
    paths, left_out = only_images(paths)
    if not paths.num_rows:
        raise ValueError(f"{folder.where(place)} holds no images")
    if pc.all(pc.match_substring(paths["path"], "/")).as_py():
        wnids = [path.partition("/")[0] for path in paths["path"].to_pylist()]
    else:
        solution = _read_solution(folder)
        wnids = [solution.get(path.rpartition(".")[0], path) for path in paths["path"].to_pylist()]
    label_of = {name: i for i, name in enumerate(names)}
    if unknown := [wnid for wnid in wnids if wnid not in label_of]:
        raise ValueError(f"{folder.where(place)}: {unknown[0]} has no class in {_SOLUTION}, or one that train/ lacks")
    labels = [label_of[wnid] for wnid in wnids]
    rows = listing(paths["path"], labels, place, paths["offset"], paths["size"])
    return rows, [f"{place}: {note}" for note in left_out_notes(left_out)]


def _read_solution(folder: Folder) -> dict[str, str]:
    """Image name -> wnid; a line reads ILSVRC2012_val_00048981,n03995372 85 1 499 272 (a class and its boxes)."""
    if folder.size(_SOLUTION) is None:
        raise ValueError(f"{folder.where()} lacks {_SOLUTION}, which labels the images of val/; put it there")
    rows = csv.reader(io.StringIO(folder.read(_SOLUTION).decode()))
    return {row[0]: row[1].partition(" ")[0] for row in rows if len(row) == 2}


def _read_titles(folder: Folder) -> dict[str, str]:
    """wnid -> words, one line each: n01440764 tench, Tinca tinca."""
    if folder.size(_TITLES) is None:
        return {}
    lines = folder.read(_TITLES).decode().splitlines()
    return {wnid: words for wnid, _, words in (line.partition(" ") for line in lines)}
