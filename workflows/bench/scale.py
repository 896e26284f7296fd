"""What the driver does by itself, at 1.28 and 15 million images: each serial part by name, its seconds, and its memory.

Class tars, their indexes, the tasks' records and sums are generated, so that only the driver's own work is timed.
Beside it, what a task takes: an archive indexed, of members as long as ImageNet's in a sparse file; a shard written and
summed; a window of shards from Parquet; tasks that do nothing, sent through Ray. Each is in a process of its own, whose
memory is told without what Ray adds.
"""

import json
import pickle
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.duplicates import find_duplicates
from pipelines.libraries import libraries
from pipelines.manifest import Manifest, write_manifest
from pipelines.plan import ShardPlan, ShardTask, plan_shards
from pipelines.shard_record import WrittenShard
from pipelines.shards import finished_shards
from pipelines.sources.catalog import open_source
from pipelines.sources.contents import files_now
from pipelines.sources.tar_index import index_tar
from pipelines.specs import IngestSpec
from pipelines.statistics import PixelSums, sum_shards
from pipelines.storage import Folder
from pipelines.windows import write_shards
from workflows.bench.common import peak_mib, stamped
from workflows.bench.photographs import write_photographs
from workflows.compute.on_ray import OnRay
from workflows.config import RaySpec
from workflows.stages.stats import tasks

SIZES = {"1.28 million": (1000, 1281), "15 million": (21_841, 687)}  # class tars, images in each
MEMBER_BYTES = 110_000  # ImageNet's mean
TAR_BYTES = 512 << 20  # a hole: so much that indexes are made in tasks
SHARD_BYTES = 30 << 20
SIZE_PX = 256


def run(
    images: str | None = None,
    sizes: dict[str, tuple[int, int]] = SIZES,
    members: int = 100_000,
    window_rows: int = 8192,
    ray_tasks: int = 2000,
) -> dict:
    """Seconds of each of the driver's parts and MiB that they add, by number of images; and what tasks take.

    `images` is a folder or tar of a few hundred, None generates some.
    """
    with tempfile.TemporaryDirectory(prefix="alexnet-bench-") as scratch:
        place = Path(scratch)
        drivers = {name: _alone(drive, *size, place / name)[0] for name, size in sizes.items()}
        if images is None:
            write_photographs(place / "photographs", 400)
        work = _task_figures(str(images or place / "photographs"), members, window_rows, place)
        work["ray_task_ms"] = round(_ray_task_ms(ray_tasks, next(iter(sizes.values())), place / "ray"), 2)
    for name, figures in drivers.items():
        print(f"{name}:")
        print("\n".join(f"  {value:10,.1f}  {part}" for part, value in figures.items()))
    print(", ".join(f"{name} {value:,}" for name, value in work.items()))
    return stamped({"driver": drivers, "tasks": work})


def drive(num_tars: int, images_each: int, place: Path) -> dict[str, float]:
    """Seconds of each part, and MiB in all: what `alexnet ingest` and `stats` do in the driver."""
    parts: dict[str, float] = {}
    before = peak_mib()
    spec = IngestSpec(source=str(write_tars(place / "source", num_tars)), val_fraction=0)
    indexes = GeneratedIndexes(images_each)
    with _timed(parts, "s: source opened, indexes taken from tasks"):
        open_source(spec, place / "cache", indexes)
    parts["s: source opened, indexes taken from tasks"] -= indexes.seconds
    with _timed(parts, "s: source opened, index kept"):
        source = open_source(spec, place / "cache")
    with _timed(parts, "s: files looked at, before and after"):
        assert not files_now(source).changed(files_now(source))
    plan = plan_shards(source, spec, Folder.at(place / "out"))
    with _timed(parts, "s: order and names of shards"):
        assert plan.num_rows == num_tars * images_each
        assert plan.names
    with _timed(parts, "s: tasks made and packed"):
        assert sum(len(pickle.dumps(window, 5)) for window in plan.windows())
    shards = list(generated_shards(plan, num_tars))
    with _timed(parts, "s: records and manifest written"):
        write_manifest(plan.folder, source, spec, shards)
    del source, indexes
    write_outputs(plan, shards)
    with _timed(parts, "s: what is done, on a rerun"):
        assert len(finished_shards(plan.folder, plan.origin)) == len(shards)
    with _timed(parts, "s: manifest loaded"):
        manifest = Manifest.load(plan.folder)
    del plan
    with _timed(parts, "s: sums merged"):
        sums = PixelSums.merged(SIZE_PX, map(partial(generated_sums, num_tars), tasks(shards)))
    with _timed(parts, "s: statistics computed"):
        sums.compute(manifest.num_classes)
    with _timed(parts, "s: duplicates found"):
        find_duplicates({"train": sums.images})
    return {**parts, "s: all": sum(parts.values()), "MiB: added at the peak": peak_mib() - before}


