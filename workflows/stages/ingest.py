"""Ingest: a source's images become shards of squares, one Ray task a shard (or a window of them, where they read the
same blocks of the source); the manifest is written last.

Shards that an earlier, interrupted run finished are kept, and what it left half written is removed. Damaged images are
set aside in `_quarantine.parquet`, each with its archive, member, offset and the reason.
"""

import contextlib
import errno
import time
from collections.abc import Callable, Iterable, Iterator

from pipelines.libraries import libraries, written_with_others
from pipelines.manifest import MANIFEST, Manifest, write_manifest
from pipelines.plan import ShardTask, plan_shards, predicted_bytes
from pipelines.quarantine import QUARANTINE, refuse_damaged, too_damaged
from pipelines.shard_record import ShardRecord, WrittenShard
from pipelines.shard_table import SHARDS
from pipelines.shards import finished_shards, sizes_in
from pipelines.sources.catalog import open_source
from pipelines.sources.contents import Files, files_now
from pipelines.sources.source import Source
from pipelines.storage import Folder
from pipelines.windows import write_shards
from workflows.compute import machine
from workflows.config import UsageError
from workflows.console import size
from workflows.engine.outputs import INDEX
from workflows.engine.stage import Context
from workflows.stages.room import require_room


def run(context: Context) -> dict:
    """Writes the shards, `_quarantine.parquet`, `_shards.parquet` and `_manifest.json`."""
    spec, store = context.config.ingest, context.folder
    source = open_source(spec, context.root / INDEX, context.compute.map)
    _check_unchanged(context, source)
    for note in source.notes:
        context.console.say(f"  {note}")
    plan = plan_shards(source, spec, store)
    store.remove_stale_temporaries()
    done = finished_shards(store, plan.origin)
    _tell_of_other_versions(context, done)
    images = kept = _listed(done.values())
    require_room(store, "the shards", predicted_bytes(plan.num_rows - kept, spec))
    refused = too_damaged(done.values(), plan.num_rows, spec.max_bad)
    todo = (tasks for tasks in plan.windows(frozenset(done)) if not refused)
    began = time.perf_counter()
    with _as_listed(context, source), context.console.progress("ingest", plan.num_rows, "images", kept) as progress:
        for record in _written(context, todo):
            done[record.name] = record
            refused = refused or bool(record.quarantined) and too_damaged(done.values(), plan.num_rows, spec.max_bad)
            images += record.listed
            progress.update(images)
            rate = (images - kept) / (time.perf_counter() - began)
            context.run.metrics({"images": images, "mean_images_per_s": rate}, step=len(done))
    _refuse_damaged(context, done, plan.num_rows)  # no task is left that would write
    store.remove_stale_temporaries()  # of tasks that died on the way
    _check_visible(store, sizes_in(store).get, done.values())
    try:
        manifest = write_manifest(store, source, spec, done.values())
    except ValueError as error:  # too many damaged images of a split or class
        raise UsageError(str(error)) from error
    for note in manifest.notes[len(source.notes) :]:
        context.console.say(f"  {note}")
    track(context, manifest)
    return _summary(manifest, time.perf_counter() - began, plan.num_rows - kept)


def _tell_of_other_versions(context: Context, done: dict[str, WrittenShard]) -> None:
    """Whether shards that are kept may differ in their bytes from those to come; UsageError where they must not."""
    spec = context.config.ingest
    if found := written_with_others(done.values(), libraries(spec.format)):
        anew = "`alexnet ingest --redo ingest` writes all with the same"
        if not spec.mixed_versions:
            raise UsageError(f"{found}, and ingest.mixed_versions=false refuses that: {anew}")
        context.console.say(f"  {found}; they are kept: {anew}, ingest.mixed_versions=false refuses to go on")


def _written(context: Context, windows: Iterable[list[ShardTask]]) -> Iterator[WrittenShard]:
    """The shards as they are done; ValueError where the disk is full."""
    try:
        seen = set[str]()
        for machine_name, shards in context.compute.map(_write_shards, windows):
            if machine_name not in seen:  # at once, and not for each shard
                _check_visible(context.folder, context.folder.size, shards)
                seen.add(machine_name)
            yield from shards
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        full = error.filename or context.folder.where()
        raise ValueError(f"no space left for the shards in {full}: make room there") from error


