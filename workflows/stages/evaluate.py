"""Evaluate: errors on a split, on the centre crop and averaged over several views, from one decode.

Ray tasks share the split; every stored image is seen exactly once, and the count is checked against the manifest.
"""

import json
import time
from dataclasses import dataclass
from functools import partial, reduce
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from model.metrics import TopK
from pipelines.duplicates import listed_in
from pipelines.manifest import Manifest
from pipelines.names import Device, Views
from pipelines.storage import Folder, redacted
from pipelines.views import place_of_centre
from workflows.compute import devices, machine
from workflows.compute.spread import spread
from workflows.config import EvaluateSpec, UsageError, require_split
from workflows.engine.outputs import places
from workflows.engine.stage import Context
from workflows.engine.starts import model_folder
from workflows.folders import MODELS, PROBABILITIES
from workflows.stages import ensemble, kept
from workflows.stages.ingest import log_dataset
from workflows.tracking.headline import ALIASES, errors_of, hardware

if TYPE_CHECKING:
    from model.network import Network

ERRORS, PREDICTIONS = "evaluate.json", "predictions.parquet"
TOP = 5


@dataclass(frozen=True)
class Job:
    """What a task evaluates: its share of a split, with exported models."""

    shards: Folder
    models: tuple[Folder, ...]  # the trained one, then those that it is averaged with: models, or what they said
    kind: str  # net.kind of the configuration
    split: str
    batch_size: int
    num_parts: int
    num_cpus: int  # that the task may use
    threads: int  # of them decode
    device: Device
    precision: str = "float32"
    views: Views = "ten"
    keep_probabilities: bool = False


class Part(NamedTuple):
    """What a task returns: a row for each image, and the errors' sums."""

    ids: np.ndarray
    labels: np.ndarray
    classes_N5: np.ndarray  # the likeliest over all views and models
    probabilities_N5: np.ndarray
    kept_NMK: np.ndarray  # float16, over all views, of each model; of no images unless they are to be kept
    keys: list[str]
    centre: TopK  # of the trained model
    viewed: ensemble.Votes  # over all views


def run(context: Context) -> dict:
    """Writes `evaluate.json` and `predictions.parquet`, and `probabilities.parquet` where it is wanted."""
    spec, shards = context.config.evaluate, context.inputs["ingest"].folder
    manifest = Manifest.load(shards)
    total = manifest.num_rows(spec.split)
    require_split(spec.split, {name: manifest.num_rows(name) for name in manifest.splits})
    have = devices.usable(context.config.train.device, context.compute.resources(), devices.torch_cuda())
    precision = context.trained_in
    devices.require_precision(precision, have, "evaluate where there is one, as training did")
    device, cpus_each, num_parts = spread(have, total, spec.batch_size)
    models, listed = _models(context, manifest), _left_out(spec)
    job = Job(
        shards=shards,
        models=tuple(models.values()),
        kind=context.config.net.kind,
        split=spec.split,
        batch_size=spec.batch_size,
        num_parts=num_parts,
        num_cpus=cpus_each,
        threads=min(context.config.loader.threads or cpus_each, cpus_each),
        device=device,
        precision=precision,
        views=spec.views,
        keep_probabilities=spec.keep_probabilities,
    )
    began, parts, seen = time.perf_counter(), [], 0
    num_gpus = int(device == "cuda")
    with context.console.progress("evaluate", total, "images") as progress:
        for part in context.compute.map(partial(evaluate_part, job), range(num_parts), num_gpus, cpus_each):
            _require_listed(part, listed, spec)
            parts.append(part)
            seen += len(part.ids)
            progress.update(seen)
    assert seen == total, f"{seen} of {total} images were evaluated"
    errors = _errors(parts, spec)
    of_all = ensemble.errors([part.viewed for part in parts], list(models)) if len(models) > 1 else {}
    without = _without(parts, listed, spec) if spec.leave_out else {}
    context.folder.write(ERRORS, json.dumps(errors | of_all | without, indent=1) + "\n")
    write_predictions(parts, context.folder)
    if spec.keep_probabilities:
        keep_probabilities(parts, list(models), context.folder, manifest)
    context.log_files(ERRORS, PREDICTIONS)
    _track(context, manifest, errors, device)
    average = {f"{name}_average": value for name, value in of_all.get("average", {}).items()}
    return {
        "result": _result(spec, errors, average, len(models)) + _moved(without),
        "metrics": {**errors, **average, **_flat(without), "mean_images_per_s": total / (time.perf_counter() - began)},
        "units": total,
        "files": (ERRORS, PREDICTIONS, *[PROBABILITIES] * spec.keep_probabilities),
        "made_with": {
            "device": device,
            "precision": precision,
            "tasks": num_parts,
            "cpus_per_task": cpus_each,
            "batch_size": spec.batch_size,
        },
    }


