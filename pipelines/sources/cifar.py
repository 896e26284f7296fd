"""CIFAR-10 and CIFAR-100 as their authors pack them: raw pixels, pickled or binary, in a .tar.gz or unpacked.

Images are handed on as PNG files, which loses nothing.
"""

import io
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
import pyarrow as pa

from pipelines.names import TRAIN, VAL
from pipelines.sources.cache import Indexes
from pipelines.sources.cifar_batches import (
    PIXELS,
    Batch,
    binary_batch,
    pickled_batch,
    pickled_names,
    text_names,
)
from pipelines.sources.contents import Identity
from pipelines.sources.ranges import archives, identities
from pipelines.sources.source import Source, fingerprint_of, listing
from pipelines.storage import Folder


@dataclass(frozen=True)
class Edition:
    folder: str
    archive: str
    train: tuple[str, ...]  # batch files
    val: str  # the authors' test batch: there is no other
    meta: str
    batch: Callable[[bytes], Batch]
    names: Callable[[bytes], list[str]]  # from the meta file

    @property
    def batches(self) -> tuple[str, ...]:
        return (*self.train, self.val)


EDITIONS = (
    Edition(
        folder="cifar-10-batches-py",
        archive="cifar-10-python.tar.gz",
        train=tuple(f"data_batch_{i}" for i in range(1, 6)),
        val="test_batch",
        meta="batches.meta",
        batch=partial(pickled_batch, labels=b"labels"),
        names=partial(pickled_names, field=b"label_names"),
    ),
    Edition(
        folder="cifar-100-python",
        archive="cifar-100-python.tar.gz",
        train=("train",),
        val="test",
        meta="meta",
        batch=partial(pickled_batch, labels=b"fine_labels"),
        names=partial(pickled_names, field=b"fine_label_names"),
    ),
    Edition(
        folder="cifar-10-batches-bin",
        archive="cifar-10-binary.tar.gz",
        train=tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
        val="test_batch.bin",
        meta="batches.meta.txt",
        batch=partial(binary_batch, num_labels=1),
        names=text_names,
    ),
    Edition(
        folder="cifar-100-binary",
        archive="cifar-100-binary.tar.gz",
        train=("train.bin",),
        val="test.bin",
        meta="fine_label_names.txt",
        batch=partial(binary_batch, num_labels=2),  # coarse and fine
        names=text_names,
    ),
)
_EDITION_OF = {name: edition for edition in EDITIONS for name in edition.batches}


@dataclass(frozen=True)
class CifarReader:
    """A row's `file` is a batch, its offset the image in it; `archive` is empty where the batches lie in `folder`."""

    folder: Folder
    archive: str

    def files(self, rows: pa.Table) -> Iterator[tuple[str, list[Identity]]]:
        return identities(self.folder, [self.archive] if self.archive else archives(rows))

    def read(self, rows: pa.Table) -> Iterator[bytes]:
        files, offsets = rows["file"].to_pylist(), rows["offset"].to_pylist()
        return (
            _png(_load_all_pixels(self.folder, self.archive)[file][offset])
            for file, offset in zip(files, offsets, strict=True)
        )


def find_cifar(folder: Folder) -> tuple[Folder, str, Edition] | None:
    """(folder of the batches, "", edition), or (folder of the archive, its name, edition); None: there is neither."""
    files = {entry.name for entry in folder.files()}
    for edition in EDITIONS:
        found = len({edition.meta, *edition.batches} & files)  # what is missing is said when it is opened
        if found > 1 or (found and folder.split()[1] == edition.folder):
            return folder, "", edition
        if edition.archive in files:
            return folder, edition.archive, edition
        if edition.folder in folder.folders():
            return folder.child(edition.folder), "", edition
    return None


def names_of_cifar(folder: Folder, place: Folder, archive: str, edition: Edition) -> set[str]:
    """Names in a folder of what `find_cifar` found in it."""
    return {archive} if archive else {edition.folder} if place != folder else {edition.meta, *edition.batches}


