"""How many images per second are prepared: ours and its peers, the same files, from warm workers to the manifest.

`decode_only` is libjpeg-turbo in as many processes as there are cores, the physical limit; `ray_data` is read_images,
map, write_parquet, as its documentation has it; `ray_data_batches` what an expert writes: read_binary_files, our resize
in map_batches, write_parquet; `pillow_pool` a process pool with Pillow. `stats`, `stats_decode_only` read our shards.
"""

import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import chain
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from pipelines.manifest import Manifest, write_manifest
from pipelines.plan import plan_shards
from pipelines.shards import read_shard
from pipelines.sources.catalog import open_source
from pipelines.sources.source import Source
from pipelines.specs import IngestSpec
from pipelines.statistics import sum_shard
from pipelines.storage import Folder
from pipelines.windows import write_shards
from workflows.bench.common import hardware, interleaved, stamped, table
from workflows.bench.peers import pillow_pool, ray_images
from workflows.bench.photographs import write_photographs
from workflows.compute.on_ray import OnRay
from workflows.config import RaySpec

NUM_PHOTOGRAPHS = 400
CHUNK = 64  # images a decode task


def run(
    images: str | None = None,
    seconds_per_part: float = 15.0,
    repeats: int = 3,
    shards_per_core: int = 3,
    rows_per_shard: int = IngestSpec.rows_per_shard,
) -> dict:
    """images_per_s of each part, median of interleaved repeats; `images` is a folder or tar, None generates some.

    A turn goes over as many of them as fill `shards_per_core` shards for every core, so that none waits for another at
    the end, again and again until it took `seconds_per_part`.
    """
    cores = hardware()["cores"]
    with tempfile.TemporaryDirectory(prefix="alexnet-bench-") as scratch:
        place = Path(scratch)
        if images is None:
            write_photographs(place / "photographs", NUM_PHOTOGRAPHS)
        spec = IngestSpec(source=str(images or place / "photographs"), val_fraction=0, rows_per_shard=rows_per_shard)
        source = _repeated(open_source(spec, place / "index"), shards_per_core * cores * rows_per_shard)
        files = pillow_pool.write_files(source, place / "files")
        compute = OnRay(RaySpec())
        pool = ProcessPoolExecutor(cores, get_context("spawn"))
        try:
            rates = _measure(_parts(source, spec, files, place, compute, pool, seconds_per_part), repeats)
            ray_start_s = compute.started_s
            scaling = _scaling(source, spec, place, compute)
        finally:
            pool.shutdown()
            compute.close()
    print(table(rates, "images/s", "decode_only"))
    print("seconds for 1x, 2x, 4x the images: " + ", ".join(f"{s:.1f}" for s in scaling.values()))
    return stamped(
        {
            "images_per_s": {name: round(rate, 1) for name, rate in rates.items()},
            "ray_start_s": round(ray_start_s, 2),
            "seconds_by_images": scaling,
            "num_images": source.splits["train"].num_rows,
            "source": Path(images).name if images else "generated photographs",
            "repeats": repeats,
        }
    )


def _parts(
    source: Source,
    spec: IngestSpec,
    files: list[str],
    place: Path,
    compute: OnRay,
    pool: ProcessPoolExecutor,
    seconds: float,
) -> dict[str, Callable[[], tuple[int, float]]]:
    count = source.splits["train"].num_rows
    shards = place / "ours"
    timed = partial(_timed, count, seconds)

    def ours() -> tuple[int, float]:
        return timed(
            lambda: ingest(source, spec, Folder.at(shards), compute),
            before=lambda: shutil.rmtree(shards, ignore_errors=True),
        )

    def on_pool(task: Callable, items: list) -> tuple[int, float]:
        return timed(lambda: list(pool.map(task, items)))

    def stats() -> tuple[int, float]:
        manifest = Manifest.load(Folder.at(shards))
        task = partial(sum_shard, Folder.at(shards), size_px=manifest.size_px)
        return timed(lambda: list(compute.map(task, manifest.splits["train"])))

    def stats_decode_only() -> tuple[int, float]:
        records = Manifest.load(Folder.at(shards)).splits["train"]
        return on_pool(partial(decode_shard, Folder.at(shards)), list(records))

    chunks = [files[first : first + CHUNK] for first in range(0, count, CHUNK)]
    return {
        "ours": ours,
        "decode_only": lambda: on_pool(decode_files, chunks),
        "ray_data": lambda: timed(lambda: ray_images.write_parquet(files, place / "ray_data")),
        "ray_data_batches": lambda: timed(lambda: ray_images.write_parquet_of_batches(files, place / "ray_data")),
        "pillow_pool": lambda: on_pool(partial(pillow_pool.prepare, place / "pillow"), chunks),
        "stats": stats,
        "stats_decode_only": stats_decode_only,
    }


def ingest(source: Source, spec: IngestSpec, folder: Folder, compute: OnRay) -> None:
    """The whole stage, as `alexnet ingest` does it: shards, quarantine list, manifest."""
    plan = plan_shards(source, spec, folder)
    write_manifest(folder, source, spec, chain.from_iterable(compute.map(write_shards, plan.windows())))


def decode_files(paths: list[str]) -> int:
    """A task of the physical limit: whole JPEGs to pixels, and nothing else."""
    import simplejpeg

    return sum(simplejpeg.decode_jpeg(Path(path).read_bytes(), strict=False).shape[0] > 0 for path in paths)


def decode_shard(folder: Folder, record) -> int:
    """The same for the JPEGs of one of our shards."""
    import simplejpeg

    return sum(simplejpeg.decode_jpeg(image).shape[0] > 0 for image in read_shard(folder, record).images)


def _measure(parts: dict[str, Callable[[], tuple[int, float]]], repeats: int) -> dict[str, float]:
    for part in parts.values():  # warms workers and caches; `ours` also writes the shards that `stats` reads
        part()
    return interleaved(parts, repeats)


def _scaling(source: Source, spec: IngestSpec, place: Path, compute: OnRay) -> dict[str, float]:
    """Seconds for a quarter, a half and all of the images."""
    rows = source.splits["train"]
    seconds = {}
    for share in (4, 2, 1):
        part = replace(source, splits={"train": rows.slice(0, rows.num_rows // share)})
        folder = place / f"scaling-{share}"
        count = rows.num_rows // share
        _, seconds[str(count)] = _timed(count, 0, lambda p=part, f=folder: ingest(p, spec, Folder.at(f), compute))
        shutil.rmtree(folder)
    return {count: round(value, 2) for count, value in seconds.items()}


def _timed(count: int, seconds: float, work: Callable, before: Callable = lambda: None) -> tuple[int, float]:
    """Images and seconds of the work on `count` images, done again until it took long enough to be timed."""
    images, elapsed = 0, 0.0
    while not images or elapsed < seconds:
        before()
        began = time.perf_counter()
        work()
        elapsed += time.perf_counter() - began
        images += count
    return images, elapsed


def _repeated(source: Source, wanted: int) -> Source:
    """The images over and over, until there are as many as wanted."""
    rows = source.splits["train"]
    return replace(source, splits={"train": rows.take(np.arange(wanted) % len(rows))})
