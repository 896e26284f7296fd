"""Neighbours: the training images that the network finds most like each image of a split, by its features.

A Ray task looks up a block of images, whose neighbours are a file at once, so that an interrupted run goes on with the
missing ones. Then the same of some images by their pixels, a task for each part of the training images.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines import alike, faiss_index, pixels
from pipelines.evaluation import stored_ids
from pipelines.features import Features
from pipelines.manifest import Manifest
from pipelines.names import TRAIN, Device
from pipelines.neighbour_rows import (
    BLOCK_ROWS,
    DUPLICATES,
    NEIGHBOURS,
    PARTS,
    SUMMARY,
    Block,
    as_table,
    blocks,
    neighbours_of_block,
)
from pipelines.neighbours import Nearest
from pipelines.pixels import Compared, PixelRows
from pipelines.shard_record import ShardRecord
from pipelines.storage import Folder
from pipelines.tables import read_table
from workflows.compute import devices
from workflows.compute.spread import spread
from workflows.config import UsageError, require_faiss, require_features_of
from workflows.engine.stage import Context
from workflows.stages.ingest import log_dataset
from workflows.tracking.headline import hardware

if TYPE_CHECKING:
    import pyarrow as pa

PIXEL_QUERIES = 2000  # images that are also looked up by their pixels: the first of the split, which is shuffled
PIXEL_PARTS_IMAGES = 16_384  # training images in a part


@dataclass(frozen=True)
class Job:
    """What the tasks on features have in common."""

    features: Folder
    folder: Folder  # where neighbours go
    top: int
    num_cpus: int
    device: Device


@dataclass(frozen=True)
class PixelJob:
    """What the tasks on pixels have in common."""

    shards: Folder
    folder: Folder
    queries: tuple[ShardRecord, ...]
    count: int  # of them, in stored order
    crop_px: int
    top: int
    others_QM: np.ndarray  # ids of training images of which the distance is wanted


@dataclass(frozen=True)
class PixelPart:
    """Some of the training images."""

    number: int
    total: int
    records: tuple[ShardRecord, ...]

    @property
    def name(self) -> str:
        return f"{PARTS}/pixels-{self.number:05d}-of-{self.total:05d}.npz"


def run(context: Context) -> dict:
    """Writes `neighbours.parquet`, `duplicates.parquet` and `neighbours.json`."""
    config, folder = context.config, context.folder
    require_features_of(config)
    features = Features.load(context.inputs["features"].folder)
    manifest = Manifest.load(context.inputs["ingest"].folder)
    _require_index(config.neighbours.index, manifest.num_rows(TRAIN))
    folder.remove_stale_temporaries()
    job, found, queries_per_s = _by_features(context, features)
    table = _joined(folder, found)
    by_pixels, counted = _by_pixels(context, manifest, table)
    card = {
        "split": config.neighbours.split,
        "queries": len(table),
        "rows": manifest.num_rows(TRAIN),
        "top": config.neighbours.top,
        "num_features": features.card["num_features"],
        "weights": features.card["weights"],
        **alike.told(
            table["label"].to_numpy(),
            _lists(table, "neighbour_labels"),
            by_pixels,
            counted,
            manifest.label_counts(TRAIN),
            config.net.input_px,
        ),
        "duplicates": _write_duplicates(folder, table, config.neighbours.split, config.neighbours.duplicate_below),
        "queries_per_s": queries_per_s,
        **_indexed(context, job, features, table),
    }
    folder.write(SUMMARY, json.dumps(card, indent=1) + "\n")
    folder.child(PARTS).delete_all()
    context.log_files(SUMMARY, DUPLICATES)
    log_dataset(context, manifest, context.inputs["ingest"].folder, "neighbours")
    context.run.tags(hardware(job.device == "cuda"))
    return _summary(job, card, len(found))


def _require_index(kind: faiss_index.Index, num_rows: int) -> None:
    """UsageError where it cannot be made, before hours are spent."""
    require_faiss(kind)
    try:
        faiss_index.require_enough(kind, num_rows)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _by_features(context: Context, features: Features) -> tuple[Job, list[Block], float]:
    """Looks up what is missing; the blocks, and how many images were looked up a second."""
    config, folder = context.config, context.folder
    files = features.of_split(config.neighbours.split)
    total = sum(file.rows for file in files)
    have = devices.usable(config.train.device, context.compute.resources(), devices.torch_cuda())
    device, cpus_each, _ = spread(have, total, BLOCK_ROWS["cuda" if have.gpus else "cpu"])
    job = Job(features.folder, folder, config.neighbours.top, cpus_each, device)
    wanted = blocks(files, BLOCK_ROWS[device])
    todo = [block for block in wanted if folder.size(block.name) is None]
    kept = seen = total - sum(block.rows for block in todo)
    began = time.perf_counter()
    tasks = context.compute.map(partial(look_up, job), todo, int(device == "cuda"), cpus_each, keep_processes=True)
    with context.console.progress("neighbours", total, "images", kept) as progress:
        for rows in tasks:
            seen += rows
            progress.update(seen)
    assert seen == total, f"neighbours of {seen} of {total} images were found"
    return job, wanted, (total - kept) / (time.perf_counter() - began)


def look_up(job: Job, block: Block) -> int:
    """A task: the neighbours of a block's images, into a file of their own; how many images these are."""
    import pyarrow.parquet as pq
    import torch

    torch.set_num_threads(job.num_cpus)
    table = as_table(neighbours_of_block(Features.load(job.features), block, job.top, job.device))
    job.folder.publish(block.name, lambda file: pq.write_table(table, file, compression="zstd"))
    return len(table)


