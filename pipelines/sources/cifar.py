"""CIFAR-10 and CIFAR-100 as their authors pack them: Python pickles of raw pixels, in a .tar.gz or unpacked.

A pickle can run any code when it is loaded; these are read by an unpickler that knows NumPy arrays and nothing else.
Images are handed on as PNG files, which loses nothing.
"""

import io
import pickle
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy._core.multiarray import _reconstruct

from pipelines.names import TRAIN, VAL
from pipelines.sources.cache import cached_table
from pipelines.sources.source import Source, fingerprint_of, listing
from pipelines.storage import Folder


@dataclass(frozen=True)
class Edition:
    folder: str
    archive: str
    train: tuple[str, ...]  # batch files
    val: str  # the authors' test batch: there is no other
    meta: str
    labels: bytes  # field of a batch
    names: bytes  # field of the meta file


EDITIONS = (
    Edition(
        folder="cifar-10-batches-py",
        archive="cifar-10-python.tar.gz",
        train=tuple(f"data_batch_{i}" for i in range(1, 6)),
        val="test_batch",
        meta="batches.meta",
        labels=b"labels",
        names=b"label_names",
    ),
    Edition(
        folder="cifar-100-python",
        archive="cifar-100-python.tar.gz",
        train=("train",),
        val="test",
        meta="meta",
        labels=b"fine_labels",
        names=b"fine_label_names",
    ),
)


@dataclass(frozen=True)
class CifarReader:
    """A row's `file` is a batch, its offset the image in it; `archive` is empty where the batches lie in `folder`."""

    folder: Folder
    archive: str

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
        if {edition.meta, edition.val, *edition.train} <= files:
            return folder, "", edition
        if edition.archive in files:
            return folder, edition.archive, edition
        if edition.folder in folder.folders():
            return folder.child(edition.folder), "", edition
    return None


def open_cifar(folder: Folder, archive: str, edition: Edition, cache: Path | None) -> Source:
    wanted = (archive,) if archive else (*edition.train, edition.val, edition.meta)
    identity = [entry for entry in folder.files() if entry.name in wanted]
    kept = cached_table(cache, ["cifar", *identity], lambda: _read_labels(folder, archive, edition))
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
    keys = [f"{names[label]}/{batch}_{i:05d}" for i, label in enumerate(labels)]
    return listing(keys, labels, batch, pa.array(range(len(keys))), pa.array([3072] * len(keys)))


def _read_labels(folder: Folder, archive: str, edition: Edition) -> pa.Table:
    """One row: the class names, and for each batch its labels."""
    batches = dict(_load(folder, archive, {edition.meta, edition.val, *edition.train}))
    if missing := {edition.meta, edition.val, *edition.train} - set(batches):
        raise ValueError(f"{folder.where(archive)} lacks {sorted(missing)[0]}; fetch it again")
    names = [name.decode() for name in batches.pop(edition.meta)[edition.names]]
    return pa.table({"names": [names]} | {name: [batch[edition.labels]] for name, batch in batches.items()})


def _load(folder: Folder, archive: str, names: set[str]) -> Iterator[tuple[str, dict]]:
    """(name, content) of the pickles asked for, in the order in which they are stored."""
    if not archive:
        for entry in folder.files():
            if entry.name in names:
                yield entry.name, _unpickle(folder.read(entry.name), folder.where(entry.name))
        return
    try:
        with folder.open(archive) as file, tarfile.open(fileobj=file, mode="r|gz") as members:
            for member in members:
                name = member.name.rpartition("/")[2]
                if name in names and (content := members.extractfile(member)):
                    yield name, _unpickle(content.read(), folder.where(f"{archive}/{name}"))
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{folder.where(archive)} is damaged: {error}; fetch it again") from error


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str):
        allowed = {
            ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
            ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
        }
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no array needs")
        return allowed[module, name]


def _unpickle(data: bytes, where: str) -> dict:
    try:
        return _ArrayUnpickler(io.BytesIO(data), encoding="bytes").load()
    except Exception as error:
        raise ValueError(f"{where} is no CIFAR batch or is damaged: {error}") from error


@lru_cache(maxsize=1)
def _load_all_pixels(folder: Folder, archive: str) -> dict[str, np.ndarray]:
    """All images by batch, uint8 (N, 3072): 185 MB, which a worker keeps, because each shard needs all batches."""
    names = {name for edition in EDITIONS for name in (*edition.train, edition.val)}
    return {name: batch[b"data"] for name, batch in _load(folder, archive, names)}


def _png(pixels: np.ndarray) -> bytes:
    """From 3072 bytes, channel by channel, to a PNG file."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels.reshape(3, 32, 32).transpose(1, 2, 0)).save(file, "PNG", compress_level=1)
    return file.getvalue()
