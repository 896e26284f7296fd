"""The paper's update: v <- momentum * v - rate * (decay * w + gradient); w <- w + v.

The velocity contains the rate, so that after a drop it still carries the old one. `optimizer=torch` keeps it without:
v <- momentum * v + decay * w + gradient; w <- w - rate * v, as `torch.optim.SGD` does.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from model.flat import Flat
from model.notation import parse_values, value_at
from model.specs import TrainSpec

_PART_VALUES = 2**18  # of float32 1 MiB: three of them stay in the cache of a CPU from the first line to the last


class Momentum:
    """Updates flat parameters, each with its own rate, and clears their gradients; a rate of 0 freezes."""

    def __init__(self, flat: Flat, spec: TrainSpec):
        self.flat, self.spec = flat, spec
        self.decays = {name: decay_of(spec, name) for name in flat.places}

    @torch.no_grad()
    def update(self, rates: Mapping[str, float], skip: Tensor | None = None) -> None:
        """One step, with the rate of each parameter by its name.

        Where `skip` (a bool on the device) is true the weights stay, without a word from the host.
        """
        flat = self.flat
        assert flat.is_whole(), "the network was moved, or its gradients were dropped"
        for name, place in flat.places.items():
            if rate := rates[name]:
                parts = (flat.weights[place], flat.velocity[place], flat.gradient(name))
                size = _PART_VALUES if flat.weights.device.type == "cpu" else parts[0].numel()
                for weights, velocity, gradient in zip(*(part.split(size) for part in parts), strict=True):
                    self._move(weights, velocity, gradient, rate, self.decays[name], skip)
        flat.clear_gradients()

    def _move(
        self, weights: Tensor, velocity: Tensor, gradient: Tensor, rate: float, decay: float, skip: Tensor | None
    ) -> None:
        in_velocity, in_weights = (-rate, 1.0) if self.spec.optimizer == "paper" else (1.0, -rate)
        velocity.mul_(self.spec.momentum).add_(weights, alpha=in_velocity * decay).add_(gradient, alpha=in_velocity)
        if skip is not None:
            velocity.masked_fill_(skip, 0)
        weights.add_(velocity, alpha=in_weights)


def decay_of(spec: TrainSpec, parameter: str) -> float:
    """The weight decay of a parameter ("conv1.weight")."""
    own = value_at(parse_values(spec.decays, "train.decays"), parameter, epoch=1)
    return spec.weight_decay if own is None else own
