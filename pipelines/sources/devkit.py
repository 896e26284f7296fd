"""The ILSVRC development kit: which synset is which class, in words, and the ground truth of the validation images.

Its label ids start at 1 and follow an order of their own, not the alphabetical order of the WordNet ids. It is
read from the archive as downloaded, from what a browser made of that, or from the folder that it unpacks to.
"""

import io
import re
import tarfile
import zlib
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipelines.sources.cache import Indexes
from pipelines.storage import FileEntry, Folder

NAMES = {2012: "ILSVRC2012_devkit_t12.tar.gz", 2010: "ILSVRC2010_devkit-1.0.tar.gz"}  # as published
_META = "meta.mat"
_TRUTH = re.compile(r"^ILSVRC(\d{4})_validation_ground_truth\.txt$")
_KIT = re.compile(r"(?i)^(ILSVRC\d{4}_)?devkit(?!_t3)")  # that of task 3 knows dogs only
NUM_CLASSES, _IMAGES = 1000, 50_000  # of every published kit
_FIRST_IDS = {2012: [490, 361, 171, 822]}  # of the validation images 1, 2, 3, 4, as published


@dataclass(frozen=True)
class Devkit:
    year: int
    wnids: tuple[str, ...]  # of the classes, in the order of their ILSVRC ids; id = index + 1
    titles: tuple[str, ...]  # such as "tench, Tinca tinca"
    val_ids: np.ndarray  # ILSVRC id of each validation image, by its number

    @property
    def is_published(self) -> bool:
        """Whether it is the kit of a whole edition, so that the published counts of images apply."""
        return len(self.wnids) == NUM_CLASSES

    def order(self, labels: str) -> list[int]:
        """ILSVRC ids - 1 in the order of the labels: of the sorted wnids, or the kit's own."""
        ids = range(len(self.wnids))
        return sorted(ids, key=self.wnids.__getitem__) if labels == "wnid" else list(ids)


def find_devkit(folder: Folder, year: int | None = None) -> str | None:
    """The name of the kit in a folder: of an archive, or of the folder that one unpacks to; of any year, or of this."""
    names = [*(entry.name for entry in folder.files()), *folder.folders()]
    found = {name: match[1] for name in names if (match := _KIT.match(name))}
    return next((name for name, of in found.items() if not (year and of) or str(year) in of), None)


def open_devkit(folder: Folder, name: str, cache: Indexes) -> Devkit:
    """The kit of this name; parsed once, since reading Matlab's format needs all of scipy. ValueError: it is no kit."""
    entry = folder.entry(name)
    parts = [entry] if entry else _parts(folder.child(name))
    kept = cache.table(
        ["devkit"], folder if entry else folder.child(name), parts, lambda: _parse(folder, name, bool(entry))
    )
    row = {column: kept[column][0].as_py() for column in kept.column_names}
    return Devkit(row["year"], tuple(row["wnids"]), tuple(row["titles"]), np.array(row["val_ids"]))


def parse_ground_truth(text: bytes, where: str, num_classes: int) -> np.ndarray:
    """One ILSVRC id a line, in the order of the images' numbers; there are as many of each."""
    try:
        ids = np.array(text.split(), np.int64)
    except ValueError:
        ids = np.zeros(1, np.int64)
    if not len(ids) or ids.min() < 1 or ids.max() > num_classes:
        raise ValueError(f"{where} does not hold ILSVRC ids from 1 to {num_classes}, one a line; fetch it again")
    counts = np.bincount(ids, minlength=num_classes + 1)[1:]
    if counts.min() < counts.max():
        raise ValueError(
            f"{where} is not the published one: the class {counts.argmin() + 1} has {counts.min()} images and the "
            f"class {counts.argmax() + 1} has {counts.max()}, where each has as many; fetch it again"
        )
    return ids


def _parse(folder: Folder, name: str, is_file: bool) -> pa.Table:
    where, year = folder.where(name), None
    files = _members(folder, name) if is_file else _read_parts(folder.child(name))
    for file in files:
        if match := _TRUTH.match(file):
            year = int(match[1])
    if year is None or _META not in files:
        lacking = _META if year else "ILSVRC…_validation_ground_truth.txt"
        raise ValueError(f"{where} is no ILSVRC development kit: it lacks {lacking}; fetch it again")
    wnids, titles = _parse_synsets(files[_META], f"ILSVRC{year}_ID", f"{where}: {_META}")
    truth = f"ILSVRC{year}_validation_ground_truth.txt"
    val_ids = parse_ground_truth(files[truth], f"{where}: {truth}", len(wnids))
    _require_published(year, len(wnids), val_ids, where)
    return pa.table({"year": [year], "wnids": [wnids], "titles": [titles], "val_ids": [val_ids]})


def _members(folder: Folder, name: str) -> dict[str, bytes]:
    """The two files in an archive, compressed or not: browsers unpack a .tar.gz to a .tar, under either name."""
    try:
        with tarfile.open(fileobj=io.BytesIO(folder.read(name)), mode="r:*") as kit:
            return {
                base: content.read()
                for member in kit
                if _is_part(base := member.name.rpartition("/")[2]) and (content := kit.extractfile(member))
            }
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        reason = str(error).splitlines()[0].rstrip(":")
        raise ValueError(f"{folder.where(name)} is damaged: {reason}; fetch it again") from error


def _parts(kit: Folder) -> list[FileEntry]:
    return [entry for entry in kit.files(recursive=True) if _is_part(entry.name.rpartition("/")[2])]


def _read_parts(kit: Folder) -> dict[str, bytes]:
    return {entry.name.rpartition("/")[2]: kit.read(entry.name) for entry in _parts(kit)}


def _is_part(name: str) -> bool:
    return name == _META or bool(_TRUTH.match(name))


def _require_published(year: int, num_classes: int, val_ids: np.ndarray, where: str) -> None:
    """ValueError where a kit as large as the published one is another; those of subsets may be anything."""
    if num_classes != NUM_CLASSES and len(val_ids) != _IMAGES:
        return
    if (num_classes, len(val_ids)) != (NUM_CLASSES, _IMAGES):
        raise ValueError(
            f"{where} is not the published kit: it has {num_classes:,} classes and the labels of {len(val_ids):,} "
            f"validation images, where ILSVRC{year} has {NUM_CLASSES:,} and {_IMAGES:,}; fetch it again"
        )
    first = val_ids[:4].tolist()
    if first != _FIRST_IDS.get(year, first):
        raise ValueError(
            f"{where} is not the published kit: its validation images begin with the classes {first}, "
            f"not {_FIRST_IDS[year]}, so they were put in another order; fetch it again"
        )


def _parse_synsets(meta: bytes, id_field: str, where: str) -> tuple[list[str], list[str]]:
    """wnids and words of the synsets without children, which are the classes; the others are their ancestors."""
    from scipy.io import loadmat

    try:
        synsets = loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"]
        rows = zip(*(synsets[field] for field in (id_field, "WNID", "words", "num_children")), strict=True)
        leaves = sorted((int(id_), str(wnid), str(words)) for id_, wnid, words, children in rows if not int(children))
    except Exception as error:  # whatever Matlab's format trips over
        raise ValueError(f"{where} is damaged: {error}; fetch it again") from error
    if [id_ for id_, _, _ in leaves] != list(range(1, len(leaves) + 1)):
        raise ValueError(f"{where}: the ids of the classes are not 1, 2, 3 ...")
    return [wnid for _, wnid, _ in leaves], [words for _, _, words in leaves]
