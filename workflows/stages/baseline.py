"""A baseline: the vectors of hand-made descriptors, and linear classifiers, on the shards and images of the network.

One classifier for each kind of descriptor; their probabilities are averaged. Of each kind there is a folder: the
vocabulary, then the encoded images (a Ray task a shard, see `pipelines/features.py`), which go when all is done, then
the classifier (see `linear.py`). Whatever an interrupted run finished of these is kept.
"""

import json
import time
from dataclasses import asdict, dataclass
from functools import partial, reduce

import numpy as np

from model.metrics import TopK
from pipelines.baselines import encoding
from pipelines.baselines.pyramid import regions
from pipelines.baselines.specs import BaselineSpec
from pipelines.features import FeatureFile, discard, finished_files, stem, write_features
from pipelines.manifest import Manifest
from pipelines.shard_record import ShardRecord
from pipelines.shards import read_shard
from pipelines.storage import Folder
from workflows.config import UsageError, require_scikit_learn, require_split, require_training_images
from workflows.engine.stage import Context
from workflows.folders import PROBABILITIES
from workflows.stages import ensemble, linear
from workflows.stages.evaluate import ERRORS, PREDICTIONS, TOP, Part, keep_probabilities, write_predictions
from workflows.stages.ingest import log_dataset
from workflows.stages.linear import Course
from workflows.stages.room import require_room
from workflows.tracking.headline import errors_of, hardware

KEPT = (encoding.VOCABULARY, linear.CHOSEN, linear.STATE.format("classifier"))  # of each kind of descriptor
_SAMPLED_SHARDS = 64  # at most, that descriptors are taken of


@dataclass(frozen=True)
class Job:
    """What all tasks have in common."""

    shards: Folder
    folder: Folder  # of the stage
    spec: BaselineSpec
    size_px: int

    def of(self, kind: str) -> Folder:
        return self.folder.child(kind)


def run(context: Context) -> dict:
    """Writes what an evaluation writes, with probabilities, and KIND/: each descriptor's vocabulary and classifier."""
    name, shards, split = context.output.stage, context.inputs["ingest"].folder, context.config.evaluate.split
    spec: BaselineSpec = getattr(context.config, name)
    require_scikit_learn(name)
    manifest = Manifest.load(shards)
    require_training_images(context.config.ingest, manifest.num_rows("train"))
    require_split(split, {each: manifest.num_rows(each) for each in manifest.splits})
    job = Job(shards, context.folder, spec, manifest.size_px)
    require_patches(job)
    context.folder.remove_stale_temporaries()
    train, tested = ([record for record in manifest.splits[each] if record.rows] for each in ("train", split))
    _learn_vocabularies(context, job, train)
    images_per_s, units = _encode(context, job, list(dict.fromkeys([*train, *tested])))
    courses = _courses(context, job, train, manifest.num_classes)
    _train(context, courses)
    results = _judge(context, job, courses, tested)
    errors = _errors(split, results, courses)
    context.folder.write(ERRORS, json.dumps(errors, indent=1) + "\n")
    write_predictions(results, context.folder)
    keep_probabilities(results, [name], context.folder, manifest)  # no model is there that could be asked again
    context.log_files(ERRORS, PREDICTIONS)
    context.run.metrics(errors_of({"metrics": errors}))
    log_dataset(context, manifest, shards, "baseline")
    context.run.tags(hardware(use_gpu=False))
    for kind in spec.descriptors:
        discard(job.of(kind))
    return _summary(errors, courses, images_per_s, units)


def require_patches(job: Job) -> None:
    """UsageError where a part of the spatial pyramid would be empty."""
    described = encoding.dense(job.spec.descriptors[0], job.spec, job.size_px)  # all have the same patches
    try:
        regions(described.centres_P2, job.spec.grids)
    except ValueError as error:
        raise UsageError(f"{job.spec.section}.{error}") from error


