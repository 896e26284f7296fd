"""What the ingest costs before any image is read: the index of a large archive, the plan of millions of rows, memory.

Each figure comes from a process of its own. The driver's memory is what its peak adds to its size before it began; a
task's is the peak of its whole process, without what Ray adds.
"""

import tarfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from pipelines.plan import ShardTask, plan_shards
from pipelines.shards import finished_shards, write_shard
from pipelines.sources.catalog import open_source
from pipelines.sources.source import Source
from pipelines.specs import IngestSpec
from pipelines.statistics import sum_shard
from pipelines.storage import Folder
from workflows.bench.common import peak_mib

CLASSES = 1000
MANY_IMAGES = 15_000_000  # ImageNet's whole tree


def measure(members: int, task: ShardTask, folder: Path) -> dict[str, float]:
    """Seconds and MiB for an archive of so many members and a plan of MANY_IMAGES; `task` is one shard's work."""
    archive = folder / "members.tar"
    write_archive(archive, members)
    cold_s, *_ = _alone(_open, archive, folder / "scale-index")
    warm_s, *_ = _alone(_open, archive, folder / "scale-index")
    driver_s, driver_mib, _ = _alone(_open_and_plan, archive, folder / "scale-index", 0)
    many_s, many_mib, _ = _alone(_open_and_plan, archive, folder / "scale-index", MANY_IMAGES)
    *_, ingest_mib = _alone(write_shard, task)
    *_, stats_mib = _alone(_sum, task)
    archive.unlink()
    return {
        "index_members": members,
        "index_s": round(cold_s, 2),
        "index_again_s": round(warm_s, 2),
        "driver_s": round(driver_s, 2),  # index that is there already, plan, every task made
        "driver_mib": round(driver_mib),
        "plan_rows": MANY_IMAGES,
        "plan_s": round(many_s - driver_s, 2),
        "plan_mib": round(many_mib),  # listing included
        "ingest_task_mib": round(ingest_mib),
        "stats_task_mib": round(stats_mib),
    }


def write_archive(path: Path, members: int) -> None:
    """A tar of tiny members in CLASSES class folders: a header and one block each."""
    content = b"\xff\xd8\xff" + bytes(509)
    with path.open("wb") as file:
        for number in range(members):
            wnid = f"n{number % CLASSES:08d}"
            info = tarfile.TarInfo(f"{wnid}/{wnid}_{number}.JPEG")
            info.size = len(content)
            file.write(info.tobuf(tarfile.USTAR_FORMAT) + content)
        file.write(bytes(2 * tarfile.BLOCKSIZE))


def _alone(work: Callable, *arguments) -> tuple[float, float, float]:
    """Of the work in a new process: seconds, MiB that it added, MiB at the peak."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(_observed, work, *arguments).result()


def _observed(work: Callable, *arguments) -> tuple[float, float, float]:
    began, before = time.perf_counter(), peak_mib()
    work(*arguments)
    return time.perf_counter() - began, peak_mib() - before, peak_mib()


def _open(archive: Path, cache: Path) -> Source:
    return open_source(IngestSpec(source=str(archive), val_fraction=0), cache)


def _open_and_plan(archive: Path, cache: Path, rows: int) -> None:
    """The driver's part; the listing is repeated until it has `rows` rows."""
    source = _open(archive, cache)
    if rows:
        listed = source.splits["train"]
        source = replace(source, splits={"train": listed.take(np.arange(rows) % len(listed))})
    plan = plan_shards(source, IngestSpec(source=str(archive)), Folder.at(cache))
    assert sum(len(task.rows) for task in plan) == plan.num_rows


def _sum(task: ShardTask) -> None:
    """Of a shard that is written already."""
    (record,) = finished_shards(task.folder, task.origin).values()
    sum_shard(task.folder, record, task.spec.size)
