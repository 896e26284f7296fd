"""ImageNet unpacked, or with a tar for each split: which table labels its flat validation images, and opens it.

The table is in Kaggle's LOC_val_solution.csv or in the development kit; either lies in the folder that was named, or
around the images; Kaggle's own zip holds the table too.
"""

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.names import VAL
from pipelines.sources.beside import with_beside
from pipelines.sources.cache import Indexes
from pipelines.sources.devkit import NAMES, find_devkit
from pipelines.sources.imagenet import find_kit, open_with_kit, truth_of_tests
from pipelines.sources.kaggle import SOLUTION, TITLES, Tables, open_kaggle, tables_around
from pipelines.sources.left_out import only_images
from pipelines.sources.numbered import Flat, numbered_folders, set_apart, year_of
from pipelines.sources.pieces import require_no_split, require_no_stray_val
from pipelines.sources.source import Source
from pipelines.sources.synset_tars import class_tars_tree, open_synset_tars, require_one_form
from pipelines.sources.tree import Tree, folder_tree
from pipelines.specs import IngestSpec
from pipelines.storage import FileEntry, Folder


def open_unpacked(tree: Tree, places: list[Folder], spec: IngestSpec, cache: Indexes) -> Source | None:
    """The source in a tree whose validation images lie flat, or that is to have the kit's labels; None for others.

    Args:
        places: Folders where the tables may lie; the first is where a missing one is asked for.
    """
    flat = _flat_val(tree, places[0])
    if not flat and spec.labels == "wnid":
        return None
    tables: tuple[Tables, ...] = (*places, tree)
    solution = next((place for place in tables if place.size(SOLUTION) is not None), None)
    if solution and spec.labels == "wnid":
        return open_kaggle(_without(tree, (SOLUTION, TITLES)), solution)
    if spec.check_md5:
        raise ValueError("ingest.check_md5 needs the ILSVRC archives as downloaded; leave it false for unpacked ones")
    year = year_of(flat) if flat else None
    if found := find_kit(places, cache, year):
        return open_with_kit(_without(tree, found.files), found, spec)
    raise _no_table(places[0], flat)


def open_class_tars(folder: Folder, tars: list[FileEntry], spec: IngestSpec, cache: Indexes) -> Source:
    """A folder of class tars, with the kit's labels if they are asked for."""
    require_one_form(folder, tars)
    require_no_split(folder, f"{len(tars):,} class tars, such as {tars[0].name},")
    require_no_stray_val(folder, [])
    tree = class_tars_tree(folder, tars, cache)
    source = open_unpacked(tree, [folder], spec, cache) or open_synset_tars(tree)
    return with_beside(source, folder, [*(entry.name for entry in tars), *tables_of(source, folder)])


def open_kaggle_folder(folder: Folder, inside: str, spec: IngestSpec, cache: Indexes) -> Source:
    """Kaggle's copy, its images in the folder `inside` that was named, with the kit's labels if they are asked for."""
    tree, tables = folder_tree(folder.child(inside) if inside else folder), tables_around(folder)
    source = open_unpacked(tree, tables, spec, cache) or open_kaggle(tree, tables[0])
    used = [inside.partition("/")[0], *tables_of(source, folder)]
    return with_beside(source, folder, used) if inside else source


def tables_of(source: Source, folder: Folder) -> list[str]:
    """Names of the tables in a folder that a source in it was labelled by."""
    tables = [SOLUTION, TITLES] if source.kind == "kaggle" else []
    if source.kind.startswith("ilsvrc") and (kit := find_devkit(folder)):
        tables += [kit, truth_of_tests(source.kind.removeprefix("ilsvrc"))]
    return tables


def _flat_val(tree: Tree, place: Folder) -> Flat | None:
    """The validation images that lie flat. ValueError: there are no others to train on."""
    rest, found = set_apart(tree.paths, (VAL,))
    flat = found.get(VAL)
    if flat and not only_images(rest)[0].num_rows:
        raise ValueError(
            f"{place.where()} has flat images in {flat.folder}, and none to train on: put train/, with its class "
            f"folders, beside it, or ILSVRC{year_of(flat)}_img_train.tar"
        )
    if (
        numbered_folders(tree.paths["path"]) == [""]
        and not pc.any(pc.match_substring(only_images(tree.paths)[0]["path"], "/")).as_py()
    ):
        raise ValueError(
            f"{tree.where} holds the numbered images of one split alone: name the folder around it, with what there is "
            "to train on in it too"
        )
    return flat


def _without(tree: Tree, names: tuple[str, ...]) -> Tree:
    """The tree without the files that were read as tables, or lie in folders of these names."""
    tops = pc.list_element(pc.split_pattern(tree.paths["path"], "/", max_splits=1), 0)
    return tree._replace(paths=tree.paths.filter(pc.invert(pc.is_in(tops, value_set=pa.array(names)))))


def _no_table(place: Folder, flat: Flat | None) -> ValueError:
    if not flat:
        return ValueError(
            f"ingest.labels=devkit needs the classes of ILSVRC and its development kit: put {NAMES[2012]} into "
            f"{place.where()}, or use ingest.labels=wnid"
        )
    example = flat.images["path"][0].as_py().rpartition("/")[2]
    kit = NAMES.get(year_of(flat), "its development kit")
    return ValueError(
        f"{place.where()}: {flat.images.num_rows:,} images in {flat.folder}, such as {example}, are labelled by their "
        f"number alone: put {kit}, or Kaggle's {SOLUTION}, into {place.where()}"
    )
