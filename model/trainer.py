"""The trainer: takes batches, makes updates, and can be stopped, saved and continued anywhere with the same numbers.

It neither loads data nor writes files. Every rank of a run owns one and calls the same methods in the same order.
"""

import math

import numpy as np
import torch
from torch import Tensor

from model.columns import OneColumn, OneProcess, Replicas
from model.flat import Flat
from model.metrics import TopK
from model.networks import NetSpec, build
from model.optimizer import Momentum
from model.schedules import Schedule
from model.specs import TrainSpec
from model.step import backward, evaluate, resolved, set_arithmetic


class NonFiniteLoss(ValueError):
    """The loss is no number any more; the weights are those before that step."""


class Trainer:
    """Trains a network, or one column of it, on its replica's part of each batch.

    Args:
        mean_HWC: mean image of the training set (0..255), of the network's input size or larger.
        steps_per_epoch: global batches of an epoch.
        columns, replicas: where this rank stands (`columns.place_ranks`); by default everything is here.
    """

    def __init__(
        self,
        net_spec: NetSpec,
        spec: TrainSpec,
        mean_HWC: np.ndarray,
        steps_per_epoch: int,
        *,
        columns: OneProcess | OneColumn | None = None,
        replicas: Replicas | None = None,
        device: torch.device | str = "cpu",
    ):
        self.spec, self.steps_per_epoch = spec, steps_per_epoch
        self.device = torch.device(device)
        self.replicas = replicas or Replicas()
        self.net = build(net_spec, columns, seed=spec.seed)
        self.net.set_mean(mean_HWC)
        self.net.to(self.device)
        self.precision = resolved(spec.precision, self.device)
        set_arithmetic(self.device, self.precision)
        self.schedule = Schedule(spec, steps_per_epoch, net_spec.num_classes)
        self.sums = torch.zeros(3, dtype=torch.float64, device=self.device)  # loss, wrong, images since last asked
        # A GPU shall find gradients where they were in the step before; on a CPU adding to them would cost a pass more.
        in_place = self.replicas.count > 1 or self.device.type != "cpu"
        trained = [(name, p) for name, p in self.net.named.named_parameters() if p.requires_grad]
        self.flat = Flat(trained, in_place, more=len(self.sums))
        self.running = [
            b for b in self.net.named.buffers() if b is not self.net.mean
        ]  # what layers average in training
        self.optimizer = Momentum(self.flat, spec)
        self.step = 0  # updates made
        self.counter = torch.zeros((), dtype=torch.int64, device=self.device)  # the same, where no host is asked
        self.bad_step = torch.full_like(self.counter, -1)  # the first step with a loss that is no number

    @property
    def lr(self) -> float:
        """Rate of the last layer's weights in the last step, or the first."""
        weights = [name for name in self.flat.places if name.endswith("weight")] or list(self.flat.places)
        return self.schedule.rate(max(0, self.step - 1), weights[-1])

    def train_step(
        self,
        images_BCHW: Tensor,
        labels_B: Tensor,
        shift_B3: Tensor | None = None,
        *,
        batch_size: int | None = None,
        first_row: int | None = None,
    ) -> None:
        """One update from this replica's rows of a global batch of `batch_size`, from `first_row` on.

        With one replica both have their obvious values. Reads nothing back from a GPU; see `metrics`.

        Args:
            images_BCHW: 0..255, float or uint8.
            shift_B3: What lighting adds to their colours.
        """
        assert self.replicas.count == 1 or (batch_size is not None and first_row is not None), "whose rows are these?"
        self.net.train()
        self.net.at(self.step, first_row or 0, self.counter)
        rates = {name: self.schedule.rate(self.step, name) for name in self.flat.places}
        for name, parameter in self.flat.parameters.items():
            parameter.requires_grad_(rates[name] != 0)  # a frozen layer's gradient, and those below it, are no work
        sums = torch.zeros_like(self.sums)
        if len(labels_B):  # a last batch may be too short for every replica
            images_BCHW, labels_B = (t.to(self.device, non_blocking=True) for t in (images_BCHW, labels_B))
            shift_B3 = None if shift_B3 is None else shift_B3.to(self.device, non_blocking=True)
            sums += backward(self.net, images_BCHW, labels_B, shift_B3, batch_size, self.precision)
        sums = self._sum_over_replicas(sums)
        for average in self.running:  # each replica has seen its own rows
            self.replicas.take_first(average)
        bad = ~torch.isfinite(sums[0])
        self.bad_step = torch.where(bad & (self.bad_step < 0), self.counter, self.bad_step)
        on_gpu = self.device.type != "cpu"
        if not on_gpu:
            self._check_finite()
        self.optimizer.update(rates, skip=self.bad_step >= 0 if on_gpu else None)
        self.sums += sums
        self.step += 1
        self.counter += 1

    def _sum_over_replicas(self, sums: Tensor) -> Tensor:
        """Sums the gradients, in place, and the step's sums."""
        if self.replicas.count == 1:
            return sums
        self.flat.more.copy_(sums)
        self.replicas.sum(self.flat.gradients_and_more)
        return self.flat.more.double()

    def _check_finite(self) -> None:
        bad_step = int(self.bad_step)
        if bad_step >= 0:
            epoch, batch = divmod(bad_step, self.steps_per_epoch)
            raise NonFiniteLoss(
                f"the loss is no longer a number at step {bad_step} (epoch {epoch}, batch {batch}); the weights were "
                f"left as they stood: try a lower train.lr than {self.spec.lr}, and look at that batch"
            )

    def metrics(self) -> dict[str, float]:
        """Mean loss and error of the steps since last asked (over all replicas), in train mode."""
        self._check_finite()
        loss, wrong, images = self.sums.tolist()
        self.sums.zero_()
        images = max(images, 1)
        return {"loss": loss / images, "top1_error": wrong / images, "lr": self.lr}

    def stalled(self, loss: float) -> str | None:
        """What to try when the loss still says nothing but the number of classes, after `stall_steps`."""
        flat = math.log(self.net.spec.num_classes)
        if not 0 < self.spec.stall_steps <= self.step or abs(loss - flat) > 0.01 * flat:
            return None
        return (
            f"after {self.step} steps the loss is {loss:.3f}, that of guessing (ln {self.net.spec.num_classes} = "
            f"{flat:.3f}): try larger initial weights (of AlexNet net.middle_std=0.03), another train.seed, or a "
            f"higher train.lr than {self.spec.lr}"
        )

    def evaluate(self, batches) -> TopK:
        """Errors over all replicas' batches of (images, labels); both columns of a replica get the same ones."""
        top = evaluate(self.net, batches, self.precision)
        sums = torch.tensor([top.right_at_1, top.right_at_5, top.num_images], dtype=torch.float64, device=self.device)
        right_at_1, right_at_5, num_images = self.replicas.sum(sums).tolist()
        return TopK(right_at_1, right_at_5, round(num_images))

    def end_epoch(self, val_error: float) -> None:
        """Tells the schedule the validation error, the same on every rank."""
        self.schedule.end_epoch(val_error)

    def weights(self) -> dict[str, Tensor]:
        """The network's parameters and averages, both columns merged, on the host; every rank must call it."""
        return self._on_host(dict(self.net.named.state_dict()))

    def state_dict(self) -> tuple[dict[str, Tensor], dict]:
        """Tensors and scalars of a checkpoint, the same for any placement; every rank of a replica must call it."""
        self._check_finite()
        velocity = self._on_host({name: self.flat.view(self.flat.velocity, name) for name in self.flat.places})
        tensors = {f"net/{name}": tensor for name, tensor in self.weights().items()}
        tensors |= {f"velocity/{name}": tensor for name, tensor in velocity.items()}
        scalars = {"step": self.step, "schedule": self.schedule.state(), "sums": self.sums.tolist()}
        return tensors, scalars | {"precision": self.precision}

    def load_state_dict(self, tensors: dict[str, Tensor], scalars: dict) -> None:
        """Continues from a checkpoint, whatever placement wrote it.

        Raises:
            ValueError: It was written where `train.precision=auto` was another than here.
        """
        if (was := scalars.get("precision", self.precision)) != self.precision:
            raise ValueError(
                f"the checkpoint was computed in {was}, and train.precision=auto is {self.precision} here: go on where "
                "it began, or start another training with a precision of your own"
            )
        self.load_weights({name.removeprefix("net/"): t for name, t in tensors.items() if name.startswith("net/")})
        for name in self.flat.places:
            self.flat.view(self.flat.velocity, name).copy_(self.net.part(name, tensors[f"velocity/{name}"]))
        self.step = scalars["step"]
        self.counter.fill_(self.step)
        self.sums = torch.tensor(scalars["sums"], dtype=self.sums.dtype, device=self.device)
        self.schedule.load_state(scalars["schedule"])

    @torch.no_grad()
    def load_weights(self, weights: dict[str, Tensor]) -> None:
        """Takes merged parameters by name; one that is not among them stays."""
        for name, tensor in self.net.named.state_dict().items():
            if name in weights:
                tensor.copy_(self.net.part(name, weights[name]))

    def _on_host(self, parts: dict[str, Tensor]) -> dict[str, Tensor]:
        """Copies of what all columns together hold, which nobody changes while they are written."""
        merged = {name: self.net.merge(name, tensor.detach()) for name, tensor in parts.items()}
        if self.device.type == "cpu":
            return merged
        pinned = {name: torch.empty_like(t, device="cpu", pin_memory=True) for name, t in merged.items()}
        for name, tensor in merged.items():
            pinned[name].copy_(tensor, non_blocking=True)
        torch.cuda.current_stream(self.device).synchronize()
        return pinned
