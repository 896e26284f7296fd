"""From `ingest.source` to an open source: what is there decides which kind it is."""

from pathlib import Path

from pipelines.sources.cache import Indexes, InTasks
from pipelines.sources.cifar import EDITIONS as CIFAR_EDITIONS
from pipelines.sources.cifar import find_cifar, open_cifar
from pipelines.sources.class_folders import open_class_folders
from pipelines.sources.demo import open_demo
from pipelines.sources.huggingface import open_huggingface
from pipelines.sources.ilsvrc import find_edition, open_ilsvrc
from pipelines.sources.kaggle import find_images, open_kaggle
from pipelines.sources.parquet_files import find_files, folder_to_name
from pipelines.sources.source import Source
from pipelines.sources.synset_tars import open_synset_tars, synset_tars
from pipelines.sources.tiny_imagenet import open_tiny_imagenet, tiny_imagenet_root
from pipelines.sources.tree import Tree, folder_tree, tar_tree, zip_tree
from pipelines.sources.webdataset import find_shards, open_webdataset
from pipelines.sources.webdataset_shard import is_shard
from pipelines.specs import IngestSpec
from pipelines.storage import Folder

_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


def open_source(spec: IngestSpec, cache: Path | None = None, in_tasks: InTasks = map) -> Source:
    """The source that `spec.source` names. ValueError: why there is none.

    Indexes of archives are kept in `cache`; `in_tasks` maps over large ones (see `Indexes`).
    """
    try:
        source = _open(spec, Indexes(cache, in_tasks))
    except OSError as error:  # not permitted, no such bucket, no connection
        reason = str(error).splitlines()[0]
        raise ValueError(f"ingest.source: cannot read {Folder.at(spec.source).where()}: {reason}") from error
    if spec.labels == "devkit" and not source.kind.startswith("ilsvrc"):
        raise ValueError(f"ingest.labels=devkit needs the ILSVRC archives; use wnid for this source ({source.kind})")
    if spec.check_md5 and not source.kind.startswith("ilsvrc"):
        raise ValueError(
            f"ingest.check_md5 needs the ILSVRC archives; no sums are known for this source ({source.kind})"
        )
    return source


def is_there(source: str) -> bool:
    """Whether there is a file or folder of this name; not where its place cannot be reached."""
    folder = Folder.at(source)
    parent, name = folder.split()
    try:
        return source == "demo" or parent.size(name) is not None or folder.exists()
    except OSError:  # no connection, no such bucket
        return False


def _open(spec: IngestSpec, cache: Indexes) -> Source:
    if spec.source == "demo":
        return open_demo()
    folder = Folder.at(spec.source)
    parent, name = folder.split()
    if parent.size(name) is not None:
        return _open_file(parent, name, spec, cache)
    if not folder.exists():
        raise ValueError(f"ingest.source: there is no file or folder {folder.where()}; use a path, a URL or 'demo'")
    return _open_folder(folder, spec, cache)


def _open_file(folder: Folder, name: str, spec: IngestSpec, cache: Indexes) -> Source:
    if cifar := next((edition for edition in CIFAR_EDITIONS if edition.archive == name), None):
        return open_cifar(folder, name, cifar, cache)
    if name.endswith(_COMPRESSED):
        raise ValueError(f"{folder.where(name)} is compressed, so members cannot be read in place; unpack it to a .tar")
    if find_edition({name}):
        raise ValueError(f"{folder.where(name)} is one of the ILSVRC archives; name the folder that holds them all")
    if name.endswith(".tar") and is_shard(folder, name):
        shards = [entry for entry in folder.files() if entry.name == name]
        return open_webdataset(folder, shards, spec.val_fraction, cache)
    if name.endswith(".tar"):
        return _open_tree(tar_tree(folder, name, cache), spec)
    if name.endswith(".zip"):
        return _open_tree(zip_tree(folder, name, cache), spec)
    if name.endswith(".parquet"):
        raise ValueError(f"{folder.where(name)} is one Parquet file; name the folder {folder_to_name(folder).where()}")
    raise ValueError(f"{folder.where(name)} is neither a folder nor a .tar or .zip of class folders")


def _open_folder(folder: Folder, spec: IngestSpec, cache: Indexes) -> Source:
    files = folder.files()
    names = {entry.name for entry in files}
    if edition := find_edition(names):
        return open_ilsvrc(folder, edition, spec, cache)
    if tars := synset_tars(files):
        return open_synset_tars(folder, tars, spec, cache)
    if cifar := find_cifar(folder):
        return open_cifar(*cifar, cache)
    if found := find_files(folder):
        return open_huggingface(found, spec.val_fraction, cache)
    for place in (folder, folder.child("data")):
        if shards := find_shards(place):
            return open_webdataset(place, shards, spec.val_fraction, cache)
    if (images := find_images(folder, names)) is not None:
        return open_kaggle(folder, images, spec.val_fraction)
    archives = sorted(name for name in names if name.endswith((".tar", ".zip", *_COMPRESSED)))
    if archives and not folder.folders():
        raise ValueError(f"{folder.where()} holds the archive {archives[0]}; name the archive itself as the source")
    return _open_tree(folder_tree(folder), spec)


def _open_tree(tree: Tree, spec: IngestSpec) -> Source:
    if (root := tiny_imagenet_root(tree.paths)) is not None:
        return open_tiny_imagenet(tree, root, spec.val_fraction)
    return open_class_folders(tree, spec.val_fraction)
