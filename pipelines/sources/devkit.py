"""The ILSVRC development kit: which synset is which class, in words, and the ground truth of the validation images.

Its label ids start at 1 and follow an order of their own, not the alphabetical order of the WordNet ids.
"""

import io
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipelines.sources.cache import cached_table
from pipelines.storage import Folder


@dataclass(frozen=True)
class Devkit:
    wnids: tuple[str, ...]  # of the classes, in the order of their ILSVRC ids; id = index + 1
    titles: tuple[str, ...]  # such as "tench, Tinca tinca"
    val_ids: np.ndarray  # ILSVRC id of each validation image, by its number


def open_devkit(folder: Folder, name: str, year: int, cache: Path | None) -> Devkit:
    """The kit in the archive `name`; parsed once, since reading Matlab's format needs all of scipy."""
    kept = cached_table(cache, ["devkit", *(folder.entry(name) or ())], lambda: _parse(folder, name, year))
    row = {column: kept[column][0].as_py() for column in kept.column_names}
    return Devkit(tuple(row["wnids"]), tuple(row["titles"]), np.array(row["val_ids"]))


def parse_ground_truth(text: bytes, where: str, num_classes: int) -> np.ndarray:
    """One ILSVRC id a line, in the order of the images' numbers."""
    try:
        ids = np.array(text.split(), np.int64)
    except ValueError:
        ids = np.zeros(1, np.int64)
    if not len(ids) or ids.min() < 1 or ids.max() > num_classes:
        raise ValueError(f"{where} does not hold ILSVRC ids from 1 to {num_classes}, one a line; fetch it again")
    return ids


def _parse(folder: Folder, name: str, year: int) -> pa.Table:
    try:
        with tarfile.open(fileobj=io.BytesIO(folder.read(name)), mode="r:gz") as kit:
            members = {
                member.name.rpartition("/")[2]: content
                for member in kit
                if member.isfile() and (content := kit.extractfile(member))
            }
            meta = members["meta.mat"].read()
            truth_name = f"ILSVRC{year}_validation_ground_truth.txt"
            truth = members[truth_name].read()
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{folder.where(name)} is damaged: {error}; fetch it again") from error
    except KeyError as error:
        raise ValueError(f"{folder.where(name)} is no ILSVRC{year} development kit: it lacks {error}") from error
    wnids, titles = _parse_synsets(meta, f"ILSVRC{year}_ID", f"{folder.where(name)}: meta.mat")
    val_ids = parse_ground_truth(truth, f"{folder.where(name)}: {truth_name}", len(wnids))
    return pa.table({"wnids": [wnids], "titles": [titles], "val_ids": [val_ids]})


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
