"""What PyTorch lacks or does slowly: response normalisation, mask-only dropout, reproducible initial weights.

Letters: B batch, C maps (channels), H, W, U units. A tensor may hold several columns side by side in C; nothing here
crosses from one column to the next.
"""

import hashlib
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from model.shapes import Layer


def generator(device: torch.device | str, *key: int | str) -> torch.Generator:
    """A random generator that is a function of its key alone, so that nothing of it needs to be stored."""
    digest = hashlib.blake2b("/".join(map(str, key)).encode(), digest_size=8).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest, "little") >> 1)


def initial_weights(layer: Layer, seed: int) -> tuple[Tensor, Tensor]:
    """Weights ~ N(0, std) and constant biases of all columns together: the same numbers wherever the columns live."""
    weight = torch.empty(layer.weight_shape).normal_(0, layer.std, generator=generator("cpu", seed, layer.name))
    return weight, torch.full((layer.out,), layer.bias)


class Draw(NamedTuple):
    """Which random numbers a training step takes, and this process's rows of the global batch."""

    seed: int
    step: int
    batch_size: int  # images of the global batch, over all replicas
    first_row: int


def dropout(x_BU: Tensor, draw: Draw, layer: str, units: slice, all_units: int) -> Tensor:
    """Zeroes half of the units and rescales nothing (the paper; `torch.nn.Dropout` doubles the others).

    The mask is drawn for the global batch and the units of every column, and cut: any placement sees the same one.
    """
    mask = torch.empty(draw.batch_size, all_units, dtype=torch.uint8, device=x_BU.device)
    mask.random_(0, 2, generator=generator(x_BU.device, draw.seed, draw.step, layer))
    return x_BU * mask[draw.first_row : draw.first_row + len(x_BU), units]


class LRN(NamedTuple):
    """Response normalisation across maps: y_i = x_i * (k + alpha * sum of x_j^2 over the n maps around i) ^ -beta.

    `alpha` multiplies the sum, as in the paper; PyTorch and the 2012 code divide theirs by n first.
    """

    n: int = 5
    alpha: float = 1e-4
    beta: float = 0.75
    k: float = 2.0


def local_response_norm(x_BCHW: Tensor, columns: int, lrn: LRN) -> Tensor:
    """LRN within each column's maps; the window is cut at the column's ends."""
    return _ResponseNorm.apply(x_BCHW, partial(_sum_over_maps, columns=columns, n=lrn.n), lrn)


SPATIAL_PX = 5
SPATIAL = LRN(n=SPATIAL_PX**2, alpha=1e-3 / SPATIAL_PX**2, k=1.0)


def spatial_norm(x_BCHW: Tensor) -> Tensor:
    """Normalisation within each map, over 5x5 px with zeros outside, as run in 2012 after conv2."""
    return _ResponseNorm.apply(x_BCHW, _sum_over_pixels, SPATIAL)


class _ResponseNorm(torch.autograd.Function):
    """x * (k + alpha * window_sum(x^2)) ^ -beta, keeping its input only; `window_sum` is a symmetric linear map.

    On the CPU it goes by few images at a time, so that what lies between stays in the cache.
    """

    @staticmethod
    def forward(ctx, x: Tensor, window_sum: Callable[[Tensor], Tensor], lrn: LRN) -> Tensor:
        ctx.save_for_backward(x)
        ctx.args = (window_sum, lrn)
        y = torch.empty_like(x)
        for x_part, y_part in _parts(x, y):
            wide = _wide(x_part)
            power = _power(window_sum(wide * wide).mul_(lrn.alpha).add_(lrn.k), lrn.beta)
            torch.mul(wide, power, out=y_part) if y.dtype == wide.dtype else y_part.copy_(wide * power)
        return y

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        window_sum, lrn = ctx.args
        dx = torch.empty_like(x)
        for x_part, grad_part, dx_part in _parts(x, grad, dx):
            wide = _wide(x_part)
            denominator = window_sum(wide * wide).mul_(lrn.alpha).add_(lrn.k)
            direct = _power(denominator, lrn.beta).mul_(grad_part)  # with the sum held constant
            through = window_sum((direct * wide).div_(denominator)).mul_(wide)
            dx_part.copy_(direct.add_(through, alpha=-2 * lrn.alpha * lrn.beta))
        return dx, None, None


PART_VALUES = 2**18  # 1 MiB of float32: with a few temporaries of the same size it fits the caches


def _parts(*tensors: Tensor) -> zip:
    """The tensors in slices of the batch: a few images each on the CPU, all at once on a GPU."""
    x = tensors[0]
    size = max(1, PART_VALUES // x[:1].numel()) if x.device.type == "cpu" and len(x) else max(1, len(x))
    return zip(*(tensor.split(size) for tensor in tensors), strict=True)


def _wide(x: Tensor) -> Tensor:
    """At least float32, whatever the convolutions compute in."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def _sum_over_maps(x_BCHW: Tensor, columns: int, n: int) -> Tensor:
    """Sum over the n maps around each map, within its column."""
    x = x_BCHW.unflatten(1, (columns, -1))
    out = x.clone()
    for shift in range(1, min(n // 2, x.shape[2] - 1) + 1):
        out[:, :, shift:] += x[:, :, :-shift]
        out[:, :, :-shift] += x[:, :, shift:]
    return out.flatten(1, 2)


def _sum_over_pixels(x_BCHW: Tensor) -> Tensor:
    """Sum over the square of SPATIAL_PX around each pixel."""
    pool = torch.nn.functional.avg_pool2d
    return pool(x_BCHW, SPATIAL_PX, stride=1, padding=SPATIAL_PX // 2, divisor_override=1)


def _power(x: Tensor, beta: float) -> Tensor:
    """x ^ -beta; the paper's .75 by square roots, which are many times faster than `pow`."""
    if beta != 0.75:
        return x**-beta
    root = torch.rsqrt(x)
    return root.mul_(root.sqrt())
