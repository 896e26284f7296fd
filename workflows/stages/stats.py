"""Stats: exact sums of every training shard, in Ray tasks, merged into the numbers that training needs; and which
images are stored more than once, in any split.

The sums are integers, so the result does not depend on the shards, the workers or the order in which they end.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from pipelines.duplicates import (
    DUPLICATES,
    digest_shard,
    find_duplicates,
    keys_of,
    named,
    shards_of,
    summary,
    write_duplicates,
)
from pipelines.manifest import Manifest
from pipelines.shard_record import ShardRecord
from pipelines.statistics import STATS_JSON, STATS_NPZ, PixelSums, Statistics, sum_shards
from pipelines.storage import Folder
from workflows.config import require_training_images
from workflows.console import Progress
from workflows.engine.stage import Context
from workflows.report import figures_data
from workflows.report.figures import png
from workflows.report.fonts import missing
from workflows.stages.ingest import log_dataset

if TYPE_CHECKING:
    import pyarrow as pa

MAX_TASKS = 4096


def run(context: Context) -> dict:
    """Writes `stats.json`, `stats.npz`, `duplicates.parquet` and `figures/*.png`."""
    store = context.inputs["ingest"].folder
    manifest = Manifest.load(store)
    records = manifest.splits.get("train", ())
    total = sum(record.rows for record in records)
    require_training_images(context.config.ingest, total)
    began = time.perf_counter()
    with context.console.progress("stats", total, "images") as progress:
        parts = context.compute.map(partial(sum_shards, store, size_px=manifest.size_px), tasks(records))
        sums = PixelSums.merged(manifest.size_px, _counted(parts, progress))
    for line in missing(manifest.class_titles):
        context.console.say_once(f"  warning: {line}")
    statistics = sums.compute(manifest.num_classes)
    statistics.save(context.folder)
    duplicates = _duplicates(context, manifest, sums)
    write_duplicates(context.folder, duplicates)
    if said := summary(duplicates):
        context.console.say(f"  {said}: see {context.folder.where(DUPLICATES)}")
    context.log_files(STATS_JSON, STATS_NPZ, DUPLICATES)
    figures = _plotted(manifest, statistics, context.folder)
    context.log_files(*figures, to="figures")
    log_dataset(context, manifest, store, "statistics")
    seconds = time.perf_counter() - began
    return {
        "result": f"mean {_levels(statistics.channel_mean)}, std {_levels(statistics.channel_std)} of {total:,} images",
        "metrics": {
            **{f"mean_{c}": float(v) for c, v in zip("rgb", statistics.channel_mean, strict=True)},
            **{f"std_{c}": float(v) for c, v in zip("rgb", statistics.channel_std, strict=True)},
            **{f"eigenvalue_{i}": float(v) for i, v in enumerate(statistics.eigenvalues, 1)},
            "duplicates": len(duplicates),
            "mean_images_per_s": total / seconds,
        },
        "units": total,
        "files": (STATS_NPZ, STATS_JSON, DUPLICATES),
        "other_files": tuple(figures),
    }


def _duplicates(context: Context, manifest: Manifest, sums: PixelSums) -> "pa.Table":
    """The images of all splits that are stored more than once, with their keys."""
    store, run = context.inputs["ingest"].folder, context.compute.map
    images = {"train": sums.images}
    for split in manifest.splits.keys() - images:
        images[split] = np.concatenate(list(run(partial(digest_shard, store), manifest.splits[split])))
    images = {split: images[split] for split in manifest.splits}
    pairs_D2 = find_duplicates(images)
    keys = run(partial(keys_of, store), shards_of(pairs_D2, manifest.splits))
    return named(pairs_D2, list(manifest.splits), keys)


def tasks(records: Sequence[ShardRecord]) -> list[Sequence[ShardRecord]]:
    """A shard each; of very many shards a few: each task sends back a picture of sums, and the driver adds them all."""
    each = max(1, -(-len(records) // MAX_TASKS))
    return [records[start : start + each] for start in range(0, len(records), each)]


def _counted(parts: Iterable[PixelSums], progress: Progress) -> Iterator[PixelSums]:
    done = 0
    for part in parts:
        done += len(part.images)
        progress.update(done)
        yield part


def _plotted(manifest: Manifest, statistics: Statistics, folder: Folder) -> list[str]:
    """Writes the statistics as pictures; their names in the folder."""
    drawn = {
        "mean_image": figures_data.mean_image(statistics.mean_image_HWC),
        "channels": figures_data.channel_histogram(statistics.channel_histogram),
        "classes": figures_data.class_histogram(
            {split: manifest.label_counts(split) for split in manifest.splits}, manifest.class_titles
        ),
    }
    for name, figure in drawn.items():
        folder.write(f"figures/{name}.png", png(figure))
    return [f"figures/{name}.png" for name in drawn]


def _levels(values) -> str:
    return " / ".join(f"{value:.1f}" for value in values)
