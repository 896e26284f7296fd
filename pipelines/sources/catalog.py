"""From `ingest.source` to an open source: what is there decides which kind it is."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from pipelines.names import JUNK_FOLDER, TEST, VAL, split_of
from pipelines.sources.beside import with_beside
from pipelines.sources.cache import Indexes, InTasks
from pipelines.sources.cifar import EDITIONS as CIFAR_EDITIONS
from pipelines.sources.cifar import find_cifar, names_of_cifar, open_cifar
from pipelines.sources.class_folders import open_class_folders
from pipelines.sources.compressed import compressed_splits, is_compressed, require_uncompressed
from pipelines.sources.contents import sample
from pipelines.sources.demo import open_demo
from pipelines.sources.devkit import find_devkit
from pipelines.sources.huggingface import open_huggingface
from pipelines.sources.ilsvrc import find_edition, is_published, open_ilsvrc
from pipelines.sources.joined import archive_tree, joined_tree
from pipelines.sources.kaggle import find_kaggle, tables_around
from pipelines.sources.parquet_files import find_files, folder_to_name
from pipelines.sources.pieces import choose_pieces, is_archive, with_other_splits
from pipelines.sources.several import how_to_unpack_classes, how_to_unpack_parts
from pipelines.sources.source import Source, fingerprint_of, with_val
from pipelines.sources.synset_tars import class_tars
from pipelines.sources.tiny_imagenet import open_tiny_imagenet, tiny_imagenet_root
from pipelines.sources.tree import Tree, folder_tree
from pipelines.sources.unpacked import open_class_tars, open_kaggle_folder, open_unpacked, tables_of
from pipelines.sources.webdataset import find_shards, open_webdataset
from pipelines.sources.webdataset_info import INFO_FILES
from pipelines.sources.webdataset_shard import is_shard
from pipelines.specs import IngestSpec
from pipelines.storage import Folder


def open_source(spec: IngestSpec, cache: Path | None = None, in_tasks: InTasks = map) -> Source:
    """The source that `spec.source` names. ValueError: why there is none.

    Indexes of archives are kept in `cache`; `in_tasks` maps over large ones (see `Indexes`).
    """
    try:
        is_demo = spec.source == "demo"
        source = _with_val(open_demo() if is_demo else _open(spec, Indexes(cache, in_tasks)), spec)
        if not is_demo:  # known by some of its contents, too
            source = replace(source, fingerprint=fingerprint_of([source.fingerprint, sample(source)]))
    except OSError as error:  # not permitted, no such bucket, no connection
        reason = str(error).splitlines()[0]
        raise ValueError(f"ingest.source: cannot read {Folder.at(spec.source).where()}: {reason}") from error
    if len(source.class_names) == 1:
        where, name = Folder.at(spec.source).where(), source.class_names[0]
        raise ValueError(f"{where} holds a single class, {name!r}; name what holds all classes")
    if spec.labels == "devkit" and not source.kind.startswith("ilsvrc"):
        raise ValueError(f"ingest.labels=devkit needs the ILSVRC archives; use wnid for this source ({source.kind})")
    if spec.check_md5 and not source.kind.startswith("ilsvrc"):
        raise ValueError(
            f"ingest.check_md5 needs the ILSVRC archives; no sums are known for this source ({source.kind})"
        )
    return source


def _with_val(source: Source, spec: IngestSpec) -> Source:
    """With validation images, wherever they come from."""
    of_train = spec.val_from == "train"
    splits = with_val(source.splits, spec.val_fraction, of_train)
    return replace(source, splits=splits, notes=(*source.notes, *_moved(source.splits, splits, of_train)))


def _moved(splits: Mapping[str, pa.Table], stored: Mapping[str, pa.Table], of_train: bool) -> list[str]:
    """What became of splits that are not stored under their own names, and where val comes from."""
    has = {name for name, table in splits.items() if table.num_rows}
    if of_train and VAL in has:
        how = "left out" if TEST in has else "stored as test"
        return [f"ingest.val_from=train: val is a share of train, and the source's own val is {how}"]
    if not of_train and TEST in has and VAL not in has:
        return ["there is no val: the images of test are stored as val"]
    if VAL in stored and VAL not in has:
        return [f"there is no val: {stored[VAL].num_rows:,} images of train are stored as val (ingest.val_fraction)"]
    return []


def is_there(source: str) -> bool:
    """Whether there is a file or folder of this name; not where its place cannot be reached."""
    folder = Folder.at(source)
    parent, name = folder.split()
    try:
        return source == "demo" or parent.size(name) is not None or folder.exists()
    except OSError:  # no connection, no such bucket
        return False


def _open(spec: IngestSpec, cache: Indexes) -> Source:
    folder = Folder.at(spec.source)
    parent, name = folder.split()
    if parent.size(name) is not None:
        return with_other_splits(_open_file(parent, name, spec, cache), parent, name)
    if not folder.exists():
        raise ValueError(f"ingest.source: there is no file or folder {folder.where()}; use a path, a URL or 'demo'")
    return with_other_splits(_open_folder(folder, spec, cache), parent, name)


def _open_file(folder: Folder, name: str, spec: IngestSpec, cache: Indexes) -> Source:
    if cifar := next((edition for edition in CIFAR_EDITIONS if edition.archive == name), None):
        return open_cifar(folder, name, cifar, cache)
    require_uncompressed(folder, name)
    if is_published(name):
        raise ValueError(
            f"{folder.where(name)} is one of the ILSVRC archives; name the folder that holds them all, {folder.where()}"
        )
    if name.endswith(".tar") and is_shard(folder, name):
        shards = [entry for entry in folder.files() if entry.name == name]
        return open_webdataset(folder, shards, cache)
    if is_archive(name):
        return _open_tree(archive_tree(folder, name, cache), [folder], spec, cache)
    if name.endswith(".parquet"):
        raise ValueError(f"{folder.where(name)} is one Parquet file; name the folder {folder_to_name(folder).where()}")
    raise ValueError(f"{folder.where(name)} is neither a folder nor a .tar or .zip of class folders")


def _open_folder(folder: Folder, spec: IngestSpec, cache: Indexes) -> Source:
    files = folder.files()
    names = {entry.name for entry in files}
    require_uncompressed(folder, *compressed_splits(names), then=folder.where())
    if edition := find_edition(names):
        return open_ilsvrc(folder, edition, spec, cache)
    if tars := class_tars(files):
        return open_class_tars(folder, tars, spec, cache)
    if cifar := find_cifar(folder):
        return with_beside(open_cifar(*cifar, cache), folder, names_of_cifar(folder, *cifar))
    if found := find_files(folder):
        return with_beside(open_huggingface(found, cache), folder, found.used)
    for place in (folder, folder.child("data")):
        if shards := find_shards(place):
            source = open_webdataset(place, shards, cache)
            return with_beside(source, place, [*(entry.name.partition("/")[0] for entry in shards), *INFO_FILES])
    if (inside := find_kaggle(folder)) is not None:
        return open_kaggle_folder(folder, inside, spec, cache)
    if pieces := choose_pieces(folder):
        source = _open_tree(joined_tree(folder, pieces, cache), [folder], spec, cache)
        return with_beside(source, folder, [*pieces.values(), *tables_of(source, folder)])
    return _open_class_folders(folder, sorted(filter(_is_packed, names)), spec, cache)


def _is_packed(name: str) -> bool:
    return is_archive(name) or is_compressed(name)


def _open_class_folders(folder: Folder, archives: list[str], spec: IngestSpec, cache: Indexes) -> Source:
    """What is no other kind: class folders, here or in the one folder that there is. ValueError: only archives are."""
    if archives and not folder.folders():
        raise _only_archives(folder, archives)
    if name := _only_folder(folder, archives):
        return with_beside(_open_folder(folder.child(name), spec, cache), folder, [name])
    source = _open_tree(folder_tree(folder), tables_around(folder), spec, cache)
    return with_beside(source, folder, tables_of(source, folder), among=archives)


def _only_archives(folder: Folder, archives: list[str]) -> ValueError:
    where, first = folder.where(), archives[0]
    if not archives[1:]:
        require_uncompressed(folder, first)
        return ValueError(f"{where} holds the archive {first}: name it itself, {folder.where(first)}")
    require_uncompressed(folder, *archives, then=where)
    how = how_to_unpack_parts(folder, archives) or how_to_unpack_classes(folder, archives)
    return ValueError(
        f"{where} holds {len(archives):,} archives, such as {first} and {archives[1]}, and none is named as a split: "
        f"{how}, and name {where}; if one is the whole set, name it itself"
    )


def _only_folder(folder: Folder, archives: list[str]) -> str | None:
    """The name of the one folder in this one, where the data set must be; None where it is a split or a class.

    None too where archives lie beside it, but for a kit whose archives are in the folder.
    """
    name, *others = [name for name in folder.folders() if not re.match(JUNK_FOLDER, f"{name}/")] or [""]
    if not name or others or split_of(name):
        return None
    inside = folder.child(name)
    if any(is_archive(entry.name) for entry in inside.files()):
        return name if set(archives) <= {find_devkit(folder)} else None
    return name if inside.folders() and not archives else None


def _open_tree(tree: Tree, tables: list[Folder], spec: IngestSpec, cache: Indexes) -> Source:
    if (root := tiny_imagenet_root(tree.paths)) is not None:
        return open_tiny_imagenet(tree, root)
    return open_unpacked(tree, tables, spec, cache) or open_class_folders(tree)