def _models(context: Context, manifest: Manifest) -> dict[str, Folder]:
    """The trained model, and those that the configuration names, by name; UsageError where they do not go together.

    Of a baseline, or an evaluation, it is the folder with the probabilities that it kept.
    """
    config = context.config
    models = {"trained": context.inputs["train"].folder.child(MODELS[config.evaluate.weights])}
    where = places(config, context.root)
    for name in config.evaluate.models:
        said = redacted(name)
        models[said] = model_folder(f"evaluate.models={said}", name, config, where)
    ensemble.require_alike({said: folder for said, folder in models.items() if not _is_kept(folder)})
    for said, folder in models.items():
        if _is_kept(folder):
            kept.require_of(folder, f"evaluate.models={said}", manifest, config.evaluate.split)
    return models


def _is_kept(folder: Folder) -> bool:
    return folder.size(PROBABILITIES) is not None


def _result(spec: EvaluateSpec, errors: dict, average: dict[str, float], num_models: int) -> str:
    top1, top5 = (errors[f"top{k}_error{spec.suffix}"] for k in (1, 5))
    several = f"{top1:.2%} with {spec.in_words}, " if spec.views != "one" else ""
    alone = f"{spec.split}: top-1 error {several}{errors['top1_error']:.2%} with one; top-5 {top5:.2%}"
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


def _left_out(spec: EvaluateSpec) -> dict[int, str]:
    """The split's images that `evaluate.leave_out` lists: their keys, by id."""
    if not spec.leave_out:
        return {}
    folder, name = Folder.at(spec.leave_out).split()
    try:
        return listed_in(folder.read(name), spec.split)
    except (ValueError, OSError) as error:
        raise UsageError(f"evaluate.leave_out={redacted(spec.leave_out)}: {error}") from error


def _require_listed(part: Part, listed: dict[int, str], spec: EvaluateSpec) -> None:
    """UsageError where what is listed by these ids is another image."""
    for id, key in zip(part.ids.tolist(), part.keys, strict=True):
        if listed.get(id, key) != key:
            raise _of_other_shards(spec, f"its id {id} is {listed[id]!r}, which here is {key!r}")


def _of_other_shards(spec: EvaluateSpec, why: str) -> UsageError:
    return UsageError(
        f"evaluate.leave_out={redacted(spec.leave_out)} lists images of other shards than these of {spec.split}: "
        f"{why}; name the list that `stats` or `neighbours` made of these, or none (--set evaluate.leave_out=)"
    )


def _without(parts: list[Part], listed: dict[int, str], spec: EvaluateSpec) -> dict[str, Any]:
    """The errors of all images and without those listed, by the likeliest classes as `predictions.parquet` has them."""
    ids_N, labels_N, classes_N5 = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("ids", "labels", "classes_N5")
    )
    right_N5 = classes_N5 == labels_N[:, None]
    wrong_2N = np.stack([~right_N5[:, 0], ~right_N5.any(axis=1)])
    if absent := sorted(listed.keys() - set(ids_N.tolist())):
        raise _of_other_shards(spec, f"its id {absent[0]}, {listed[absent[0]]!r}, is not here")
    kept_N = ~np.isin(ids_N, list(listed))
    if not kept_N.any():
        raise UsageError("evaluate.leave_out lists all images of the split: name a file that lists fewer")
    found: dict[str, Any] = {"images": int(len(ids_N) - kept_N.sum())}
    for name, wrong_N in zip(("top1_error", "top5_error"), wrong_2N, strict=True):
        found |= {name: float(wrong_N[kept_N].mean()), f"{name}_of_all": float(wrong_N.mean())}
    return {"left_out": found}


