"""Class folders: in a folder, here or in an object store, or in an archive."""

import pyarrow.compute as pc

from pipelines.sources.layout import class_layout
from pipelines.sources.source import Source, fingerprint_of, listed
from pipelines.sources.tree import Tree


def open_class_folders(tree: Tree) -> Source:
    names, splits, notes = class_layout(tree.paths, tree.where, tree.archive, tree.empty_in)
    labels = {label for rows in splits.values() for label in pc.unique(rows["label"]).to_pylist()}
    empty = [name for label, name in enumerate(names) if label not in labels]  # they decide labels of others
    return Source(
        kind=tree.kind,
        fingerprint=fingerprint_of([tree.kind, *(tree.identity or listed(splits)), *empty]),
        class_names=names,
        class_titles=names,
        splits=splits,
        reader=tree.reader,
        notes=(*notes, *tree.notes),
    )