def _learn_vocabularies(context: Context, job: Job, train: list[ShardRecord]) -> None:
    """Those that are not there yet, from descriptors of some training images."""
    kinds = [kind for kind in job.spec.descriptors if job.of(kind).size(encoding.VOCABULARY) is None]
    if not kinds:
        return
    count = min(len(train), _SAMPLED_SHARDS)
    some = [train[number * len(train) // count] for number in range(count)]
    total = sum(record.rows for record in some)
    wanted = [-(-job.spec.samples * record.rows // total) for record in some]
    tasks = context.compute.map(partial(sample, job, tuple(kinds)), list(zip(some, wanted, strict=True)))
    found = dict(tasks)
    ordered = [found[record.name] for record in some]
    works = [(kind, np.concatenate([of_shard[kind] for of_shard in ordered])) for kind in kinds]
    for kind in context.compute.map(partial(learn, job), works):
        context.console.say(f"  {kind}: the vocabulary is learned")


def sample(job: Job, kinds: tuple[str, ...], work: tuple[ShardRecord, int]) -> tuple[str, dict[str, np.ndarray]]:
    """A task: so many descriptors [N, D] of each kind from a shard."""
    record, wanted = work
    rows = read_shard(job.shards, record)
    random = np.random.default_rng([job.spec.seed, record.first_id])
    described = {kind: encoding.dense(kind, job.spec, job.size_px) for kind in kinds}
    return record.name, {kind: encoding.sampled(rows, described[kind], wanted, random) for kind in kinds}


def learn(job: Job, work: tuple[str, np.ndarray]) -> str:
    """A task: the vocabulary of one kind. UsageError where there are too few descriptors."""
    kind, descriptors_ND = work
    try:
        encoding.save(encoding.learn(descriptors_ND, job.spec), job.of(kind))
    except ValueError as error:
        raise UsageError(str(error)) from error
    return kind


def _encode(context: Context, job: Job, records: list[ShardRecord]) -> tuple[float, int]:
    """The vectors of all images that are not there yet; images/s, and how many images."""
    done = {kind: finished_files(job.of(kind)) for kind in job.spec.descriptors}
    missing = [(record, tuple(kind for kind in done if stem(record.name) not in done[kind])) for record in records]
    todo = [(record, kinds) for record, kinds in missing if kinds]
    total, left = sum(record.rows for record in records), sum(record.rows for record, _ in todo)
    seen, began = total - left, time.perf_counter()
    with context.console.progress(context.output.stage, total, "images", seen) as progress:
        for rows, num_bytes in context.compute.map(partial(encode, job), todo):
            seen += rows
            if seen == total - left + rows:  # the first, whose size tells the others'
                require_room(context.folder, "the rest of the encoded images", (total - seen) / rows * num_bytes)
            progress.update(seen)
    return left / (time.perf_counter() - began), left


def encode(job: Job, work: tuple[ShardRecord, tuple[str, ...]]) -> tuple[int, int]:
    """A task: the vectors of a shard's images, a file for each of some kinds of descriptor; how many images, bytes."""
    record, kinds = work
    rows, num_bytes = read_shard(job.shards, record), 0
    for kind in kinds:
        described = encoding.dense(kind, job.spec, job.size_px)
        vocabulary = encoding.load(job.of(kind), job.spec)
        vectors = encoding.encoded(rows, described, vocabulary, job.spec.grids)
        num_bytes += write_features(job.of(kind), record, rows, vectors, "float16").bytes
    return len(rows), num_bytes


def _courses(context: Context, job: Job, train: list[ShardRecord], num_classes: int) -> dict[str, Course]:
    """By kind of descriptor."""
    kinds = job.spec.descriptors
    num_cpus = context.compute.resources().cpus_each(len(kinds), use_gpu=False)
    done = {kind: finished_files(job.of(kind)) for kind in kinds}
    files = {kind: tuple(done[kind][stem(record.name)] for record in train) for kind in kinds}
    return {kind: Course(job.of(kind), files[kind], job.spec, num_classes, num_cpus) for kind in kinds}


def _train(context: Context, courses: dict[str, Course]) -> None:
    """All passes of all classifiers that are not done, side by side."""
    phases: tuple[linear.Phase, ...] = ("choosing", "classifier")
    passes = {(phase, kind): linear.passes_done(course, phase) for phase in phases for kind, course in courses.items()}
    wanted = next(iter(courses.values())).spec.passes
    seen, total = sum(passes.values()), wanted * len(passes)
    with context.console.progress(context.output.stage, total, "passes", seen) as progress:
        for phase in phases:
            for number in range(wanted):
                todo = [course for kind, course in courses.items() if passes[phase, kind] <= number]
                for _ in context.compute.map(partial(linear.one_pass, phase), todo, num_cpus=_cpus(courses)):
                    seen += 1
                    progress.update(seen)
            if phase == "choosing":
                todo = [course for course in courses.values() if course.folder.size(linear.CHOSEN) is None]
                for _ in context.compute.map(linear.choose, todo, num_cpus=_cpus(courses)):
                    pass


def _cpus(courses: dict[str, Course]) -> int:
    return next(iter(courses.values())).num_cpus


def _judge(context: Context, job: Job, courses: dict[str, Course], tested: list[ShardRecord]) -> list[Part]:
    """Of each tested shard what the classifiers say together."""
    done = {kind: finished_files(job.of(kind)) for kind in courses}
    works = [{kind: done[kind][stem(record.name)] for kind in courses} for record in tested]
    return list(context.compute.map(partial(judge, courses), works, num_cpus=_cpus(courses)))


def judge(courses: dict[str, Course], files: dict[str, FeatureFile]) -> Part:
    """A task: probabilities of all classes for the images of a shard, averaged over the kinds of descriptor."""
    import torch

    of_kinds = []
    for kind, file in files.items():
        torch.set_num_threads(courses[kind].num_cpus)
        classifier = linear.load(courses[kind], "classifier")
        rows = list(linear.rows_of(courses[kind], file))
        found = [classifier.probabilities(torch.tensor(part.features_NU).float())[0] for part in rows]
        of_kinds.append(torch.cat(found))
    probabilities_MNK = torch.stack(of_kinds)
    labels_N = torch.from_numpy(np.concatenate([part.labels_N for part in rows]))
    mean_NK = probabilities_MNK.mean(0)
    best = mean_NK.topk(min(TOP, mean_NK.shape[1]))
    together, each = TopK(), ensemble.Votes(len(files))
    together.update(mean_NK, labels_N)
    each.update(probabilities_MNK, labels_N)
    ids_N = np.concatenate([part.ids_N for part in rows])
    keys = [key for part in rows for key in part.keys]
    kept_N1K = mean_NK[:, None].half().numpy()
    return Part(ids_N, labels_N.numpy(), best.indices.numpy(), best.values.numpy(), kept_N1K, keys, together, each)


def _errors(split: str, results: list[Part], courses: dict[str, Course]) -> dict:
    """Fractions, of all classifiers together, and of each with how it was trained."""
    together = reduce(TopK.merge, (part.centre for part in results))
    of_each = ensemble.errors([part.viewed for part in results], list(courses))["models"]
    for model, course in zip(of_each, courses.values(), strict=True):
        model |= {"values": course.files[0].num_features, **asdict(linear.chosen(course))}
    errors = {"top1_error": together.top1_error, "top5_error": together.top5_error}
    return {"split": split, "num_images": together.num_images, **errors, "models": of_each}


def _bytes_each(courses: dict[str, Course]) -> float:
    """Of an image, encoded in all kinds: what the disk had to hold while the classifiers were trained."""
    files = [course.files for course in courses.values()]
    return sum(sum(file.bytes for file in each) / sum(file.rows for file in each) for each in files)


def _summary(errors: dict, courses: dict[str, Course], images_per_s: float, units: int) -> dict:
    each = ", ".join(f"{model['model']} {model['top1_error']:.2%}" for model in errors["models"])
    several = f" ({each})" if len(courses) > 1 else ""
    top1, top5 = errors["top1_error"], errors["top5_error"]
    plain = {name: value for name, value in errors.items() if name != "models"}
    return {
        "result": f"{errors['split']}: top-1 error {top1:.2%}{several}, top-5 {top5:.2%}",
        "metrics": {**plain, "mean_images_per_s": images_per_s, "encoded_bytes_per_image": _bytes_each(courses)},
        "units": units,
        "files": (ERRORS, PREDICTIONS, PROBABILITIES, *(f"{kind}/{name}" for kind in courses for name in KEPT)),
        "made_with": {"device": "cpu", "cpus_per_task": _cpus(courses)},
    }