def write_tars(folder: Path, count: int) -> Path:
    """Class tars that hold nothing but their size."""
    folder.mkdir(parents=True)
    for number in range(count):
        with (folder / f"n{number:08d}.tar").open("wb") as file:
            file.truncate(TAR_BYTES)
    return folder


class GeneratedIndexes:
    """In place of tasks that index archives: makes what they would send, and counts the seconds that this takes."""

    def __init__(self, images_each: int):
        self.seconds = 0.0
        self._numbers = pa.array(np.arange(images_each)).cast(pa.string())
        self._offsets = pa.array(np.arange(images_each) * (TAR_BYTES // images_each // 512 * 512) + 512)

    def __call__(self, function: Callable, names: Iterable[str]) -> Iterator[tuple[str, pa.Table]]:
        for name in names:
            began = time.perf_counter()
            paths = pc.binary_join_element_wise(f"{name}/{name[:9]}", self._numbers, "_")
            paths = pc.binary_join_element_wise(paths, ".JPEG", "")
            sizes = pa.array(np.full(len(paths), 9000))
            table = pa.table({"path": paths, "offset": self._offsets, "size": sizes})
            self.seconds += time.perf_counter() - began
            yield name, table


def generated_shards(plan: ShardPlan, num_classes: int) -> Iterator[WrittenShard]:
    """What tasks would say of shards whose images are of as many classes as they can be."""
    rows, made_with = plan.spec.rows_per_shard, libraries(plan.spec.format)
    for number, name in enumerate(plan.names):
        listed = min(rows, plan.num_rows - number * rows)
        counts = Counter((number + row) % num_classes for row in range(listed))
        labels = " ".join(f"{label}:{count}" for label, count in counts.items())
        sha256 = f"{number:064x}"
        yield WrittenShard(
            name, "train", number * rows, listed, listed, SHARD_BYTES, sha256, labels=labels, libraries=made_with
        )


def write_outputs(plan: ShardPlan, shards: list[WrittenShard]) -> None:
    """The files that finished shards leave, as long as they are."""
    for shard in shards:
        path = plan.folder.local_path() / shard.name
        path.parent.mkdir(exist_ok=True)
        with path.open("wb") as file:
            file.truncate(shard.bytes)
        Path(f"{path}.idx").write_bytes(b"")
        record = plan.folder.local_path() / "parts" / f"{path.name}.json"
        record.parent.mkdir(exist_ok=True)
        record.write_text(json.dumps({"origin": plan.origin, "record": asdict(shard)}))


def generated_sums(num_classes: int, shards: list[WrittenShard]) -> PixelSums:
    rows = sum(shard.rows for shard in shards)
    digests = np.random.default_rng(shards[0].first_id).integers(0, 2**63, (rows, 3)).astype(np.uint64)
    digests[:, 2] = np.arange(shards[0].first_id, shards[0].first_id + rows)
    return replace(PixelSums.empty(SIZE_PX), class_counts=np.ones(num_classes, np.int64), images=digests)


def _task_figures(images: str, members: int, window_rows: int, place: Path) -> dict[str, float]:
    """Seconds and MiB of the tasks."""
    archive = place / "members.tar"
    write_archive(archive, members)
    index_s = _alone(index_tar, Folder.at(place), archive.name)[1]
    one = IngestSpec(source=images, val_fraction=0, limit=1024)
    shard = plan_shards(open_source(one), one, Folder.at(place / "one"))[0]
    shard_mib = _alone(write_shards, [shard])[3]
    stats_mib = _alone(_sum, shard)[3]
    many = IngestSpec(source=str(write_parquet(images, place / "parquet", window_rows)), val_fraction=0)
    window = next(plan_shards(open_source(many), many, Folder.at(place / "many")).windows())
    _, window_s, _, window_mib = _alone(write_shards, window)
    return {
        "index_us_a_member": round(index_s / members * 1e6, 2),
        "shard_mib": round(shard_mib),
        "stats_mib": round(stats_mib),
        "window_shards": len(window),
        "window_s": round(window_s, 1),
        "window_mib": round(window_mib),
    }


def write_archive(path: Path, members: int) -> None:
    """A tar of class folders; the members' content is a hole, of which a header is all that takes room."""
    with path.open("wb") as file:
        for number in range(members):
            info = tarfile.TarInfo(f"n{number % 1000:08d}/n{number % 1000:08d}_{number}.JPEG")
            info.size = MEMBER_BYTES
            file.write(info.tobuf(tarfile.USTAR_FORMAT))
            file.seek(-(-MEMBER_BYTES // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE, 1)
        file.write(bytes(2 * tarfile.BLOCKSIZE))


def write_parquet(images: str, folder: Path, rows: int) -> Path:
    """These images, over and over, as the Hub keeps them: in row groups of 100."""
    source = open_source(IngestSpec(source=images, val_fraction=0))
    contents = list(source.reader.read(source.splits["train"]))
    folder.mkdir()
    schema = pa.schema([("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])), ("label", pa.int64())])
    with pq.ParquetWriter(folder / "train-00000-of-00001.parquet", schema) as file:
        for start in range(0, rows, 100):
            numbers = range(start, min(start + 100, rows))
            pictures = [{"bytes": contents[i % len(contents)], "path": ""} for i in numbers]
            file.write_table(pa.table({"image": pictures, "label": [i % 2 for i in numbers]}, schema))
    return folder


def _ray_task_ms(count: int, size: tuple[int, int], place: Path) -> float:
    """Of the driver's and the worker's time together, for a task with the rows of a shard that does nothing."""
    spec = IngestSpec(source=str(write_tars(place / "source", size[0])), val_fraction=0)
    plan = plan_shards(open_source(spec, place / "cache", GeneratedIndexes(size[1])), spec, Folder.at(place / "out"))
    windows = [plan[number % len(plan)] for number in range(min(len(plan), 100))]
    compute = OnRay(RaySpec())
    try:
        list(compute.map(_nothing, windows[:10]))  # Ray starts
        began = time.perf_counter()
        done = list(compute.map(_nothing, (windows[number % len(windows)] for number in range(count))))
        return (time.perf_counter() - began) / len(done) * 1000
    finally:
        compute.close()


def _nothing(task: ShardTask) -> str:
    return task.name


def _sum(task: ShardTask) -> None:
    """Of a shard that is written already."""
    sum_shards(task.folder, finished_shards(task.folder, task.origin).values(), task.spec.size)


def _alone(work: Callable, *arguments):
    """Of the work in a new process: its result, seconds, MiB that it added, MiB at the peak."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(_observed, work, *arguments).result()


def _observed(work: Callable, *arguments):
    began, before = time.perf_counter(), peak_mib()
    result = work(*arguments)
    return result, time.perf_counter() - began, peak_mib() - before, peak_mib()


@contextmanager
def _timed(parts: dict[str, float], name: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    parts[name] = time.perf_counter() - began
