"""Evaluate: errors on a split, on the centre crop and averaged over the paper's ten crops, from one decode.

Ray tasks share the split; every stored image is seen exactly once, and the count is checked against the manifest.
"""

import json
import time
from dataclasses import dataclass
from functools import partial, reduce
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from model.metrics import TopK
from pipelines.manifest import Manifest
from pipelines.names import Device
from pipelines.storage import Folder
from workflows.compute import devices
from workflows.config import require_split
from workflows.engine.stage import Context
from workflows.folders import MODELS
from workflows.stages.ingest import log_dataset
from workflows.tracking.headline import ALIASES, errors_of, hardware

if TYPE_CHECKING:
    from model.alexnet import AlexNet

ERRORS, PREDICTIONS = "evaluate.json", "predictions.parquet"
TOP = 5
CENTRE_VIEW = 2  # of the ten
TASKS_PER_DEVICE = 4  # so that the progress moves, and a lost task costs little


@dataclass(frozen=True)
class Job:
    """What a task evaluates: its share of a split, with an exported model."""

    shards: Folder
    model: Folder
    split: str
    batch_size: int
    num_parts: int
    threads: int
    device: Device


class Part(NamedTuple):
    """What a task returns: a row for each image, and the errors' sums."""

    ids: np.ndarray
    labels: np.ndarray
    classes_N5: np.ndarray  # the likeliest over ten crops
    probabilities_N5: np.ndarray
    keys: list[str]
    centre: TopK
    ten: TopK


def run(context: Context) -> dict:
    """Writes `evaluate.json` and `predictions.parquet`."""
    spec, shards = context.config.evaluate, context.inputs["ingest"].folder
    manifest = Manifest.load(shards)
    total = manifest.num_rows(spec.split)
    require_split(spec.split, {name: manifest.num_rows(name) for name in manifest.splits})
    have = devices.usable(context.config.train.device, context.compute.resources(), devices.torch_cuda())
    device: Device = "cuda" if have.gpus else "cpu"
    num_parts = max(1, min((have.gpus or have.cpus) * TASKS_PER_DEVICE, -(-total // spec.batch_size)))
    model = context.inputs["train"].folder.child(MODELS[spec.weights])
    job = Job(shards, model, spec.split, spec.batch_size, num_parts, context.config.loader.threads or 1, device)
    began, parts, seen = time.perf_counter(), [], 0
    with context.console.progress("evaluate", total, "images") as progress:
        for part in context.compute.map(partial(evaluate_part, job), range(num_parts), num_gpus=int(have.gpus > 0)):
            parts.append(part)
            seen += len(part.ids)
            progress.update(seen)
    assert seen == total, f"{seen} of {total} images were evaluated"
    errors = _errors(parts, spec.split)
    context.folder.write(ERRORS, json.dumps(errors, indent=1) + "\n")
    _write_predictions(parts, context.folder)
    context.log_files(ERRORS, PREDICTIONS)
    _track(context, manifest, errors, device)
    return {
        "result": f"{spec.split}: top-1 error {errors['top1_error_ten_crop']:.2%} with ten crops, "
        f"{errors['top1_error']:.2%} with one; top-5 {errors['top5_error_ten_crop']:.2%}",
        "metrics": {**errors, "mean_images_per_s": total / (time.perf_counter() - began)},
        "units": total,
        "files": (ERRORS, PREDICTIONS),
        "made_with": {"device": device, "tasks": num_parts, "batch_size": spec.batch_size},
    }


def _track(context: Context, manifest: Manifest, errors: dict, device: str) -> None:
    """The data set is an input of the run, and so is the model that was judged; the errors belong to both."""
    log_dataset(context, manifest, context.inputs["ingest"].folder, "evaluation")
    trained_by = (context.inputs["train"].record or {}).get("mlflow_run_id", "")
    alias = ALIASES[context.config.evaluate.weights]
    found = errors_of({"metrics": errors})
    context.run.judged(found, trained_by, alias, manifest.source_kind, manifest.digest)
    context.run.tags(hardware(device == "cuda"))


def evaluate_part(job: Job, number: int) -> Part:
    """A contiguous share of the split: ten views of each image, of which one is the centre crop."""
    from model.step import over_views, predictions
    from pipelines.evaluation import eval_batches

    net = _load(job.model).to(job.device)
    manifest = Manifest.load(job.shards)
    centre, ten = TopK(), TopK()
    found = []
    batches = eval_batches(
        job.shards,
        manifest,
        job.split,
        crop_px=net.spec.input_px,
        batch_size=job.batch_size,
        views=10,
        worker=number,
        num_workers=job.num_parts,
        threads=job.threads,
        device=job.device,
    )
    for of_views_BVK, labels_B, (ids_B,) in predictions(net, batches):
        mean_BK = over_views(of_views_BVK)
        centre.update(of_views_BVK[:, CENTRE_VIEW], labels_B)
        ten.update(mean_BK, labels_B)
        best = mean_BK.topk(min(TOP, mean_BK.shape[1]))
        found.append([ids_B, *(tensor.cpu().numpy() for tensor in (labels_B, best.indices, best.values))])
    ids, labels, classes, probabilities = (np.concatenate(column) for column in zip(*found, strict=True))
    return Part(ids, labels, classes, probabilities, _keys(job, manifest, ids), centre, ten)


def _load(model: Folder) -> "AlexNet":
    """An exported network; from an object store by way of a folder here."""
    from model.export import load_exported

    with model.as_local() as folder:
        return load_exported(folder).net


def _keys(job: Job, manifest: Manifest, ids: np.ndarray) -> list[str]:
    """The keys of stored samples."""
    from pipelines.shards import read_shard

    names: dict[int, str] = {}
    for record in manifest.splits[job.split]:
        if record.first_id <= ids.max() and record.first_id + record.listed > ids.min():
            rows = read_shard(job.shards, record)
            names.update(zip(rows.ids.tolist(), rows.keys, strict=True))
    return [names[i] for i in ids.tolist()]


def _errors(parts: list[Part], split: str) -> dict:
    """Fractions, over all images of the split."""
    centre, ten = (reduce(TopK.merge, (getattr(part, name) for part in parts)) for name in ("centre", "ten"))
    return {
        "split": split,
        "num_images": ten.num_images,
        "top1_error": centre.top1_error,
        "top5_error": centre.top5_error,
        "top1_error_ten_crop": ten.top1_error,
        "top5_error_ten_crop": ten.top5_error,
    }


def _write_predictions(parts: list[Part], folder: Folder) -> None:
    """One row an image, by id: key, label, and the five likeliest classes with their probabilities."""
    import pandas as pd

    frames = [
        pd.DataFrame(
            {
                "id": part.ids,
                "key": part.keys,
                "label": part.labels.astype("int32"),
                "classes": list(part.classes_N5.astype("int32")),
                "probabilities": list(part.probabilities_N5.astype("float32")),
            }
        )
        for part in parts
    ]
    frame = pd.concat(frames).sort_values("id")
    folder.publish(PREDICTIONS, lambda file: frame.to_parquet(file, index=False))
