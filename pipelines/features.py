"""Features: what a network makes of each stored image, in Parquet beside its id, key and label; a file for each shard.

A file appears in `data/` when it is whole, then a small record in `parts/`, so that a rerun makes only what is missing;
`_files.parquet` (a row a file, with its sha256) and `features.json` (what they are) come when all are there. They are
read a row group at a time: those of ImageNet are 10 GB and fit no small memory.

Letters: N images, U units.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np

from pipelines.formats.rows import ShardRows
from pipelines.plan import DATA
from pipelines.shard_record import ShardRecord
from pipelines.shards import HashingFile, read_bytes, sizes_in
from pipelines.storage import Folder
from pipelines.tables import read_table

if TYPE_CHECKING:
    import pyarrow as pa

CARD, FILES = "features.json", "_files.parquet"
REDO = "run `alexnet verify` and then `alexnet features`, which writes anew what is damaged"
_PARTS = "parts"
_GROUP_BYTES = 8 << 20  # of features in a row group, which is read and written at once


@dataclass(frozen=True)
class FeatureFile:
    """One file of features: of the images of one shard, in their order."""

    name: str  # "data/train-00003-of-00012.parquet"
    split: str
    first_id: int  # of the shard's listing
    rows: int
    num_features: int
    bytes: int
    sha256: str


class FeatureRows(NamedTuple):
    """Some images of a split, in stored order."""

    ids_N: np.ndarray  # int64
    keys: list[str]
    labels_N: np.ndarray  # int64
    features_NU: np.ndarray  # float16 or float32, read-only


@dataclass(frozen=True)
class Features:
    """The features that a finished stage wrote, read a row group at a time."""

    folder: Folder
    card: dict[str, Any]  # network, weights, num_features, dtype, splits and their images
    files: tuple[FeatureFile, ...]

    @staticmethod
    def load(folder: Folder) -> "Features":
        """ValueError where there are none, or where the list of files cannot be read."""
        if folder.size(CARD) is None:
            raise ValueError(f"{folder.where()} holds no {CARD}: run `alexnet features` (again)")
        try:
            files = tuple(FeatureFile(**row) for row in read_table(folder, FILES).to_pylist())
        except (ValueError, OSError) as error:
            raise ValueError(f"{folder.where(FILES)} cannot be read ({error}); {REDO}") from error
        return Features(folder, json.loads(folder.read(CARD)), files)

    def of_split(self, split: str) -> tuple[FeatureFile, ...]:
        """The files of a split, in stored order. ValueError where there are no features of it."""
        if split not in self.card["splits"]:
            have = ", ".join(self.card["splits"])
            raise ValueError(f"{self.folder.where()} holds no features of split {split!r}, but of {have}")
        return tuple(file for file in self.files if file.split == split)

    def rows(self, split: str) -> Iterator[FeatureRows]:
        """All images of a split, at most 8 MB of features at a time."""
        for file in self.of_split(split):
            yield from read_features(self.folder, file)


def read_features(folder: Folder, file: FeatureFile, way_out: str = REDO) -> Iterator[FeatureRows]:
    """The rows of one file, a row group at a time. ValueError where it is missing or not the file that was written.

    The file is compared with its sha256 when this process reads it for the first time.

    Args:
        way_out: What is said of how it is made again.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    data = _whole(folder, file, way_out)
    table = pq.ParquetFile(pa.BufferReader(data))
    for group in range(table.num_row_groups):
        rows = table.read_row_group(group, use_threads=False)
        flat = _values(rows["features"].combine_chunks().flatten())
        ids_N, labels_N = (_values(rows[name].combine_chunks()) for name in ("id", "label"))
        yield FeatureRows(ids_N, rows["key"].to_pylist(), labels_N, flat.reshape(len(rows), -1))


def _values(numbers: "pa.Array") -> np.ndarray:
    """Without a copy; pyarrow's own `to_numpy` would first import pandas, which takes a while."""
    return np.from_dlpack(numbers)


_checked: set[tuple[str, str]] = set()


def _whole(folder: Folder, file: FeatureFile, way_out: str) -> memoryview:
    try:
        data = read_bytes(folder, file.name)
    except FileNotFoundError as error:
        raise ValueError(f"{folder.where(file.name)} is gone; {way_out}") from error
    key = (folder.child(file.name).url, file.sha256)
    if key not in _checked:
        if hashlib.sha256(data).hexdigest() != file.sha256:
            raise ValueError(f"{folder.where(file.name)} is not the file that was written; {way_out}")
        _checked.add(key)
    return data


def write_features(
    folder: Folder, shard: ShardRecord, rows: ShardRows, batches: Iterable[np.ndarray], dtype: str
) -> FeatureFile:
    """The file of a shard with these rows, from its features in their order, float32 [B, U] at a time.

    Raises:
        ValueError: Features are not finite, or float16 cannot hold them.
    """
    name = _name(shard)

    def write(file: BinaryIO) -> tuple[HashingFile, int]:
        hashing = HashingFile(file)
        return hashing, _write(hashing, shard, rows, (_rounded(batch, dtype, name) for batch in batches))

    file, num_features = folder.publish(name, write)
    written = FeatureFile(
        name, shard.split, shard.first_id, len(rows), num_features, file.num_bytes, file.sha256.hexdigest()
    )
    folder.write(_sidecar(name), json.dumps(asdict(written)))
    return written


