"""Features: what the last layer of the trained network reads of every image of some splits, of its centre crop.

One Ray task a shard, and a file of each (see `pipelines/features.py`); files that an interrupted run finished are kept.
"""

import json
import time
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from pipelines.features import CARD, FILES, FeatureFile, finished_files, stem, write_card, write_features
from pipelines.manifest import Manifest
from pipelines.names import Device
from pipelines.shard_record import ShardRecord
from pipelines.storage import Folder
from workflows.compute import devices, machine
from workflows.compute.spread import spread
from workflows.config import UsageError, require_splits
from workflows.console import size
from workflows.engine.stage import Context
from workflows.folders import MODELS
from workflows.stages.ingest import log_dataset
from workflows.stages.room import require_room
from workflows.tracking.headline import hardware

if TYPE_CHECKING:
    from model.network import Network
    from pipelines.evaluation import CentreCrops


@dataclass(frozen=True)
class Job:
    """What all tasks have in common."""

    shards: Folder
    features: Folder  # where they go
    model: Folder
    weights: str  # their sha256
    kind: str  # net.kind of the configuration
    encoding: str
    size_px: int
    batch_size: int
    precision: str
    dtype: str
    num_cpus: int  # that a task may use
    threads: int  # of them decode
    device: Device


def run(context: Context) -> dict:
    """Writes `data/*.parquet`, `_files.parquet` and `features.json`."""
    config, folder = context.config, context.folder
    shards = context.inputs["ingest"].folder
    manifest = Manifest.load(shards)
    require_splits(config.features.splits, {name: manifest.num_rows(name) for name in manifest.splits})
    records = [record for split in config.features.splits for record in manifest.splits[split] if record.rows]
    total = sum(record.rows for record in records)
    have = devices.usable(config.train.device, context.compute.resources(), devices.torch_cuda())
    devices.require_precision(context.trained_in, have, "take features where there is one, as training did")
    device, cpus_each, _ = spread(have, total, config.features.batch_size)
    job = _job(context, manifest, device, cpus_each)
    folder.remove_stale_temporaries()
    done = finished_files(folder)
    kept = seen = sum(file.rows for file in done.values())
    began = time.perf_counter()
    todo = [record for record in records if stem(record.name) not in done]
    num_gpus = int(device == "cuda")
    tasks = context.compute.map(partial(write_shard_s_features, job), todo, num_gpus, cpus_each, keep_processes=True)
    with context.console.progress("features", total, "images", kept) as progress:
        for file in tasks:
            done[stem(file.name)] = file
            seen += file.rows
            if seen == kept + file.rows:  # the first, whose size tells the others'
                require_room(folder, "the rest of the features", (total - seen) / file.rows * file.bytes)
            progress.update(seen)
    _prepared.cache_clear()
    assert seen == total, f"features of {seen} of {total} images were taken"
    files = [done[stem(record.name)] for record in records]
    card = _card(job, config.evaluate.weights, manifest, files)
    write_card(folder, card, files)
    context.log_files(CARD, FILES)
    log_dataset(context, manifest, shards, "features")
    context.run.tags(hardware(job.device == "cuda"))
    return _summary(job, card, files, (total - kept) / (time.perf_counter() - began), total - kept)


def _job(context: Context, manifest: Manifest, device: Device, num_cpus: int) -> Job:
    config, train = context.config, context.inputs["train"]
    model = MODELS[config.evaluate.weights]
    return Job(
        shards=context.inputs["ingest"].folder,
        features=context.folder,
        model=train.folder.child(model),
        weights=train.require_record()["files"][f"{model}/model.safetensors"],
        kind=config.net.kind,
        encoding=manifest.encoding,
        size_px=manifest.size_px,
        batch_size=config.features.batch_size,
        precision=context.trained_in,
        dtype=config.features.dtype,
        num_cpus=num_cpus,
        threads=min(config.loader.threads or num_cpus, num_cpus),
        device=device,
    )


@machine.freed_memory_kept()
def write_shard_s_features(job: Job, shard: ShardRecord) -> FeatureFile:
    """A task: the features of one shard's images, into a file of their own."""
    from model.step import features
    from pipelines.shards import read_shard

    net, crops = _prepared(job)
    rows = read_shard(job.shards, shard)
    batches = crops.of_shard(job.shards, shard, rows)
    found = (features(net, batch.crops_BCHW, job.precision).cpu().numpy() for batch in batches)
    return write_features(job.features, shard, rows, found, job.dtype)


@lru_cache(maxsize=1)
def _prepared(job: Job) -> "tuple[Network, CentreCrops]":
    """The network and what decodes for it, once in each process. UsageError where it has no features."""
    import torch

    from model.export import load_exported
    from model.step import features
    from pipelines.evaluation import CentreCrops

    torch.set_num_threads(job.num_cpus)
    try:
        with job.model.as_local() as folder:
            net = load_exported(folder, job.kind).net.to(job.device)
        side = net.spec.input_px
        features(net, torch.zeros(1, 3, side, side, device=job.device))
    except ValueError as error:
        raise UsageError(str(error)) from error
    return net, CentreCrops(job.encoding, job.size_px, side, job.batch_size, job.threads, job.device)


def _card(job: Job, weights: str, manifest: Manifest, files: list[FeatureFile]) -> dict[str, Any]:
    """What the features are: enough to use them without this project."""
    of_splits = {
        split: [file for file in files if file.split == split] for split in dict.fromkeys(f.split for f in files)
    }
    return {
        "net": json.loads(job.model.read("model.json"))["net"],
        "weights": weights,
        "weights_sha256": job.weights,
        "view": "centre crop",
        "num_features": files[0].num_features,
        "dtype": job.dtype,
        "manifest": manifest.digest,
        "splits": {
            split: {"images": sum(file.rows for file in found), "files": len(found)}
            for split, found in of_splits.items()
        },
    }


def _summary(job: Job, card: dict[str, Any], files: list[FeatureFile], images_per_s: float, units: int) -> dict:
    images = {split: found["images"] for split, found in card["splits"].items()}
    counts = ", ".join(f"{split} {count:,}" for split, count in images.items())
    num_bytes = sum(file.bytes for file in files)
    return {
        "result": f"{card['num_features']:,} features of each image: {counts}; {job.dtype}, {size(num_bytes)}",
        "metrics": {
            **{f"images_{split}": count for split, count in images.items()},
            "features": card["num_features"],
            "bytes": num_bytes,
            "mean_images_per_s": images_per_s,
        },
        "units": units,
        "files": (CARD, FILES),
        "made_with": {
            "device": job.device,
            "precision": job.precision,
            "cpus_per_task": job.num_cpus,
            "batch_size": job.batch_size,
        },
    }
