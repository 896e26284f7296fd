"""The training loop of one worker: batches in, updates, reports and checkpoints out; the same on Ray and in process.

Stopped anywhere and started again with the same job, it goes on from the newest checkpoint with the same numbers.
"""

import math
import os
import time
import warnings
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from model import export
from model.columns import OneColumn, OneProcess, Replicas, place_ranks
from model.networks import NetSpec, tensor_shapes
from model.specs import TrainSpec
from model.trainer import Trainer
from pipelines.augment import Light
from pipelines.batches import Batch
from pipelines.evaluation import batch_slices, eval_batches
from pipelines.loader import TrainLoader
from pipelines.manifest import Manifest
from pipelines.names import VAL
from pipelines.order import share
from pipelines.specs import LoaderSpec
from pipelines.storage import Folder
from pipelines.timings import verdict
from workflows.compute.workers import Worker
from workflows.folders import CHECKPOINTS, MODELS
from workflows.training import checkpoints, memory
from workflows.training.pace import Pace

REPORTS_PER_EPOCH = 10
REPORTS_KEPT = 3 * REPORTS_PER_EPOCH  # in a checkpoint, for a driver that was killed before it had them
Pixels = tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]  # images, labels, and what lighting adds


@dataclass(frozen=True)
class TrainJob:
    """All that a worker is told. `mean_HWC`, eigenvalues and eigenvectors are of the training set, on 0..255."""

    net: NetSpec
    train: TrainSpec
    loader: LoaderSpec
    shards: Folder
    folder: Folder
    columns_per_rank: int
    mean_HWC: np.ndarray
    eigenvalues: np.ndarray
    eigenvectors: np.ndarray
    light: Light = ()  # of the schedule, as the loader takes it
    start: Folder | None = None  # of `train.init_from`


def loop(job: TrainJob, worker: Worker) -> dict[str, Any]:
    """Trains until the last epoch is done; returns the last and the best validation error."""
    if worker.device == "cuda" and not torch.cuda.is_available():
        what = f"torch {torch.__version__} on {os.uname().nodename} finds no GPU"
        raise ValueError(f"{what}: `alexnet doctor` there says why, or set train.device=cpu")
    torch.set_num_threads(worker.num_cpus)
    training = _Training(job, worker)
    training.resume()
    while training.trainer.step < training.num_steps:
        training.run_epoch()
    return training.result()