def _write(file: HashingFile, shard: ShardRecord, rows: ShardRows, batches: Iterator[np.ndarray]) -> int:
    """Writes row groups that do not depend on the size of the batches; the number of features."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    first_BU = next(batches)
    num_features = first_BU.shape[1]
    values = pa.list_(pa.field("element", pa.from_numpy_dtype(first_BU.dtype), nullable=False), num_features)
    columns = {"split": pa.string(), "id": pa.int64(), "key": pa.string(), "label": pa.int64(), "features": values}
    schema = pa.schema([pa.field(name, kind, nullable=False) for name, kind in columns.items()])
    group_rows = max(1, _GROUP_BYTES // first_BU[0].nbytes)
    options = {"compression": "zstd", "compression_level": 1}  # what ReLU leaves at 0 costs next to nothing
    options |= {"use_dictionary": ["split"], "write_statistics": ["split", "id", "label"]}
    start = 0
    with pq.ParquetWriter(file, schema, **options) as writer:
        for group_NU in _groups(first_BU, batches, group_rows):
            part = slice(start, start + len(group_NU))
            arrays = [
                pa.array([shard.split] * len(group_NU)),
                pa.array(rows.ids[part], pa.int64()),
                pa.array(rows.keys[part], pa.string()),
                pa.array(rows.labels[part], pa.int64()),
                pa.FixedSizeListArray.from_arrays(pa.array(group_NU.ravel()), type=values),
            ]
            writer.write_table(pa.table(arrays, schema=schema), row_group_size=group_rows)
            start = part.stop
    assert start == len(rows), f"{shard.name}: features of {start} of {len(rows)} images"
    return num_features


def _groups(first_BU: np.ndarray, batches: Iterator[np.ndarray], group_rows: int) -> Iterator[np.ndarray]:
    """Batches cut and joined to groups of so many rows; the last may be shorter."""
    waiting_NU = first_BU
    while True:
        while len(waiting_NU) >= group_rows:
            yield waiting_NU[:group_rows]
            waiting_NU = waiting_NU[group_rows:]
        batch_BU = next(batches, None)
        if batch_BU is None:
            break
        waiting_NU = np.concatenate([waiting_NU, batch_BU])
    if len(waiting_NU):
        yield waiting_NU


def _rounded(features_BU: np.ndarray, dtype: str, name: str) -> np.ndarray:
    """In the type that is stored."""
    if not np.isfinite(features_BU).all():
        raise ValueError(f"{name}: the network gives features that are no numbers; train it anew")
    largest = float(np.abs(features_BU).max(initial=0))
    if largest > float(np.finfo(dtype).max):
        raise ValueError(f"{name}: features reach {largest:.3g}, more than {dtype} holds; set features.dtype=float32")
    return features_BU.astype(dtype)


def finished_files(folder: Folder) -> dict[str, FeatureFile]:
    """The whole files, by the name of their shard without its ending (see `stem`)."""
    sizes = sizes_in(folder)
    names = [name for name in sizes if name.startswith(f"{_PARTS}/")]
    with ThreadPoolExecutor(16) as pool:  # in an object store each read takes a while
        found = [FeatureFile(**json.loads(data)) for data in pool.map(folder.read, names)]
    return {stem(file.name): file for file in found if sizes.get(file.name) == file.bytes}


def write_card(folder: Folder, card: dict[str, Any], files: Sequence[FeatureFile]) -> None:
    """The list of the files in their order, then the card, last of all."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pylist([asdict(file) for file in files])
    folder.publish(FILES, lambda file: pq.write_table(table, file, compression="zstd"))
    folder.write(CARD, json.dumps(card, indent=1) + "\n")


def problems_by_file(folder: Folder, each: Callable[[Callable, Iterable], Iterable] = map) -> dict[str, list[str]]:
    """Every file read again and compared with its sha256: what is wrong, by file. `each` maps in any order."""
    try:
        files = Features.load(folder).files
    except ValueError as error:
        return {FILES: [str(error)]}
    found = dict(each(partial(_problem, folder), files))
    return {file.name: [found[file.name]] for file in files if found[file.name]}


def _problem(folder: Folder, file: FeatureFile) -> tuple[str, str]:
    try:
        _whole(folder, file, REDO)
    except (ValueError, OSError) as error:
        return file.name, str(error)
    return file.name, ""


def forget(folder: Folder, names: Iterable[str]) -> None:
    """These files are no longer taken as finished: the stage writes them anew in place of what is there."""
    for name in names:
        folder.delete(_sidecar(name))


def discard(folder: Folder) -> None:
    """Removes all files of features, which were only on the way to something else."""
    for name in (_PARTS, DATA):
        folder.child(name).delete_all()


def stem(name: str) -> str:
    """A shard's name, or that of its features, without folder and ending: what both have in common."""
    return name.removeprefix(f"{DATA}/").rpartition(".")[0]


def _name(shard: ShardRecord) -> str:
    return f"{DATA}/{stem(shard.name)}.parquet"


def _sidecar(name: str) -> str:
    return f"{_PARTS}/{stem(name)}.json"
