"""Train: one column of the network on each Ray Train worker, or both on one GPU; batches from DALI.

The workers write checkpoints and models; the driver alone writes the history and MLflow.
"""

import time
from dataclasses import replace
from typing import Any

from model.export import CARD, WEIGHTS, starting_weights
from model.networks import NetSpec, num_params, tensor_shapes
from model.schedules import light_of
from model.specs import TrainSpec
from pipelines.manifest import Manifest
from pipelines.names import VAL
from pipelines.statistics import Statistics
from pipelines.storage import Folder
from workflows.compute import devices, machine
from workflows.compute.workers import Resources, WorkerPlan
from workflows.config import UsageError, require_classes, require_columns, require_room, require_validation
from workflows.engine.outputs import places
from workflows.engine.stage import Context
from workflows.engine.starts import model_folder
from workflows.folders import MODELS
from workflows.stages.ingest import log_dataset
from workflows.tracking.headline import ALIASES, hardware, model_name
from workflows.training.history import HISTORY, History, as_metrics
from workflows.training.loop import TrainJob, loop


def run(context: Context) -> dict:
    """Writes `checkpoints/`, `history.jsonl`, `model/` (last weights) and `best/` (lowest validation error)."""
    config, shards = context.config, context.inputs["ingest"].folder
    manifest = Manifest.load(shards)
    net = network_for(config.net, manifest)
    require_validation(config.train, manifest.num_rows(VAL))
    start, name = None, config.train.init_from
    if name:
        start = model_folder(f"train.init_from={name}", name, config, places(config, context.root))
        require_start(config.train, start, net, manifest)
    have = devices.usable(config.train.device, context.compute.resources(), devices.torch_cuda())
    plan, columns_per_rank = place(net, config.train, have)
    statistics = Statistics.load(context.inputs["stats"].folder)
    job = TrainJob(
        net=net,
        train=config.train,
        loader=config.loader,
        shards=shards,
        folder=context.folder,
        columns_per_rank=columns_per_rank,
        mean_HWC=statistics.mean_image_HWC.astype("float32"),
        eigenvalues=statistics.eigenvalues,
        eigenvectors=statistics.eigenvectors,
        light=light_of(config.train),
        start=start,
    )
    log_dataset(context, manifest, shards, "training")
    context.run.tags(hardware(plan.use_gpu) | {"world_size": plan.world})
    history = History(context.folder)
    began = time.perf_counter()
    result, start_epoch = _train(context, job, plan, history, manifest.num_rows("train"))
    seconds = time.perf_counter() - began
    log_models(context, manifest)
    seen = round((config.train.epochs - start_epoch) * manifest.num_rows("train"))
    return _summary(job, plan, result, seen, seconds)


def network_for(net: NetSpec, manifest: Manifest) -> NetSpec:
    """The network with as many classes as the data set has, and an input that fits the stored squares.

    Raises:
        UsageError: `net.num_classes` or `net.input_px` does not fit what is stored.
    """
    require_classes(net, manifest.num_classes)
    require_room(net, manifest.size_px)
    return replace(net, num_classes=manifest.num_classes)


def require_start(train: TrainSpec, start: Folder, net: NetSpec, manifest: Manifest) -> None:
    """UsageError where the network cannot start from the weights of `train.init_from`."""
    try:
        with start.as_local(CARD, WEIGHTS) as folder:
            starting_weights(folder, tensor_shapes(net), manifest.class_names, train.init_layers)
    except ValueError as error:
        raise UsageError(str(error)) from error


def place(net: NetSpec, train: TrainSpec, have: Resources) -> tuple[WorkerPlan, int]:
    """How many workers train, on what, and how many columns each holds. `auto`: a column a device where they suffice.

    Raises:
        UsageError: `train.placement`, `train.replicas` or `train.precision` asks for what is not there.
    """
    require_columns(net, train)
    use_gpu = have.gpus > 0
    devices.require_precision(train.precision, have, "use float32")
    num_devices = have.num_places(1, use_gpu)
    can_split = net.columns == 2 and num_devices >= 2 * train.replicas
    split = can_split if train.placement == "auto" else train.placement == "columns"
    world = train.replicas * (2 if split else 1)
    if world > num_devices:
        what = "GPUs" if use_gpu else "CPUs"
        raise UsageError(
            f"train.replicas={train.replicas} with train.placement={train.placement} wants {world} {what}; "
            f"there are {have.gpus} GPUs and {have.cpus} CPUs: lower train.replicas or set train.placement=one"
        )
    backend = "" if world == 1 else "nccl" if use_gpu else "gloo"
    environment = {} if use_gpu else machine.KEEP_FREED_MEMORY
    plan = WorkerPlan(world, have.cpus_each(world, use_gpu), use_gpu, backend, environment=environment)
    return plan, 1 if split else net.columns


