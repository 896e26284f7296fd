"""Shards: planned as a seeded permutation cut by listed rows, written one by one, read and verified.

A shard is a function of its task: the same bytes on any worker, in any order, after any crash. Its file appears under
its name when it is complete, then DALI's index, then a small record in `parts/`, so that a rerun redoes only what is
missing; the manifest comes when all shards are there.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from pipelines.formats.rows import Row, ShardRows
from pipelines.manifest import Manifest, Quarantined, ShardRecord, content_config, pack_label_counts
from pipelines.records import TEST, TRAIN, VAL
from pipelines.specs import IngestSpec
from pipelines.storage import Folder

if TYPE_CHECKING:
    import pyarrow as pa

    from pipelines.sources.source import Reader, Source

_PARTS = "parts"
_SPLITS = (TRAIN, VAL, TEST)
_MAX_CHUNK_BYTES = 128 << 20  # of encoded images held by a task until they are in order


@dataclass(frozen=True)
class ShardTask:
    """All that a worker needs to write one shard."""

    name: str  # "train-00003-of-00012.tfrecord"
    split: str
    first_id: int
    rows: "pa.Table"  # of the source, in the order of their ids
    reader: "Reader"
    spec: IngestSpec
    folder: Folder
    origin: str  # digest of the source and the configuration


@dataclass(frozen=True)
class ShardPlan(Sequence):
    """The tasks of all shards, each made when it is asked for: 15 million rows are never cut at once."""

    source: "Source"
    spec: IngestSpec
    folder: Folder

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> ShardTask:
        split, number, name = self._shards[index]
        first_id = number * self.spec.rows_per_shard
        chosen = self._orders[split][first_id : first_id + self.spec.rows_per_shard]
        return ShardTask(
            name=name,
            split=split,
            first_id=first_id,
            rows=_take_rows(self.source.splits[split], chosen),
            reader=self.source.reader,
            spec=self.spec,
            folder=self.folder,
            origin=self.origin,
        )

    @cached_property
    def names(self) -> list[str]:
        return [name for _, _, name in self._shards]

    @cached_property
    def num_rows(self) -> int:
        return sum(len(order) for order in self._orders.values())

    @cached_property
    def origin(self) -> str:
        identity = [self.source.fingerprint, content_config(self.spec)]
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]

    @cached_property
    def _orders(self) -> dict[str, np.ndarray]:
        limit = self.spec.limit or None
        return {
            split: permutation(len(rows), self.spec.seed, split)[:limit] for split, rows in self.source.splits.items()
        }

    @cached_property
    def _shards(self) -> list[tuple[str, int, str]]:
        """(split, number in the split, name) of each."""
        shards = []
        for split, order in self._orders.items():
            count = -(-len(order) // self.spec.rows_per_shard)
            names = (f"{split}-{number:05d}-of-{count:05d}.{self.spec.format}" for number in range(count))
            shards += [(split, number, name) for number, name in enumerate(names)]
        return shards


def plan_shards(source: "Source", spec: IngestSpec, folder: Folder) -> ShardPlan:
    return ShardPlan(source, spec, folder)


def permutation(num_rows: int, seed: int, split: str) -> np.ndarray:
    """The stored order of a split, uint32: the ranks of Philox words keyed by (seed, split).

    NumPy promises the words of a bit generator for ever, but not the permutations of a Generator.
    """
    words = np.random.Philox(np.random.SeedSequence([seed, _SPLITS.index(split)])).random_raw(num_rows)
    return np.argsort(words, kind="stable").astype(np.uint32)


def write_shard(task: ShardTask) -> ShardRecord:
    """Write the shard of a task, unless it is there already."""
    if finished := _finished_shard(task.folder, task.name, task.origin):
        return finished
    quarantined: list[Quarantined] = []
    labels: list[int] = []
    codec = _codec(task.name)

    def write(file: BinaryIO) -> tuple[_HashingFile, str | None]:
        hashing = _HashingFile(file)
        rows = _stored_rows(task, labels, quarantined)
        return hashing, codec.write(hashing, rows, task.spec.encoding, task.spec.size)

    written, index = task.folder.publish(task.name, write)
    if codec.INDEX_SUFFIX:
        task.folder.publish(task.name + codec.INDEX_SUFFIX, lambda file: file.write(index.encode()))
    record = ShardRecord(
        name=task.name,
        split=task.split,
        first_id=task.first_id,
        listed=len(task.rows),
        rows=len(labels),
        bytes=written.num_bytes,
        sha256=written.sha256.hexdigest(),
        labels=pack_label_counts(labels),
        quarantined=tuple(quarantined),
    )
    assert record.listed == record.rows + len(record.quarantined), record.name
    sidecar = json.dumps({"origin": task.origin, "record": asdict(record)})
    task.folder.publish(_sidecar(task.name), lambda file: file.write(sidecar.encode()))
    return record


def finished_shards(folder: Folder, origin: str) -> dict[str, ShardRecord]:
    """The shards of this origin (see ShardPlan) that are complete, by name."""
    prefix, suffix = f"{_PARTS}/", ".json"
    files = {entry.name for entry in folder.files(recursive=True)}
    names = [name[len(prefix) : -len(suffix)] for name in files if name.startswith(prefix) and name.endswith(suffix)]
    with ThreadPoolExecutor(16) as pool:  # in an object store each look takes a while
        records = pool.map(lambda name: _finished_shard(folder, name, origin), sorted(names))
        return {record.name: record for record in records if record}


def read_shard(folder: Folder, record: ShardRecord) -> ShardRows:
    """The rows of a shard, its images views of the file. ValueError names the shard and the row that is damaged."""
    data = _read(folder, record.name)
    codec = _codec(record.name)
    key = (folder.url, record.name, record.sha256, len(data))
    if key not in _checked:
        if hashlib.sha256(data).hexdigest() != record.sha256:
            damage = codec.first_damage(data) or "all rows are whole, but it is not the file of the manifest"
            raise ValueError(
                f"{folder.where(record.name)}: {damage} ({len(data)} bytes, the manifest has {record.bytes}); "
                "delete the file and run ingest again"
            )
        _checked.add(key)
    return codec.read(data)


_checked: set[tuple] = set()  # the shards whose sha256 this process has seen to be right


def verify(folder: Folder) -> list[str]:
    """Read everything again and compare it with the manifest; one line for each problem."""
    manifest = Manifest.load(folder)
    problems = []
    for record in manifest.records():
        problems += verify_shard(folder, record)
    return problems


def verify_shard(folder: Folder, record: ShardRecord) -> list[str]:
    _checked.clear()
    try:
        rows = read_shard(folder, record)
    except (ValueError, OSError) as error:
        return [str(error)]
    quarantined = {entry.id for entry in record.quarantined}
    ids = [i for i in range(record.first_id, record.first_id + record.listed) if i not in quarantined]
    problems = []
    if rows.ids.tolist() != ids:
        problems.append(f"{folder.where(record.name)}: the ids are not those of the manifest")
    if pack_label_counts(rows.labels.tolist()) != record.labels:
        problems.append(f"{folder.where(record.name)}: the labels are not those of the manifest")
    return problems


def predicted_bytes(num_rows: int, spec: IngestSpec) -> int:
    """About how much the shards of so many images take; on the high side."""
    pixels = spec.size**2
    bytes_per_pixel = np.interp(spec.quality, *_JPEG_BYTES_PER_PIXEL) if spec.encoding == "jpeg" else 3
    return int(num_rows * (pixels * bytes_per_pixel + _ROW_OVERHEAD_BYTES))


_JPEG_BYTES_PER_PIXEL = ([1, 50, 75, 85, 90, 95, 100], [0.03, 0.14, 0.22, 0.30, 0.38, 0.56, 1.3])
_ROW_OVERHEAD_BYTES = 1000


def _stored_rows(task: ShardTask, labels: list[int], quarantined: list[Quarantined]) -> Iterator[Row]:
    """The rows to store, in the order of their ids; what cannot be stored goes to `quarantined`."""
    spec = task.spec
    pixels_bytes = spec.size**2 * 3
    chunk_rows = max(1, _MAX_CHUNK_BYTES // (pixels_bytes if spec.encoding == "raw" else pixels_bytes // 2))
    for start in range(0, len(task.rows), chunk_rows):
        for item in _prepare(task.rows.slice(start, chunk_rows), task.first_id + start, task):
            if isinstance(item, Row):
                labels.append(item.label)
                yield item
            else:
                quarantined.append(item)


def _prepare(rows: "pa.Table", first_id: int, task: ShardTask) -> list[Row | Quarantined]:
    """Decode, cut and encode these rows: read as they lie in the source, returned in the order of their ids."""
    listing = rows.to_pylist()
    reading_order = sorted(range(len(listing)), key=lambda i: (listing[i]["file"], listing[i]["offset"]))
    done: list[Row | Quarantined | None] = [None] * len(listing)
    contents = task.reader.read(rows.take(reading_order))
    for i, data in zip(reading_order, contents, strict=True):
        done[i] = _prepare_one(listing[i], first_id + i, data, task.spec)
    return done


def _prepare_one(row: dict, id: int, data: bytes, spec: IngestSpec) -> Row | Quarantined:
    from pipelines.images import DamagedImage, encode_jpeg, to_square

    try:
        square = to_square(data, spec.size, spec.max_pixels)
    except DamagedImage as error:
        return Quarantined(id, row["key"], row["label"], row["file"], row["offset"], str(error))
    pixels = square.pixels_HWC
    image = encode_jpeg(pixels, spec.quality) if spec.encoding == "jpeg" else pixels.tobytes()
    return Row(id, row["key"], row["label"], image, square.width, square.height, square.format)


def _take_rows(rows: "pa.Table", indices: np.ndarray) -> "pa.Table":
    from pipelines.sources.source import take_rows

    return take_rows(rows, indices)


def _finished_shard(folder: Folder, name: str, origin: str) -> ShardRecord | None:
    if folder.size(_sidecar(name)) is None:
        return None
    sidecar = json.loads(folder.read(_sidecar(name)))
    record = ShardRecord.from_json(sidecar["record"])
    suffix = _codec(name).INDEX_SUFFIX
    has_index = suffix is None or folder.size(name + suffix) is not None
    return record if sidecar["origin"] == origin and folder.size(name) == record.bytes and has_index else None


def _sidecar(name: str) -> str:
    return f"{_PARTS}/{name}.json"


def _codec(name: str):
    """The format of a shard, from its name."""
    if name.endswith(".tfrecord"):
        from pipelines.formats import tfrecord

        return tfrecord
    from pipelines.formats import parquet

    return parquet


def _read(folder: Folder, name: str) -> memoryview:
    if folder.is_local:
        import pyarrow as pa

        return memoryview(pa.memory_map(str(folder.local_path() / name)).read_buffer()).cast("B")
    return memoryview(folder.read(name))


class _HashingFile:
    """A binary file to write to, which knows the sha256 and the length of what went in."""

    def __init__(self, file: BinaryIO):
        self._file = file
        self.sha256 = hashlib.sha256()
        self.num_bytes = 0
        self.closed = False

    def write(self, data) -> int:
        self.sha256.update(data)
        self.num_bytes += len(data)
        return self._file.write(data)

    def tell(self) -> int:
        return self.num_bytes

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        """Whoever opened the file closes it."""
