"""ImageNet as downloaded: the ILSVRC archives of 2012 or 2010. Nothing is extracted.

Training images lie in a tar of class tars, which one index of headers flattens; labels of the others are in the
development kit, by the number in the image's name. Splits that were unpacked are read as they lie.
"""

import hashlib
from dataclasses import dataclass, field
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.names import TEST, TRAIN, VAL
from pipelines.sources.beside import with_beside
from pipelines.sources.cache import Indexes
from pipelines.sources.imagenet import find_kit, open_with_kit
from pipelines.sources.joined import joined_tree
from pipelines.sources.pieces import find_pieces, only_one, require_no_stray_val
from pipelines.sources.source import Source
from pipelines.sources.tree import Tree, tar_tree
from pipelines.specs import IngestSpec
from pipelines.storage import FileEntry, Folder


@dataclass(frozen=True)
class Edition:
    year: int
    train: str
    val: str
    devkit: str
    test: str = ""  # only where its labels are published
    test_truth: str = ""
    patch: str = ""  # replacements of images that are blank in the other archives
    md5: dict[str, str] = field(default_factory=dict)  # as published beside the downloads


EDITIONS = (
    Edition(
        year=2012,
        train="ILSVRC2012_img_train.tar",
        val="ILSVRC2012_img_val.tar",
        devkit="ILSVRC2012_devkit_t12.tar.gz",
        md5={
            "ILSVRC2012_img_train.tar": "1d675b47d978889d74fa0da5fadfb00e",
            "ILSVRC2012_img_val.tar": "29b22e2961454d5413ddabcf34fc5622",
            "ILSVRC2012_devkit_t12.tar.gz": "fa75699e90414af021442c21a62c3abf",
        },
    ),
    Edition(
        year=2010,
        train="ILSVRC2010_images_train.tar",
        val="ILSVRC2010_images_val.tar",
        devkit="ILSVRC2010_devkit-1.0.tar.gz",
        test="ILSVRC2010_images_test.tar",
        test_truth="ILSVRC2010_test_ground_truth.txt",
        patch="patch_images.tar",
    ),
)


def find_edition(files: set[str]) -> Edition | None:
    return next((edition for edition in EDITIONS if edition.train in files), None)


def is_published(name: str) -> bool:
    """Whether an archive of this name is a part of an edition."""
    return any(name in (edition.train, edition.val, edition.test) for edition in EDITIONS if name)


def open_ilsvrc(folder: Folder, edition: Edition, spec: IngestSpec, cache: Indexes) -> Source:
    files = {entry.name: entry for entry in folder.files()}
    if edition.test in files and edition.test_truth not in files:
        raise _lacks(folder, edition, edition.test_truth, "labels the test images")
    if (found := find_kit([folder], cache, edition.year)) is None:
        raise _lacks(folder, edition, edition.devkit, "says which class is which")
    if spec.check_md5:
        _check_md5(folder, edition, files, cache)
    pieces = _pieces(folder, edition, files)
    tree = joined_tree(folder, pieces, cache)
    if edition.patch in files:
        tree = _patched(tree, tar_tree(folder, edition.patch, cache))
    source = open_with_kit(tree, found, spec)
    return with_beside(source, folder, [*pieces.values(), *found.files, edition.patch])


def _lacks(folder: Folder, edition: Edition, name: str, use: str) -> ValueError:
    return ValueError(f"{folder.where()} lacks {name}, which {use}; put it beside {edition.train}")


def _pieces(folder: Folder, edition: Edition, files: dict[str, FileEntry]) -> dict[str, str]:
    """The archive or folder of each split: as published, or else named as a split is."""
    published = {TRAIN: edition.train, VAL: edition.val, TEST: edition.test}
    pieces = {split: name for split, name in published.items() if name in files}
    for split, names in find_pieces(folder).items():
        if split not in pieces:
            pieces[split] = only_one(folder, names)
    if VAL not in pieces:
        require_no_stray_val(folder, [*pieces.values()])
    return pieces


def _patched(tree: Tree, patch: Tree) -> Tree:
    """The tree with those images read from the patch archive that it has a better version of."""
    paths, better = tree.paths, patch.paths
    at = pc.index_in(_base_names(paths), value_set=_base_names(better))
    is_patched = pc.is_valid(at)
    columns = {
        name: pc.if_else(is_patched, better[name].combine_chunks().take(at), paths[name].combine_chunks())
        for name in ("offset", "size")
    }
    files = pc.if_else(is_patched, patch.archive, paths["file"].combine_chunks().cast(pa.string()))
    paths = pa.table({"path": paths["path"], **columns, "file": files.dictionary_encode()})
    return tree._replace(paths=paths, identity=(*tree.identity, *patch.identity))


def _base_names(paths: pa.Table) -> pa.Array:
    return pc.replace_substring_regex(paths["path"], r"^.*/", "").combine_chunks()


def _check_md5(folder: Folder, edition: Edition, files: dict[str, FileEntry], cache: Indexes) -> None:
    if not edition.md5:
        raise ValueError(f"ingest.check_md5: no MD5 sums are known for ILSVRC{edition.year}; leave it false")
    for name, published in edition.md5.items():
        if name in files:
            kept = cache.table(["md5"], folder, [files[name]], partial(_md5, folder, name))
            if (found := kept["md5"][0].as_py()) != published:
                raise ValueError(f"{folder.where(name)} has the MD5 sum {found}, not {published}; fetch it again")


def _md5(folder: Folder, name: str) -> pa.Table:
    digest = hashlib.md5(usedforsecurity=False)
    with folder.open(name) as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return pa.table({"md5": [digest.hexdigest()]})