def _train(
    context: Context, job: TrainJob, plan: WorkerPlan, history: History, images: int
) -> tuple[dict[str, Any], float]:
    """The loop's result, and the epoch that this attempt went on from."""
    for point in history.points:
        context.run.metrics(as_metrics(point), step=point["step"])
    warned, reports = False, 0
    starts: list[float] = []  # the epochs from which the workers went on
    deaths: list[str] = []
    epochs = job.train.epochs
    done = history.points[-1]["epoch"] * images if history.points else 0
    with context.console.progress("train", round(images * epochs), "images", round(done)) as progress:

        def on_report(report: dict[str, Any]) -> None:
            nonlocal reports
            if "resumed_epoch" in report:  # workers start; where others died before, from their checkpoint
                reports = 0
                if starts:
                    who = deaths[-1] if deaths else "a worker"
                    context.console.say(f"  {who} died; going on from step {report['resumed_step']}")
                starts.append(report["resumed_epoch"])
            reports += 1
            for text in report.get("warnings", ()):
                context.console.say(f"  warning: {text}")
            for one in report.get("earlier", [report]):  # those before a checkpoint that training goes on from
                take(one)

        def take(report: dict[str, Any]) -> None:
            nonlocal warned
            if report.get("warning") and not warned:
                warned = True
                context.console.say(f"  warning: {report['warning']}")
            point = history.add(report)
            if point is None:
                return
            context.run.metrics(as_metrics(point), step=point["step"])
            progress.update(round(point["epoch"] * images), _note(point))
            if point["kind"] == "epoch":
                context.console.say(_line(point, epochs))

        def on_death(who: str) -> None:
            deaths.append(who)
            context.run.tags({"alexnet.restarts": len(deaths), "alexnet.deaths": ", ".join(deaths)})

        result = context.compute.train(loop, job, plan, on_report, on_death)
    require_every_report(reports, result.pop("reports"))
    return result, starts[0]


def require_every_report(arrived: int, sent: int) -> None:
    """RuntimeError where the curves would lack what the workers, since they last started, have reported."""
    if arrived != sent:
        raise RuntimeError(f"training reported {sent} times, and {arrived} arrived: run it again, its end is stored")


def _note(point: dict[str, Any]) -> str:
    return f"loss {point['loss']:.3f}" if point["kind"] == "step" else ""


def _line(point: dict[str, Any], epochs: float) -> str:
    val = f", val top-1 error {point['val_top1_error']:.1%}" if "val_top1_error" in point else ""
    loss = f"loss {point['epoch_loss']:.3f}" if "epoch_loss" in point else ""
    return f"  epoch {point['epoch']:.4g}/{epochs:g}: {loss}{val}; {point['verdict']}"


def log_models(context: Context, manifest: Manifest) -> None:
    """The exported models, as artifacts and in the registry."""
    for weights, alias in ALIASES.items():
        with context.folder.child(MODELS[weights]).as_local() as folder:
            facts = {"manifest": manifest.digest, "key": context.output.key, "net.kind": context.config.net.kind}
            context.run.model(folder, model_name(context.config), alias, facts)
    context.log_files(HISTORY)


def _summary(job: TrainJob, plan: WorkerPlan, result: dict, seen: int, seconds: float) -> dict:
    """`seen`: images that went through the network in these seconds, not in attempts before."""
    parameters = num_params(job.net)
    val, precision = result.get("val_top1_error"), result.pop("precision")
    error = "no validation images" if val is None else f"val top-1 error {val:.1%}"
    return {
        "result": f"{error} after {job.train.epochs:g} epochs, {parameters:,} parameters",
        "metrics": {
            **{f"final_{name}": value for name, value in result.items() if value is not None},
            "parameters": parameters,
            "mean_images_per_s": seen / seconds,
        },
        "units": seen,
        "files": tuple(f"{folder}/{name}" for folder in MODELS.values() for name in (WEIGHTS, CARD)),
        "other_files": (HISTORY,),
        "made_with": {
            "device": "cuda" if plan.use_gpu else "cpu",
            "workers": plan.world,
            "replicas": job.train.replicas,
            "columns_per_worker": job.columns_per_rank,
            "precision": precision,
            "backend": plan.backend or "none",
        },
    }
