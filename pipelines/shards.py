"""Shards: written one by one, and read.

A shard is a function of its task: the same bytes on any worker, in any order, after any crash. Its file appears in
`data/` when it is complete, then DALI's index, then a small record in `parts/`, so that a rerun redoes only what is
missing; the manifest comes when all shards are there. `data/` holds nothing else: other readers take all of it.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from pipelines.formats.rows import Row, ShardRows, Shared
from pipelines.libraries import libraries
from pipelines.plan import DATA, ShardTask
from pipelines.shard_record import REDO, Quarantined, ShardRecord, WrittenShard, pack_label_counts, pack_mended
from pipelines.specs import IngestSpec
from pipelines.storage import Folder

if TYPE_CHECKING:
    import pyarrow as pa

_PARTS = "parts"
_MAX_CHUNK_BYTES = 100 << 20  # of encoded images that a task holds until they are in order


class Prepared(NamedTuple):
    """A row as it is stored, or the reason why it is not."""

    row: Row | Quarantined
    mended: str = ""  # what was wrong with it and does no harm


def write_shard(task: ShardTask, prepared: Iterable[Prepared] | None = None) -> WrittenShard:
    """Write the shard of a task, unless it is there already; its rows may be prepared, in the order of their ids."""
    if finished := finished_shard(task.folder, task.name, task.origin):
        return finished
    codec = codec_of(task.name)
    shared = Shared(task.split, task.spec.encoding, task.spec.size, task.class_names)
    stored: list[int] = []  # their labels
    quarantined: list[Quarantined] = []
    mended = Counter[str]()

    def write(file: BinaryIO) -> tuple[HashingFile, str | None]:
        hashing = HashingFile(file)
        rows = _stored_rows(prepared or _prepared(task), stored, quarantined, mended)
        return hashing, codec.write(hashing, rows, shared)

    file, index = task.folder.publish(task.name, write)
    if index is not None:
        task.folder.write(task.name + codec.INDEX_SUFFIX, index)
    record = WrittenShard(
        name=task.name,
        split=task.split,
        first_id=task.first_id,
        listed=len(task.rows),
        rows=len(stored),
        bytes=file.num_bytes,
        sha256=file.sha256.hexdigest(),
        labels=pack_label_counts(stored),
        quarantined=tuple(quarantined),
        libraries=libraries(task.spec.format),
        mended=pack_mended(mended),
    )
    assert record.listed == record.rows + len(record.quarantined), record.name
    sidecar = json.dumps({"origin": task.origin, "record": asdict(record)})
    task.folder.write(_sidecar(task.name), sidecar)
    return record


def finished_shards(folder: Folder, origin: str) -> dict[str, WrittenShard]:
    """The complete shards of this origin (see ShardPlan), by name: one listing, and the record of each."""
    sizes = sizes_in(folder)
    names = [f"{DATA}/{name[len(_PARTS) + 1 : -len('.json')]}" for name in sizes if name.startswith(f"{_PARTS}/")]
    with ThreadPoolExecutor(16) as pool:  # in an object store each read takes a while
        found = list(pool.map(lambda name: finished_shard(folder, name, origin, sizes.get), names))
    return {shard.name: shard for shard in found if shard}


def sizes_in(folder: Folder) -> dict[str, int]:
    """Bytes of each file of an output, from one listing."""
    return {entry.name: entry.size for entry in folder.files(recursive=True)}


def read_shard(folder: Folder, record: ShardRecord) -> ShardRows:
    """The rows of a shard, its images views of the file. ValueError names the shard and the row that is damaged.

    The file is compared with its sha256 when this process reads it for the first time.
    """
    try:
        data = read_bytes(folder, record.name)
    except FileNotFoundError as error:
        error.add_note(REDO)
        raise
    key = (folder.url, record.sha256, len(data))
    if key not in _checked:
        check_bytes(data, folder, record)
        _checked.add(key)
    return codec_of(record.name).read(data)


_checked: set[tuple[str, str, int]] = set()


def forget(folder: Folder, names: Iterable[str]) -> None:
    """These shards are no longer taken as finished: the next ingest writes them anew in place of what is there."""
    for name in names:
        folder.delete(_sidecar(name))


def prepare(rows: "pa.Table", ids: Iterable[int], task: ShardTask) -> Iterator[Prepared]:
    """Decode, cut and encode rows with these ids: read as they lie in the source, and handed on in that order."""
    listing, ids = rows.to_pylist(), list(ids)
    reading_order = sorted(range(len(listing)), key=lambda i: (listing[i]["file"], listing[i]["offset"]))
    contents = task.reader.read(rows.take(reading_order))
    for i, data in zip(reading_order, contents, strict=True):
        yield _prepare_one(listing[i], ids[i], data, task.spec)


def _prepared(task: ShardTask) -> Iterator[Prepared]:
    """All rows of a shard in the order of their ids."""
    raw_bytes = task.spec.size**2 * 3
    chunk_rows = max(1, _MAX_CHUNK_BYTES // (raw_bytes if task.spec.encoding == "raw" else raw_bytes // 2))
    for start in range(0, len(task.rows), chunk_rows):
        rows = task.rows.slice(start, chunk_rows)
        first_id = task.first_id + start
        yield from sorted(
            prepare(rows, range(first_id, first_id + len(rows)), task), key=lambda prepared: prepared.row.id
        )


def _stored_rows(
    prepared: Iterable[Prepared], labels: list[int], quarantined: list[Quarantined], mended: Counter[str]
) -> Iterator[Row]:
    """The rows to store; what cannot be stored goes to `quarantined`."""
    for row, what in prepared:
        mended.update([what] if what else [])
        if isinstance(row, Row):
            labels.append(row.label)
            yield row
        else:
            quarantined.append(row)


def _prepare_one(row: dict, id: int, data: bytes, spec: IngestSpec) -> Prepared:
    from pipelines.images import encode_jpeg, to_square
    from pipelines.sources.source import Unreadable
    from pipelines.whole import DamagedImage

    try:
        if isinstance(data, Unreadable):
            raise DamagedImage(data.why)
        square = to_square(data, spec.size, spec.max_pixels)
    except DamagedImage as error:
        return Prepared(Quarantined(id, row["key"], row["label"], row["file"], row["offset"], str(error)))
    pixels = square.pixels_HWC
    image = encode_jpeg(pixels, spec.quality) if spec.encoding == "jpeg" else pixels.tobytes()
    stored = Row(id, row["key"], row["label"], image, square.width, square.height, square.format)
    return Prepared(stored, square.mended)


def finished_shard(
    folder: Folder, name: str, origin: str, size_of: Callable[[str], int | None] | None = None
) -> WrittenShard | None:
    """The record of one shard, where it is complete and of this origin; `size_of` knows the sizes of the files."""
    size_of = size_of or folder.size
    if size_of(_sidecar(name)) is None:
        return None
    sidecar = json.loads(folder.read(_sidecar(name)))
    shard = WrittenShard.from_json(sidecar["record"])
    suffix = codec_of(name).INDEX_SUFFIX
    is_whole = size_of(name) == shard.bytes and (suffix is None or size_of(name + suffix) is not None)
    return shard if is_whole and sidecar["origin"] == origin else None


def check_bytes(data: memoryview, folder: Folder, record: ShardRecord) -> None:
    """ValueError where a shard's file is not the manifest's."""
    if hashlib.sha256(data).hexdigest() == record.sha256:
        return
    damage = codec_of(record.name).first_damage(data) or f"{len(data)} bytes that are not those of the manifest"
    raise ValueError(f"{folder.where(record.name)}: {damage}; {REDO}")


def _sidecar(name: str) -> str:
    return f"{_PARTS}/{name.removeprefix(f'{DATA}/')}.json"


def codec_of(name: str):
    """The module of a shard's format, from its name; Parquet takes a while to load."""
    if name.endswith(".tfrecord"):
        from pipelines.formats import tfrecord

        return tfrecord
    from pipelines.formats import parquet

    return parquet


def read_bytes(folder: Folder, name: str) -> memoryview:
    """A whole file, mapped where it is on a disk."""
    if not folder.is_local:
        return memoryview(folder.read(name))
    import pyarrow as pa

    return memoryview(pa.memory_map(str(folder.local_path() / name)).read_buffer()).cast("B")


class HashingFile:
    """A binary file to write to, which knows the sha256 and the length of what went in."""

    closed = False  # whoever opened the file closes it

    def __init__(self, file: BinaryIO):
        self._file = file
        self.sha256 = hashlib.sha256()
        self.num_bytes = 0

    def write(self, data) -> int:
        self.sha256.update(data)
        self.num_bytes += len(data)
        return self._file.write(data)

    def tell(self) -> int:
        return self.num_bytes

    def flush(self) -> None:
        self._file.flush()