def _check_unchanged(context: Context, source: Source) -> None:
    """ValueError where this is not the source that the output's key was made of."""
    if source.fingerprint != context.ingredients["source"]:
        raise ValueError(f"ingest.source={context.config.ingest.source} has changed since this run was planned")


@contextlib.contextmanager
def _as_listed(context: Context, source: Source) -> Iterator[None]:
    """UsageError where files of the source were replaced meanwhile: nothing that was made of them is kept."""
    before, failure = files_now(source), None
    try:
        yield
    except Exception as error:
        failure = error
    if changed := _changed(before, source):
        context.output.delete()
        raise UsageError(
            f"the source changed while it was read ({changed}): nothing of it is kept; run it again once no one writes "
            "there"
        ) from failure
    if failure:
        raise failure


def _changed(before: Files, source: Source) -> str:
    """What was replaced since; an example, or nothing."""
    try:
        return next(iter(before.changed(files_now(source))), "")
    except FileNotFoundError as error:
        return f"{error.filename} is gone"


def _write_shards(tasks: list[ShardTask]) -> tuple[str, list[WrittenShard]]:
    """A task: the shards of a window, and the machine that wrote them."""
    return machine.name(), write_shards(tasks)


def _check_visible(store: Folder, size_of: Callable[[str], int | None], shards: Iterable[ShardRecord]) -> None:
    """UsageError where a worker wrote to a disk that is not this machine's, which sees files of other sizes or none."""
    for shard in shards:
        if size_of(shard.name) != shard.bytes:
            raise UsageError(
                f"a worker wrote {shard.name} and it is not in {store.where()} as this machine sees it: with several "
                "machines name a folder that all of them share, or an object store, with --set store="
            )


def _listed(records: Iterable[ShardRecord]) -> int:
    return sum(record.listed for record in records)


def _refuse_damaged(context: Context, done: dict[str, WrittenShard], listed: int) -> None:
    """UsageError where nothing could be stored, or more than `ingest.max_bad` of all listed images are damaged."""
    _refuse_if_nothing_stored(context, done)
    try:
        refuse_damaged(context.folder, done.values(), listed, context.config.ingest.max_bad)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _refuse_if_nothing_stored(context: Context, done: dict[str, WrittenShard]) -> None:
    """Files that only look like images leave nothing behind."""
    if any(record.rows for record in done.values()):
        return
    first = next(bad for record in done.values() for bad in record.quarantined)
    context.output.delete()
    raise UsageError(
        f"none of the first {_listed(done.values())} files of ingest.source={context.config.ingest.source} is a "
        f"readable image ({first.key}: {first.reason}); name a source of images"
    )


def track(context: Context, manifest: Manifest) -> None:
    """Tells MLflow the data set (a table of its shards), the manifest and what was set aside."""
    context.log_files(MANIFEST, SHARDS, QUARANTINE)
    log_dataset(context, manifest, context.folder, "ingest")


def log_dataset(context: Context, manifest: Manifest, store: Folder, purpose: str) -> None:
    """The shards as an MLflow input: one row a shard, and the manifest's digest."""
    names = ("name", "split", "listed", "rows", "bytes", "sha256")
    rows = [{name: getattr(record, name) for name in names} for record in manifest.records()]
    context.run.dataset(rows, manifest.source_kind, store.where(), manifest.digest, purpose)
    context.run.tags({"alexnet.manifest": manifest.digest, "alexnet.source": manifest.source_fingerprint})


def _summary(manifest: Manifest, seconds: float, images: int) -> dict:
    totals = {split: manifest.num_rows(split) for split in manifest.splits}
    bad = sum(map(manifest.num_quarantined, manifest.splits))
    num_bytes = sum(map(manifest.num_bytes, manifest.splits))
    shards = sum(map(len, manifest.splits.values()))
    counts = ", ".join(f"{split} {count:,}" for split, count in totals.items())
    return {
        "result": f"{counts}; {manifest.num_classes} classes, {shards} shards, {size(num_bytes)}, {bad} set aside",
        "metrics": {
            **{f"images_{split}": count for split, count in totals.items()},
            "images_set_aside": bad,
            "shards": shards,
            "bytes": num_bytes,
            "mean_images_per_s": images / max(seconds, 1e-9),
        },
        "units": images,
        "files": (MANIFEST, SHARDS, QUARANTINE),
    }
