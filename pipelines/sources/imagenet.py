"""ImageNet by its development kit: class folders to train on, and images that lie flat, labelled by their number.

How they are packed makes no difference here: a `Tree` is a folder, an archive, or an archive for each split.
"""

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from pipelines.names import TEST, TRAIN, VAL
from pipelines.sources.cache import Indexes
from pipelines.sources.devkit import NAMES, Devkit, find_devkit, open_devkit, parse_ground_truth
from pipelines.sources.layout import class_layout, files_of
from pipelines.sources.numbered import Flat, by_number, set_apart
from pipelines.sources.source import SCHEMA, Source, fingerprint_of, listed, listing
from pipelines.sources.tree import Tree
from pipelines.specs import IngestSpec
from pipelines.storage import Folder

PUBLISHED = {  # images
    2010: {TRAIN: 1_261_406, VAL: 50_000, TEST: 150_000},
    2012: {TRAIN: 1_281_167, VAL: 50_000, TEST: 100_000},
}


class Kit(NamedTuple):
    """A development kit with what goes with it."""

    kit: Devkit
    truths: dict[str, np.ndarray]  # ILSVRC ids of the images that may lie flat, by split
    files: tuple[str, ...]  # names of what was read, in their folder


def open_with_kit(tree: Tree, found: Kit, spec: IngestSpec) -> Source:
    kit = found.kit
    splits, notes = _list_splits(tree, kit, found.truths)
    order = kit.order(spec.labels)
    label_of_id = np.argsort(order).astype(np.int32)  # by ILSVRC id - 1
    splits = {name: with_labels(rows, label_of_id[rows["label"].to_numpy() - 1]) for name, rows in splits.items()}
    kind = f"ilsvrc{kit.year}"
    identity = [*tree.identity, *(splits[name]["label"] for name in sorted(splits))]
    return Source(
        kind=kind,
        fingerprint=fingerprint_of([kind, *(identity if tree.identity else listed(splits))]),
        class_names=tuple(kit.wnids[i] for i in order),
        class_titles=tuple(kit.titles[i] for i in order),
        splits=splits,
        reader=tree.reader,
        notes=(*notes, *tree.notes),
    )


def find_kit(places: list[Folder], cache: Indexes, year: int | None = None) -> Kit | None:
    """The kit in the first of these folders that has one. ValueError: it is of another year."""
    for place in places:
        if name := find_devkit(place, year):
            kit = open_devkit(place, name, cache)
            if year not in (None, kit.year):
                right = NAMES.get(year, f"that of ILSVRC{year}")
                raise ValueError(f"{place.where(name)} is the kit of ILSVRC{kit.year}; put {right} in its place")
            truth = truth_of_tests(kit.year)
            if place.size(truth) is None:
                return Kit(kit, {VAL: kit.val_ids}, (name,))
            return Kit(kit, {VAL: kit.val_ids, TEST: _read_test_truth(place, truth, kit)}, (name, truth))
    return None


def truth_of_tests(year: int | str) -> str:
    return f"ILSVRC{year}_test_ground_truth.txt"


def with_labels(rows: pa.Table, labels: np.ndarray) -> pa.Table:
    return rows.set_column(1, SCHEMA.field("label"), pa.array(labels))


def missing_notes(num_images: dict[str, int], year: int) -> list[str]:
    """By how much each split has fewer images, or more, than were published."""
    notes = []
    for split, found in num_images.items():
        published = PUBLISHED.get(year, {}).get(split, found)
        if found < published:
            notes.append(f"{split}: {published - found:,} of {published:,} published images are missing")
        elif found > published:
            notes.append(f"{split}: {found - published:,} images more than the {published:,} published")
    return notes


def _read_test_truth(folder: Folder, name: str, kit: Devkit) -> np.ndarray:
    where = folder.where(name)
    ids = parse_ground_truth(folder.read(name), where, len(kit.wnids))
    published = PUBLISHED.get(kit.year, {}).get(TEST, len(ids))
    if kit.is_published and len(ids) != published:
        raise ValueError(f"{where} has {len(ids):,} lines, not {published:,} as published; fetch it again")
    return ids


def _list_splits(tree: Tree, kit: Devkit, truths: dict[str, np.ndarray]) -> tuple[dict[str, pa.Table], list[str]]:
    """Rows of each split with ILSVRC ids as labels; and what is left out or missing."""
    rest, flat = set_apart(tree.paths, tuple(truths))
    names, splits, left_out = class_layout(rest, tree.where, tree.archive, tree.empty_in)
    ids = _ids_of(names, kit, tree.where)
    splits = {split: with_labels(rows, ids[rows["label"].to_numpy()]) for split, rows in splits.items()}
    notes = list(left_out)
    if kit.is_published:
        unlabelled = {} if TEST in truths else set_apart(tree.paths, (TEST,))[1]
        counts = {split: rows.num_rows for split, rows in splits.items()}
        counts |= {split: part.images.num_rows for split, part in unlabelled.items()}
        notes += missing_notes(counts, kit.year)
    for split, part in flat.items():
        if split in splits:
            raise ValueError(f"{tree.where} has {split} images in class folders, and flat in {part.folder}; keep one")
        splits[split], missing = _list_flat(part, truths[split], f"ILSVRC{kit.year}_{split}", tree)
        notes += missing
    return splits, notes


def _ids_of(names: tuple[str, ...], kit: Devkit, where: str) -> np.ndarray:
    id_of = {wnid: i + 1 for i, wnid in enumerate(kit.wnids)}
    if unknown := [name for name in names if name not in id_of]:
        raise ValueError(f"{where} holds {unknown[0]!r}, which is no class of the development kit")
    return np.array([id_of[name] for name in names], np.int32)


def _list_flat(flat: Flat, truth: np.ndarray, stem: str, tree: Tree) -> tuple[pa.Table, list[str]]:
    files = files_of(flat.images, flat.folder)
    place = files if isinstance(files, str) else files[0].as_py()
    numbered = by_number(flat.images, truth, stem, tree.where if tree.archive else f"{tree.where}/{place}")
    images = numbered.images
    files = files_of(images, tree.archive or flat.folder)
    return listing(numbered.keys, numbered.ids, files, images["offset"], images["size"]), numbered.notes