class _Training:
    """A worker's trainer, loader and progress."""

    def __init__(self, job: TrainJob, worker: Worker):
        self.job, self.worker = job, worker
        self.manifest = Manifest.load(job.shards)
        columns, self.replicas = _places(job, worker)
        self.sharing = columns if isinstance(columns, OneColumn) else None  # each of the two decodes half a batch
        self.loader = self._loader()
        self.trainer = Trainer(
            job.net,
            job.train,
            job.mean_HWC,
            self.loader.steps_per_epoch,
            columns=columns,
            replicas=self.replicas,
            device=worker.device,
        )
        self.has_val = self.manifest.num_rows(VAL) > 0
        self.best: dict[str, Any] = {"top1_error": None, "epoch": 0}
        self.last: dict[str, float] = {}
        self.reports: deque[dict[str, Any]] = deque(maxlen=REPORTS_KEPT)
        self.num_sent = 0
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoints")
        self._writing: Future[None] | None = None

    @property
    def epoch(self) -> float:
        """Epochs done; whole but in the middle of one, or at the end of a run that ends there."""
        epoch, steps = divmod(self.trainer.step, self.loader.steps_per_epoch)
        return epoch + steps / self.loader.steps_per_epoch if steps else epoch

    @property
    def num_steps(self) -> int:
        return self.trainer.schedule.num_steps

    def resume(self) -> None:
        """From the newest whole checkpoint, else from given weights, else from the seed's."""
        with warnings.catch_warnings(record=True) as passed_over:  # a worker's own words reach nobody
            warnings.simplefilter("always")
            found = checkpoints.newest(self.job.folder.child(CHECKPOINTS))
        step = found.step if found else 0
        if _differs_among_ranks(step, self.worker):
            raise ValueError(
                f"the workers see different checkpoints in {self.job.folder.where()}: on several machines it must be a "
                "shared folder or object store; name one with --set store="
            )
        if found:
            self.loader.check_fingerprint(found.scalars["loader"])
            self.trainer.load_state_dict(found.tensors, found.scalars["trainer"])
            self.best, self.last = found.scalars["best"], found.scalars["last"]
            self.reports.extend(found.scalars["reports"])
        elif self.job.start:
            with self.job.start.as_local(export.CARD, export.WEIGHTS) as folder:
                shapes, names = tensor_shapes(self.job.net), self.manifest.class_names
                self.trainer.load_weights(export.starting_weights(folder, shapes, names, self.job.train.init_layers))
        self.pace = Pace(self.job.train, step, partial(_of_first, self.worker))
        self._send(
            {
                "resumed_step": step,
                "resumed_epoch": step / self.loader.steps_per_epoch,
                "earlier": list(self.reports),
                "warnings": [str(warning.message) for warning in passed_over],
            }
        )

    def run_epoch(self) -> None:
        """The rest of the epoch, its validation, its checkpoint."""
        epoch, first = divmod(self.trainer.step, self.loader.steps_per_epoch)
        every = max(1, self.loader.steps_per_epoch // REPORTS_PER_EPOCH)
        self.trainer.net.input_scale = self.loader.input_scale(epoch)
        began, images = time.perf_counter(), 0
        for batch, size, row in self._batches(epoch, first):
            fits = True
            try:
                self.trainer.train_step(*batch, batch_size=size, first_row=row)
            except torch.OutOfMemoryError:
                fits = False
            if not fits:
                raise memory.told(self.trainer, batch[0], batch[1], size)
            images += size
            step = self.trainer.step
            is_last = step % self.loader.steps_per_epoch == 0 or step == self.num_steps
            if step % every == 0 or is_last:
                metrics = self.trainer.metrics()  # waits for the GPU, so that the clock tells the truth
                began, before = time.perf_counter(), began
                self._report_step(metrics, images / (began - before))
                images = 0
            if not is_last and self.pace.is_due(step):
                self._checkpoint()
            if is_last:
                break
        self._end_epoch()

    def result(self) -> dict[str, Any]:
        """What the stage says of the training, and how many reports it must have."""
        best = {"best_epoch": self.best["epoch"], "best_top1_error": self.best["top1_error"]}
        return {**self.last, **best, "reports": self.num_sent, "precision": self.trainer.precision}

    def _send(self, report: dict[str, Any]) -> None:
        self.worker.report(report)
        self.num_sent += 1

    def _batches(self, epoch: int, first: int) -> Iterator[tuple[Pixels, int, int]]:
        """This replica's images, labels and shifts; the size of the global batch, and its first row that is ours."""
        rows, size = self.manifest.num_rows("train"), self.job.train.batch_size
        for number, batch in enumerate(self.loader.epoch(epoch, first), first):
            whole = min(size, rows - number * size)
            start, stop = share(0, whole, self.replicas.index, self.replicas.count)
            yield self._shared(batch, stop - start), whole, start

    def _shared(self, batch: Batch, size: int) -> Pixels:
        """The whole batch of this many images, of which a column of two has decoded its half."""
        mine = batch.crops_BCHW, batch.labels_B, batch.shift_B3
        return self.sharing.share_batch(*mine, batch_size=size) if self.sharing else mine

    def _report_step(self, metrics: dict[str, float], images_per_s: float) -> None:
        warning = self.trainer.stalled(metrics["loss"])
        report = {
            "kind": "step",
            "step": self.trainer.step,
            "epoch": self.trainer.step / self.loader.steps_per_epoch,
            **metrics,
            "images_per_s": images_per_s,
            **({"warning": warning} if warning else {}),
        }
        self.reports.append(report)
        self._send(report)

    def _end_epoch(self) -> None:
        report = {"kind": "epoch", "step": self.trainer.step, "epoch": self.epoch}
        if self.has_val:
            top = self.trainer.evaluate(self._val_batches())
            assert top.num_images == self.manifest.num_rows(VAL), "validation missed images"
            self.last = {"val_top1_error": top.top1_error, "val_top5_error": top.top5_error}
            self.trainer.end_epoch(top.top1_error)
        is_best = (
            not self.has_val or self.best["top1_error"] is None or self.last["val_top1_error"] < self.best["top1_error"]
        )
        if is_best:
            self.best = {"top1_error": self.last.get("val_top1_error"), "epoch": self.epoch}
        self._export(["last"] * (self.trainer.step == self.num_steps) + ["best"] * is_best)
        report |= {**self.last, "verdict": verdict(self.loader.timings, self.manifest.encoding)}
        self.reports.append(report)
        self._checkpoint()
        self._await_writer()  # what is reported is stored
        self._send(report)

    def _checkpoint(self) -> None:
        """Of this step, written while training goes on; one at a time."""
        self._await_writer()
        tensors, scalars = self.trainer.state_dict()
        self.pace.begin(self.trainer.step)
        if self.worker.rank == 0:
            state = {"trainer": scalars, "loader": self.loader.fingerprint, "best": self.best, "last": self.last}
            state["reports"] = list(self.reports)
            keep = self.job.train.keep_checkpoints
            self._writing = self._writer.submit(
                checkpoints.save, self.job.folder.child(CHECKPOINTS), self.trainer.step, tensors, state, keep
            )

    def _await_writer(self) -> None:
        """Until the last checkpoint is whole; its error, if it failed."""
        if self._writing:
            self._writing.result()

    def _export(self, names: list[str]) -> None:
        if not names:
            return
        weights = self.trainer.weights()  # every rank takes part
        for name in names if self.worker.rank == 0 else ():
            save_model(
                self.job.folder.child(MODELS[name]),
                self.job.net,
                weights,
                self.trainer.net.mean,
                self.manifest,
                self._facts(),
            )

    def _facts(self) -> dict[str, Any]:
        return {
            "step": self.trainer.step,
            "epoch": self.epoch,
            "manifest": self.manifest.digest,
            "size_px": self.manifest.size_px,
            **self.last,
        }

    def _val_batches(self) -> Iterator[Pixels]:
        size = self.job.train.eval_batch_size
        batches = eval_batches(
            self.job.shards,
            self.manifest,
            VAL,
            crop_px=self.job.net.input_px,
            batch_size=size,
            worker=self.replicas.index,
            num_workers=self.replicas.count,
            part=self._part,
            num_parts=self._num_parts,
            threads=self.job.loader.threads or self.worker.num_cpus,
            device=self.worker.device,
        )
        rows = share(0, self.manifest.num_rows(VAL), self.replicas.index, self.replicas.count)
        for batch, (start, stop) in zip(batches, batch_slices(*rows, size), strict=True):
            yield self._shared(batch, stop - start)

    @property
    def _part(self) -> int:
        """Which part of each batch of its replica this worker decodes."""
        return self.sharing.column if self.sharing else 0

    @property
    def _num_parts(self) -> int:
        return 2 if self.sharing else 1

    def _loader(self) -> TrainLoader:
        from dataclasses import replace

        job = self.job
        return TrainLoader(
            job.shards,
            self.manifest,
            replace(job.loader, threads=job.loader.threads or self.worker.num_cpus),
            crop_px=job.net.input_px,
            batch_size=job.train.batch_size,
            light=job.light,
            epochs=math.ceil(job.train.epochs),
            eigenvalues=job.eigenvalues,
            eigenvectors=job.eigenvectors,
            replica=self.replicas.index,
            num_replicas=self.replicas.count,
            part=self._part,
            num_parts=self._num_parts,
            device=self.worker.device,
        )


def save_model(folder: Folder, spec: NetSpec, weights: dict, mean, manifest: Manifest, facts: dict) -> None:
    """Exports a network into any folder, through a disk where that is an object store."""
    import tempfile

    names: dict[str, Any] = {
        "class_names": manifest.class_names,
        "class_titles": manifest.class_titles,
        "provenance": facts,
    }
    if folder.is_local:
        export.save_exported(folder.local_path(), spec, weights, mean, **names)
        return
    with tempfile.TemporaryDirectory() as scratch:
        export.save_exported(Path(scratch), spec, weights, mean, **names)
        for name in (export.WEIGHTS, export.CARD):
            folder.write(name, (Path(scratch) / name).read_bytes())


def _places(job: TrainJob, worker: Worker) -> tuple[OneProcess | OneColumn, Replicas]:
    if worker.world == 1:
        return OneProcess(job.net.columns), Replicas()
    return place_ranks(job.net.columns, job.columns_per_rank, worker.rank, worker.world)


def _of_first(worker: Worker, number: int) -> int:
    """The first worker's number; all call it."""
    if worker.world == 1:
        return number
    import torch.distributed as dist

    told = torch.tensor(number, device=worker.device)
    dist.broadcast(told, 0)
    return int(told)


def _differs_among_ranks(step: int, worker: Worker) -> bool:
    if worker.world == 1:
        return False
    import torch.distributed as dist

    mine = torch.tensor([step, -step], device=worker.device)
    dist.all_reduce(mine, op=dist.ReduceOp.MAX)
    return int(mine[0]) != -int(mine[1])
