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
from workflows.engine.outputs import places
from workflows.engine.stage import Context
from workflows.engine.starts import model_folder
from workflows.folders import MODELS
from workflows.stages import ensemble
from workflows.stages.ingest import log_dataset
from workflows.tracking.headline import ALIASES, errors_of, hardware

if TYPE_CHECKING:
    from model.network import Network

ERRORS, PREDICTIONS, PROBABILITIES = "evaluate.json", "predictions.parquet", "probabilities.parquet"
TOP = 5
CENTRE_VIEW = 2  # of the ten
TASKS_PER_DEVICE = 4  # so that the progress moves, and a lost task costs little


@dataclass(frozen=True)
class Job:
    """What a task evaluates: its share of a split, with exported models."""

    shards: Folder
    models: tuple[Folder, ...]  # the trained one, then those that it is averaged with
    kind: str  # net.kind of the configuration
    split: str
    batch_size: int
    num_parts: int
    threads: int
    device: Device
    keep_probabilities: bool = False


class Part(NamedTuple):
    """What a task returns: a row for each image, and the errors' sums."""

    ids: np.ndarray
    labels: np.ndarray
    classes_N5: np.ndarray  # the likeliest over ten crops and all models
    probabilities_N5: np.ndarray
    kept_NMK: np.ndarray  # float16, over ten crops, of each model; of no images unless they are to be kept
    keys: list[str]
    centre: TopK  # of the trained model
    ten: ensemble.Votes


def run(context: Context) -> dict:
    """Writes `evaluate.json` and `predictions.parquet`, and `probabilities.parquet` where it is wanted."""
    spec, shards = context.config.evaluate, context.inputs["ingest"].folder
    manifest = Manifest.load(shards)
    total = manifest.num_rows(spec.split)
    require_split(spec.split, {name: manifest.num_rows(name) for name in manifest.splits})
    have = devices.usable(context.config.train.device, context.compute.resources(), devices.torch_cuda())
    device: Device = "cuda" if have.gpus else "cpu"
    num_parts = max(1, min((have.gpus or have.cpus) * TASKS_PER_DEVICE, -(-total // spec.batch_size)))
    models = _models(context)
    job = Job(
        shards=shards,
        models=tuple(models.values()),
        kind=context.config.net.kind,
        split=spec.split,
        batch_size=spec.batch_size,
        num_parts=num_parts,
        threads=context.config.loader.threads or 1,
        device=device,
        keep_probabilities=spec.keep_probabilities,
    )
    began, parts, seen = time.perf_counter(), [], 0
    with context.console.progress("evaluate", total, "images") as progress:
        for part in context.compute.map(partial(evaluate_part, job), range(num_parts), num_gpus=int(have.gpus > 0)):
            parts.append(part)
            seen += len(part.ids)
            progress.update(seen)
    assert seen == total, f"{seen} of {total} images were evaluated"
    errors = _errors(parts, spec.split)
    of_all = ensemble.errors([part.ten for part in parts], list(models)) if len(models) > 1 else {}
    context.folder.write(ERRORS, json.dumps(errors | of_all, indent=1) + "\n")
    _write_predictions(parts, context.folder)
    if spec.keep_probabilities:
        _write_probabilities(parts, list(models), context.folder)
    context.log_files(ERRORS, PREDICTIONS)
    _track(context, manifest, errors, device)
    average = {f"{name}_average": value for name, value in of_all.get("average", {}).items()}
    return {
        "result": _result(spec.split, errors, average, len(models)),
        "metrics": {**errors, **average, "mean_images_per_s": total / (time.perf_counter() - began)},
        "units": total,
        "files": (ERRORS, PREDICTIONS, *[PROBABILITIES] * spec.keep_probabilities),
        "made_with": {"device": device, "tasks": num_parts, "batch_size": spec.batch_size},
    }


def _models(context: Context) -> dict[str, Folder]:
    """The trained model, and those that the configuration names, by name; UsageError where they do not go together."""
    config = context.config
    models = {"trained": context.inputs["train"].folder.child(MODELS[config.evaluate.weights])}
    where = places(config, context.root)
    models |= {name: model_folder(f"evaluate.models={name}", name, config, where) for name in config.evaluate.models}
    ensemble.require_alike(models)
    return models


def _result(split: str, errors: dict, average: dict[str, float], num_models: int) -> str:
    alone = (
        f"{split}: top-1 error {errors['top1_error_ten_crop']:.2%} with ten crops, {errors['top1_error']:.2%} with "
        f"one; top-5 {errors['top5_error_ten_crop']:.2%}"
    )
    if not average:
        return alone
    together = f"{average['top1_error_average']:.2%}, top-5 {average['top5_error_average']:.2%}"
    return f"{alone}; {num_models} models together {together}"


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
    import torch

    from model.step import over_views, predictions
    from pipelines.evaluation import eval_batches

    nets = [_load(model, job.kind).to(job.device) for model in job.models]
    manifest = Manifest.load(job.shards)
    centre, ten = TopK(), ensemble.Votes(len(nets))
    found = []
    batches = eval_batches(
        job.shards,
        manifest,
        job.split,
        crop_px=nets[0].spec.input_px,
        batch_size=job.batch_size,
        views=10,
        worker=number,
        num_workers=job.num_parts,
        threads=job.threads,
        device=job.device,
    )
    for of_views, labels_B, (ids_B,) in predictions(nets, batches):
        of_models_MBK = torch.stack([over_views(of_views_BVK) for of_views_BVK in of_views])
        centre.update(of_views[0][:, CENTRE_VIEW], labels_B)
        ten.update(of_models_MBK, labels_B)
        best = of_models_MBK.mean(0).topk(min(TOP, of_models_MBK.shape[2]))
        kept_BMK = of_models_MBK.transpose(0, 1).half()[: None if job.keep_probabilities else 0]
        found.append([ids_B, *(tensor.cpu().numpy() for tensor in (labels_B, best.indices, best.values, kept_BMK))])
    ids, labels, classes, probabilities, kept = (np.concatenate(column) for column in zip(*found, strict=True))
    return Part(ids, labels, classes, probabilities, kept, _keys(job, manifest, ids), centre, ten)


def _load(model: Folder, kind: str) -> "Network":
    """An exported network; from an object store by way of a folder here."""
    from model.export import load_exported

    with model.as_local() as folder:
        return load_exported(folder, kind).net


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
    """Fractions, over all images of the split, of the trained model."""
    centre = reduce(TopK.merge, (part.centre for part in parts))
    ten = reduce(TopK.merge, (part.ten.single[0] for part in parts))
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


def _write_probabilities(parts: list[Part], names: list[str], folder: Folder) -> None:
    """One row an image, by id: its label, and for each model the probabilities of all classes over ten crops."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    ids, labels, kept_NMK = (
        np.concatenate([getattr(p, name) for p in parts]) for name in ("ids", "labels", "kept_NMK")
    )
    order = np.argsort(ids)
    columns: dict[str, pa.Array] = {"id": pa.array(ids[order]), "label": pa.array(labels[order], pa.int32())}
    for model, name in enumerate(names):
        flat = pa.array(np.ascontiguousarray(kept_NMK[order, model]).ravel())
        columns[name] = pa.FixedSizeListArray.from_arrays(flat, kept_NMK.shape[2])
    folder.publish(PROBABILITIES, lambda file: pq.write_table(pa.table(columns), file))