def _flat(without: dict[str, Any]) -> dict[str, float]:
    return {f"left_out_{name}": value for name, value in without.get("left_out", {}).items()}


def _moved(without: dict[str, Any]) -> str:
    """What a result says of it."""
    if not without:
        return ""
    found = without["left_out"]
    error, of_all = found["top1_error"], found["top1_error_of_all"]
    return f"; without {found['images']:,} images left out {error:.2%} instead of {of_all:.2%}"


@machine.freed_memory_kept()
def evaluate_part(job: Job, number: int) -> Part:
    """A contiguous share of the split: some views of each image, of which one is the centre crop."""
    import torch

    from model.step import over_views, predictions
    from pipelines.evaluation import eval_batches

    torch.set_num_threads(job.num_cpus)
    said = {place: kept.read(model) for place, model in enumerate(job.models) if _is_kept(model)}
    nets = [_load(model, job.kind).to(job.device) for place, model in enumerate(job.models) if place not in said]
    manifest = Manifest.load(job.shards)
    crop_px = nets[0].spec.input_px
    centre_view = place_of_centre(job.views, manifest.size_px - crop_px)
    centre, viewed = TopK(), ensemble.Votes(len(job.models))
    found = []
    batches = eval_batches(
        job.shards,
        manifest,
        job.split,
        crop_px=crop_px,
        batch_size=job.batch_size,
        views=job.views,
        worker=number,
        num_workers=job.num_parts,
        threads=job.threads,
        device=job.device,
    )
    for of_views, labels_B, (ids_B, *_) in predictions(nets, batches, job.precision):
        of_models = [over_views(of_views_BVK) for of_views_BVK in of_views]
        for place, one in said.items():
            of_models.insert(place, torch.from_numpy(one.of(ids_B)).to(job.device))
        of_models_MBK = torch.stack(of_models)
        centre.update(of_views[0][:, centre_view], labels_B)
        viewed.update(of_models_MBK, labels_B)
        best = of_models_MBK.mean(0).topk(min(TOP, of_models_MBK.shape[2]))
        kept_BMK = of_models_MBK.transpose(0, 1).half()[: None if job.keep_probabilities else 0]
        found.append([ids_B, *(tensor.cpu().numpy() for tensor in (labels_B, best.indices, best.values, kept_BMK))])
    ids, labels, classes, probabilities, kept_NMK = (np.concatenate(column) for column in zip(*found, strict=True))
    return Part(ids, labels, classes, probabilities, kept_NMK, _keys(job, manifest, ids), centre, viewed)


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


def _errors(parts: list[Part], spec: EvaluateSpec) -> dict:
    """Fractions, over all images of the split, of the trained model."""
    centre = reduce(TopK.merge, (part.centre for part in parts))
    viewed = reduce(TopK.merge, (part.viewed.single[0] for part in parts))
    return {
        "split": spec.split,
        "num_images": viewed.num_images,
        "top1_error": centre.top1_error,
        "top5_error": centre.top5_error,
        f"top1_error{spec.suffix}": viewed.top1_error,
        f"top5_error{spec.suffix}": viewed.top5_error,
    }


def write_predictions(parts: list[Part], folder: Folder) -> None:
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


def keep_probabilities(parts: list[Part], names: list[str], folder: Folder, manifest: Manifest) -> None:
    """Of these models, all classes; see `kept`."""
    ids, labels, kept_NMK = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("ids", "labels", "kept_NMK")
    )
    kept.write(folder, ids, labels, {name: kept_NMK[:, place] for place, name in enumerate(names)}, manifest)
