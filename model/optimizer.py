"""The paper's update: v <- momentum * v - rate * decay * w - rate * gradient; w <- w + v.

The velocity contains the rate, so that after a drop it still carries the old one. `torch.optim.SGD` keeps v / -rate
instead, which is the same while the rate is constant; scaling its buffer when the rate changes makes the two equal, and
keeps PyTorch's fused update.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from model.schedules import GROUPS, Rates
from model.specs import TrainSpec


class Momentum(torch.optim.SGD):
    """SGD with momentum over the four groups of parameters that have rates of their own; a rate of 0 freezes a group.

    With `found_inf` (a tensor, 1.0: leave the weights) the decision not to update needs no word from the host.
    """

    def __init__(self, named_parameters: Iterable[tuple[str, Tensor]], spec: TrainSpec):
        named = list(named_parameters)
        groups = [
            {
                "params": [parameter for name, parameter in named if group_of(name) == group],
                "weight_decay": 0.0 if "biases" in group and spec.biases == "as_run" else spec.weight_decay,
            }
            for group in GROUPS
        ]
        super().__init__(groups, lr=spec.lr, momentum=spec.momentum, fused=True)
        self.velocity_has_rate = spec.optimizer == "paper"

    @torch.no_grad()
    def update(self, rates: Rates, found_inf: Tensor | None = None) -> None:
        for group, rate in zip(self.param_groups, rates, strict=True):
            if rate == 0:
                for parameter in group["params"]:
                    parameter.grad = None  # which SGD skips: no momentum, no decay
                continue
            if self.velocity_has_rate and rate != group["lr"]:
                for parameter in group["params"]:
                    if "momentum_buffer" in self.state[parameter]:
                        self.state[parameter]["momentum_buffer"] *= group["lr"] / rate
            group["lr"] = rate
        self.found_inf = found_inf
        self.step()


def group_of(name: str) -> str:
    """The group of a parameter, from its name in the network."""
    kind = "weights" if name.endswith("weight") else "biases"
    return f"conv1_{kind}" if name.startswith("conv1.") else kind