def _joined(folder: Folder, found: list[Block]) -> "pa.Table":
    """Writes all blocks as one file, a row group each; what fits a memory of them: all columns but the keys."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kept = []

    def write(file) -> None:
        writer = None
        for block in found:
            table = read_table(folder, block.name)
            writer = writer or pq.ParquetWriter(file, table.schema, compression="zstd")
            writer.write_table(table)
            kept.append(_nearest_only(table))
        assert writer is not None
        writer.close()

    folder.publish(NEIGHBOURS, write)
    return pa.concat_tables(kept)


def _nearest_only(table: "pa.Table") -> "pa.Table":
    """With keys of the first neighbour alone."""
    import pyarrow.compute as pc

    first = pc.list_element(table["neighbour_keys"], 0)
    return table.drop_columns(["neighbour_keys"]).append_column("first_key", first)


def _by_pixels(context: Context, manifest: Manifest, table: "pa.Table") -> tuple[Compared, PixelRows]:
    """Some images among all training images by their pixels; and these images."""
    split, shards = context.config.neighbours.split, context.inputs["ingest"].folder
    count = min(PIXEL_QUERIES, len(table))
    ids_S = table["id"].to_numpy()[:count]
    neighbours_SK = _lists(table.slice(0, count), "neighbour_ids")
    records = manifest.splits[TRAIN]
    stored_N = np.concatenate([stored_ids(record) for record in records])
    job = PixelJob(
        shards=shards,
        folder=context.folder,
        queries=tuple(_first(manifest.splits[split], count)),
        count=count,
        crop_px=context.config.net.input_px,
        top=context.config.neighbours.top,
        others_QM=alike.others(neighbours_SK, stored_N, ids_S if split == TRAIN else None),
    )
    wanted = _parts(records)
    todo = [part for part in wanted if context.folder.size(part.name) is None]
    seen = kept = sum(record.rows for part in wanted if part not in todo for record in part.records)
    with context.console.progress("pixels", len(stored_N), "images", kept) as progress:
        for rows in context.compute.map(partial(compare_pixels, job), todo):
            seen += rows
            progress.update(seen)
    found = pixels.merged([_read_part(context.folder, part) for part in wanted], job.top)
    return found, _queries(job.shards, job.queries, job.crop_px, count)


def compare_pixels(job: PixelJob, part: PixelPart) -> int:
    """A task: some images among a part of the training images, into a file; how many training images these are."""
    import torch

    torch.set_num_threads(1)
    queries = _queries(job.shards, job.queries, job.crop_px, job.count)
    rows = pixels.pixel_rows(job.shards, Manifest.load(job.shards), part.records, job.crop_px)
    found = pixels.compared(queries, rows, job.top, job.others_QM, job.queries[0].split == TRAIN)
    named = {"labels_QK": found.labels_QK, "distances_QM": found.distances_QM, **found.nearest._asdict()}
    job.folder.publish(part.name, lambda file: np.savez(file, **named))
    return sum(record.rows for record in part.records)


@lru_cache(maxsize=1)
def _queries(shards: Folder, records: tuple[ShardRecord, ...], crop_px: int, count: int) -> PixelRows:
    """The first images of these shards, once in each process."""
    found = pixels.joined(pixels.pixel_rows(shards, Manifest.load(shards), records, crop_px))
    return PixelRows(*(column[:count] for column in found))


def _first(records: tuple[ShardRecord, ...], count: int) -> Iterator[ShardRecord]:
    """The shards that hold the first images."""
    for record in records:
        if count <= 0:
            return
        if record.rows:
            yield record
        count -= record.rows


def _parts(records: tuple[ShardRecord, ...]) -> list[PixelPart]:
    """All training shards, in parts of about the same size."""
    filled = tuple(record for record in records if record.rows)
    total = max(1, round(sum(record.rows for record in filled) / PIXEL_PARTS_IMAGES))
    groups = (filled[number * len(filled) // total : (number + 1) * len(filled) // total] for number in range(total))
    full = [group for group in groups if group]
    return [PixelPart(number, len(full), group) for number, group in enumerate(full)]


def _read_part(folder: Folder, part: PixelPart) -> Compared:
    with folder.as_local(part.name) as here, np.load(here / part.name) as found:
        nearest = Nearest(found["ids_QK"], found["distances_QK"])
        return Compared(nearest, found["labels_QK"], found["distances_QM"])


def _write_duplicates(folder: Folder, table: "pa.Table", split: str, below: float) -> dict[str, Any]:
    """Lists the images whose nearest neighbour is nearly at no distance; how many, and what counts as that."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    nearest_Q = _lists(table, "distances")[:, 0]
    limit = below * float(np.median(nearest_Q))
    places = np.flatnonzero(nearest_Q < limit) if below else np.zeros(0, np.int64)
    near, ids = table.take(places), _lists(table, "neighbour_ids")[places, 0]
    listed = pa.table(
        {
            "split": pa.array([split] * len(near), pa.string()),
            **{name: near[name] for name in ("id", "key", "label")},
            "first_split": pa.array([TRAIN] * len(near), pa.string()),
            "first_id": ids,
            "first_key": near["first_key"],
            "first_label": _lists(table, "neighbour_labels")[places, 0],
            "distance": nearest_Q[places],
        }
    )
    folder.publish(DUPLICATES, lambda file: pq.write_table(listed, file, compression="zstd"))
    return {"count": len(near), "below": below, "distance_below": limit}


