"""Ingest: a source's images become shards of squares, one Ray task a shard; the manifest is written last.

Shards that an earlier, interrupted run finished are kept. Damaged images are set aside in `quarantine.parquet`.
"""

import time

from pipelines.manifest import Manifest
from pipelines.shards import (
    ShardRecord,
    check_damage,
    finished_shards,
    plan_shards,
    predicted_bytes,
    write_manifest,
    write_shard,
)
from pipelines.sources.catalog import open_source
from pipelines.storage import Folder
from workflows.catalog import INDEX
from workflows.config import UsageError
from workflows.console import size
from workflows.stage import Context

DISK_MARGIN = 1.1  # room asked for, as a multiple of the predicted bytes


def run(context: Context) -> dict:
    """Writes the shards, `quarantine.parquet` and `manifest.json`."""
    spec, store = context.config.ingest, context.output.store
    source = open_source(spec, context.root / INDEX)
    tasks = plan_shards(source, spec, store)
    done = finished_shards(store)
    todo = [task for task in tasks if task.name not in done]
    check_disk(store, predicted_bytes(todo))
    listed = sum(task.rows.num_rows for task in tasks)
    kept = sum(record.listed for record in done.values())
    began = time.perf_counter()
    with context.console.progress("ingest", listed, "images", kept) as progress:
        for record in context.compute.map(write_shard, todo):
            done[record.name] = record
            check_damage(done.values(), listed, spec.max_bad)
            progress.update(sum(r.listed for r in done.values()))
            context.run.metrics(_so_far(done, kept, began), step=len(done))
    manifest = write_manifest(store, source, spec, [done[task.name] for task in tasks])
    track(context, manifest, source.kind)
    return _summary(manifest, time.perf_counter() - began, listed - kept)


def check_disk(store: Folder, wanted_bytes: int) -> None:
    """Refuses to start what cannot end.

    Raises:
        UsageError: The disk under the store has too little room.
    """
    free = store.free_bytes()
    if free is not None and free < wanted_bytes * DISK_MARGIN:
        raise UsageError(
            f"the shards will take about {size(wanted_bytes)} and {store.url} has {size(free)} free: "
            "make room, or name another disk with --root or --set store=FOLDER"
        )


def track(context: Context, manifest: Manifest, kind: str) -> None:
    """Tells MLflow the data set (a table of its shards), the manifest and what was set aside."""
    for name in ("manifest.json", "quarantine.parquet"):
        (context.folder / name).write_bytes(context.output.store.read(name))
        context.run.artifact(context.folder / name)
    context.run.dataset(
        manifest.frame(), name=kind, source=context.config.ingest.source, digest=manifest.digest, context="ingest"
    )
    context.run.tags({"alexnet.manifest": manifest.digest, "alexnet.source": manifest.fingerprint})


def _so_far(done: dict[str, ShardRecord], kept: int, began: float) -> dict[str, float]:
    stored = sum(record.rows for record in done.values())
    return {
        "images_stored": stored,
        "images_per_s": (sum(r.listed for r in done.values()) - kept) / (time.perf_counter() - began),
    }


def _summary(manifest: Manifest, seconds: float, images: int) -> dict:
    totals = {name: sum(r.rows for r in records) for name, records in manifest.splits.items()}
    bad = sum(len(r.quarantined) for records in manifest.splits.values() for r in records)
    shards = sum(len(records) for records in manifest.splits.values())
    num_bytes = sum(r.bytes for records in manifest.splits.values() for r in records)
    counts = ", ".join(f"{name} {count:,}" for name, count in totals.items())
    return {
        "result": f"{counts}; {manifest.num_classes} classes, {shards} shards, {size(num_bytes)}, {bad} set aside",
        "metrics": {
            **{f"images_{name}": count for name, count in totals.items()},
            "images_set_aside": bad,
            "shards": shards,
            "bytes": num_bytes,
            "images_per_s": images / max(seconds, 1e-9),
        },
        "units": images,
    }