def open_cifar(folder: Folder, archive: str, edition: Edition, cache: Indexes) -> Source:
    wanted = (archive,) if archive else (*edition.batches, edition.meta)
    identity = [entry for entry in folder.files() if entry.name in wanted]
    kept = cache.table(["cifar"], folder, identity, lambda: _read_labels(folder, archive, edition))
    columns = {name: kept[name][0].as_py() for name in kept.column_names}
    names = tuple(columns["names"])
    splits = {
        split: pa.concat_tables([_rows(batch, columns[batch], names) for batch in batches]).unify_dictionaries()
        for split, batches in ((TRAIN, edition.train), (VAL, (edition.val,)))
    }
    sizes = [entry[:2] for entry in identity]
    return Source(
        kind="cifar",
        fingerprint=fingerprint_of(["cifar", sizes, *(splits[split]["label"] for split in splits)]),
        class_names=names,
        class_titles=names,
        splits=splits,
        reader=CifarReader(folder, archive),
    )


def _rows(batch: str, labels: list[int], names: tuple[str, ...]) -> pa.Table:
    """Rows whose keys are the same in both editions, which hold the same images in the same order."""
    keys = [f"{names[label]}/{batch.removesuffix('.bin')}_{i:05d}" for i, label in enumerate(labels)]
    return listing(keys, labels, batch, pa.array(range(len(keys))), pa.array([PIXELS] * len(keys)))


def _read_labels(folder: Folder, archive: str, edition: Edition) -> pa.Table:
    """One row: the class names, and for each batch its labels."""
    files = dict(_load(folder, archive, {edition.meta, *edition.batches}))
    if missing := {edition.meta, *edition.batches} - set(files):
        raise ValueError(f"{folder.where(archive)} lacks {sorted(missing)[0]}; fetch it again")
    place = folder.child(archive) if archive else folder
    names = _parsed(edition.names, files[edition.meta], place.where(edition.meta))
    labels = {name: _parsed(edition.batch, files[name], place.where(name)).labels for name in edition.batches}
    if strange := [name for name in edition.batches if max(labels[name], default=0) >= len(names)]:
        raise ValueError(f"{place.where(strange[0])} has labels for which {edition.meta} has no name; fetch it again")
    return pa.table({"names": [names]} | {name: [values] for name, values in labels.items()})


def _load(folder: Folder, archive: str, names: set[str]) -> Iterator[tuple[str, bytes]]:
    """(name, content) of the files asked for, in the order in which they are stored."""
    if not archive:
        for entry in folder.files():
            if entry.name in names:
                yield entry.name, folder.read(entry.name)
        return
    try:
        with folder.open(archive) as file, tarfile.open(fileobj=file, mode="r|gz") as members:
            for member in members:
                name = member.name.rpartition("/")[2]
                if name in names and (content := members.extractfile(member)):
                    yield name, content.read()
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{folder.where(archive)} is damaged: {error}; fetch it again") from error


def _parsed(parse: Callable, data: bytes, where: str):
    try:
        return parse(data)
    except Exception as error:
        raise ValueError(f"{where} is no CIFAR batch or is damaged: {error}") from error


@lru_cache(maxsize=1)
def _load_all_pixels(folder: Folder, archive: str) -> dict[str, np.ndarray]:
    """All images by batch, uint8 (N, 3072): 185 MB, which a worker keeps, because each shard needs all batches."""
    files = _load(folder, archive, set(_EDITION_OF))
    return {name: _parsed(_EDITION_OF[name].batch, data, folder.where(name)).pixels for name, data in files}


def _png(pixels: np.ndarray) -> bytes:
    """From 3072 bytes, channel by channel, to a PNG file."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels.reshape(3, 32, 32).transpose(1, 2, 0)).save(file, "PNG", compress_level=1)
    return file.getvalue()
