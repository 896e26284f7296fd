"""Stats: exact sums of every training shard, one Ray task each, merged into the numbers that training needs.

The sums are integers, so the result does not depend on the shards, the workers or the order in which they end.
"""

import time
from functools import partial, reduce

from pipelines.manifest import Manifest
from pipelines.statistics import PixelSums, Statistics, sum_shard
from workflows.stage import Context


def run(context: Context) -> dict:
    """Writes `stats.json` and `stats.npz`."""
    store = context.inputs["ingest"].store
    manifest = Manifest.load(store)
    records = manifest.splits["train"]
    total = sum(record.rows for record in records)
    began = time.perf_counter()
    parts: list[PixelSums] = []
    with context.console.progress("stats", total, "images") as progress:
        for part in context.compute.map(partial(sum_shard, store, manifest), records):
            parts = [reduce(PixelSums.merge, [*parts, part])]
            progress.update(parts[0].num_images)
            context.run.metrics({"images": parts[0].num_images}, step=parts[0].num_images)
    statistics = parts[0].compute(manifest.class_names)
    statistics.save(context.folder)
    _track(context, manifest, statistics)
    seconds = time.perf_counter() - began
    return {
        "result": f"mean {_levels(statistics.channel_mean)}, std {_levels(statistics.channel_std)} of {total:,} images",
        "metrics": {
            **{f"mean_{c}": float(v) for c, v in zip("rgb", statistics.channel_mean, strict=True)},
            **{f"std_{c}": float(v) for c, v in zip("rgb", statistics.channel_std, strict=True)},
            **{f"eigenvalue_{i}": float(v) for i, v in enumerate(statistics.eigenvalues, 1)},
            "images_per_s": total / seconds,
        },
        "units": total,
    }


def _levels(values) -> str:
    return " / ".join(f"{value:.1f}" for value in values)


def _track(context: Context, manifest: Manifest, statistics: Statistics) -> None:
    context.run.artifact(context.folder / "stats.json")
    context.run.artifact(context.folder / "stats.npz")
    context.run.dataset(
        manifest.frame(), "shards", context.inputs["ingest"].store.url, manifest.digest, context="statistics"
    )
