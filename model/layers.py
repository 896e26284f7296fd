"""What PyTorch lacks: response normalisation, mask-only dropout, reproducible initial weights.

Letters: B batch, C maps (channels), H, W, U units. A tensor may hold several columns side by side in C; nothing here
crosses from one column to the next.
"""

import hashlib
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.kernels.linear import linear as fast_linear
from model.kernels.response_norm import response_norm
from model.philox import bits
from model.shapes import Layer


def generator(device: torch.device | str, *key: int | str) -> torch.Generator:
    """A random generator that is a function of its key alone, so that nothing of it needs to be stored."""
    digest = hashlib.blake2b("/".join(map(str, key)).encode(), digest_size=8).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest, "little") >> 1)


def initial_weights(layer: Layer, seed: int) -> tuple[Tensor, Tensor]:
    """Weights ~ N(0, std) and constant biases of all columns together: the same numbers wherever the columns live."""
    weight = torch.empty(layer.weight_shape).normal_(0, layer.std, generator=generator("cpu", seed, layer.name))
    return weight, torch.full(layer.bias_shape, layer.bias)


def linear(x_BU: Tensor, weight_OU: Tensor, bias_O: Tensor) -> Tensor:
    """`F.linear`, by oneDNN where that is faster."""
    if x_BU.device.type == "cpu" and x_BU.dtype == torch.float32 and not torch.is_autocast_enabled("cpu"):
        return fast_linear(x_BU, weight_OU, bias_O)
    return F.linear(x_BU, weight_OU, bias_O)


class Dropout(nn.Module):
    """Zeroes half of the units and rescales nothing; at test time halves them all (the paper, section 4.2).

    `torch.nn.Dropout` doubles the others instead. Which units is a function of (seed, step, layer, row of the global
    batch, unit) alone: the same ones on any device and wherever columns and replicas live. Each pass in training is a
    step, and its rows are the first ones, unless `at` says otherwise.
    """

    def __init__(self, seed: int, layer: str, units: slice):
        super().__init__()
        digest = hashlib.blake2b(f"{seed}/{layer}".encode(), digest_size=8).digest()
        self.key = int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little")
        self.units = units
        self.step: int | Tensor = 0
        self.first_row = 0

    def at(self, step: int | Tensor, first_row: int) -> None:
        """The next pass is this step, on rows of the global batch from `first_row` on."""
        self.step, self.first_row = step, first_row

    def forward(self, x_BU: Tensor) -> Tensor:
        if not self.training:
            return x_BU * 0.5
        rows = slice(self.first_row, self.first_row + len(x_BU))
        step, self.step = self.step, self.step + 1
        return x_BU * bits(self.key, step, rows, self.units, x_BU.device)


class LRN(NamedTuple):
    """Response normalisation across maps: y_i = x_i * (k + alpha * sum of x_j^2 over the n maps around i) ^ -beta.

    `alpha` multiplies the sum, as in the paper; PyTorch and the 2012 code divide theirs by n first.
    """

    n: int = 5
    alpha: float = 1e-4
    beta: float = 0.75
    k: float = 2.0


def local_response_norm(x_BCHW: Tensor, columns: int, lrn: LRN) -> Tensor:
    """LRN within each column's maps; the window is cut at the column's ends. Works (and returns) channels last."""
    batch, channels, height, width = x_BCHW.shape
    rows = x_BCHW.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1).reshape(-1, channels // columns)
    return _normalise(rows, lrn).view(batch, height, width, channels).permute(0, 3, 1, 2)


SPATIAL_PX = 5
SPATIAL = LRN(n=SPATIAL_PX, alpha=1e-3 / SPATIAL_PX**2, k=1.0)


def spatial_norm(x_BCHW: Tensor, lrn: LRN = SPATIAL) -> Tensor:
    """Normalisation within each map, over n x n px with zeros outside, as run in 2012 after conv2."""
    return _normalise(x_BCHW, lrn)


def _normalise(x: Tensor, lrn: LRN) -> Tensor:
    return response_norm(x, *lrn, keep=x.requires_grad and torch.is_grad_enabled())[0]


def response_norm_formula(x: Tensor, lrn: LRN) -> Tensor:
    """What `response_norm` computes, as it is written."""
    squares, half = x.to(torch.promote_types(x.dtype, torch.float32)).square(), lrn.n // 2
    if x.dim() == 2:  # rows of maps
        sums = F.pad(squares, (half, half)).unfold(1, lrn.n, 1).sum(-1)
    else:  # pixels of a map
        sums = F.avg_pool2d(squares, lrn.n, stride=1, padding=half, divisor_override=1)
    return (x * (lrn.k + lrn.alpha * sums) ** -lrn.beta).to(x.dtype)