def _indexed(context: Context, job: Job, features: Features, table: "pa.Table") -> dict[str, Any]:
    """With the index that was wanted: its size, its speed, and how many of the exact neighbours it finds."""
    if context.config.neighbours.index == "none":
        return {}
    exact_SK = _lists(table.slice(0, PIXEL_QUERIES), "neighbour_ids")
    make = partial(make_index, job, kind=context.config.neighbours.index, exact_SK=exact_SK)
    (found,) = context.compute.map(make, [context.config.neighbours.split], 0, job.num_cpus)
    return {"index": found}


def make_index(job: Job, split: str, kind: faiss_index.Index, exact_SK: np.ndarray) -> dict[str, Any]:
    """A task: the index of all training images, and what becomes of the first images of the split in it."""
    features = Features.load(job.features)
    num_bytes = faiss_index.write_index(features, kind, job.folder)
    index = faiss_index.read_index(job.folder)
    queries, seen = [], 0
    for rows in features.rows(split):
        queries.append(rows.features_NU[: len(exact_SK) - seen])
        seen += len(queries[-1])
        if seen == len(exact_SK):
            break
    began = time.perf_counter()
    is_train = split == TRAIN  # then the nearest is the image itself
    found = faiss_index.nearest_by(index, np.concatenate(queries), exact_SK.shape[1] + is_train)
    return {
        "kind": kind,
        "bytes": num_bytes,
        "recall": faiss_index.recall(exact_SK, found.ids_QK[:, is_train:]),
        "queries_per_s": len(exact_SK) / (time.perf_counter() - began),
    }


def _lists(table: "pa.Table", name: str) -> np.ndarray:
    """A column of lists of one length as [Q, K]."""
    flat = table[name].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(len(table), -1)


def _summary(job: Job, card: dict[str, Any], num_blocks: int) -> dict:
    shares = {k: alike.Share(**share) for k, share in card["right_class"]["features"].items()}
    told = ", ".join(f"{alike.percent(share)} at {k}" for k, share in shares.items())
    of = f"{card['queries']:,} images of {card['split']} among {card['rows']:,}"
    rms = {name: found["mean"] for name, found in card["pixels"]["rms_levels"].items()}
    return {
        "result": f"{of}: of their class {told or 'unknown'}; {card['duplicates']['count']:,} nearly at no distance",
        "metrics": {
            **{f"right_class_{k}": share.share for k, share in shares.items()},
            **{f"rms_levels_{name}": value for name, value in rms.items()},
            "duplicates": card["duplicates"]["count"],
            "queries_per_s": card["queries_per_s"],
        },
        "units": card["queries"] * card["rows"],
        "files": (NEIGHBOURS, SUMMARY, DUPLICATES, *[faiss_index.INDEX] * ("index" in card)),
        "made_with": {"device": job.device, "cpus_per_task": job.num_cpus, "blocks": num_blocks},
    }
