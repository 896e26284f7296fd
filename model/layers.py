"""What PyTorch lacks or does slowly: response normalisation, mask-only dropout, reproducible initial weights.

Letters: B batch, C maps (channels), H, W, U units. A tensor may hold several columns side by side in C; nothing here
crosses from one column to the next.
"""

import hashlib
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.philox import bits
from model.shapes import Layer


def generator(device: torch.device | str, *key: int | str) -> torch.Generator:
    """A random generator that is a function of its key alone, so that nothing of it needs to be stored."""
    digest = hashlib.blake2b("/".join(map(str, key)).encode(), digest_size=8).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest, "little") >> 1)


def initial_weights(layer: Layer, seed: int) -> tuple[Tensor, Tensor]:
    """Weights ~ N(0, std) and constant biases of all columns together: the same numbers wherever the columns live."""
    weight = torch.empty(layer.weight_shape).normal_(0, layer.std, generator=generator("cpu", seed, layer.name))
    return weight, torch.full((layer.out,), layer.bias)


def linear(x_BU: Tensor, weight_OU: Tensor, bias_O: Tensor) -> Tensor:
    """`F.linear`; on the CPU by oneDNN, like the convolutions: with few rows its products are faster than MKL's."""
    is_plain = not (torch.compiler.is_exporting() or torch.is_autocast_enabled("cpu"))
    if x_BU.device.type == "cpu" and x_BU.dtype == torch.float32 and is_plain:
        return F.linear(x_BU.to_mkldnn(), weight_OU, bias_O).to_dense()
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
        self.step, self.first_row = 0, 0

    def at(self, step: int, first_row: int) -> None:
        """The next pass is this step, on rows of the global batch from `first_row` on."""
        self.step, self.first_row = step, first_row

    def forward(self, x_BU: Tensor) -> Tensor:
        if not self.training:
            return x_BU * 0.5
        rows = slice(self.first_row, self.first_row + len(x_BU))
        self.step += 1
        return x_BU * bits(self.key, self.step - 1, rows, self.units, x_BU.device)


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
    return _ResponseNorm.apply(rows, _Maps, lrn).view(batch, height, width, channels).permute(0, 3, 1, 2)


SPATIAL_PX = 5
SPATIAL = LRN(n=SPATIAL_PX**2, alpha=1e-3 / SPATIAL_PX**2, k=1.0)


def spatial_norm(x_BCHW: Tensor) -> Tensor:
    """Normalisation within each map, over 5x5 px with zeros outside, as run in 2012 after conv2."""
    return _ResponseNorm.apply(x_BCHW, _Pixels, SPATIAL)


class _Maps:
    """Windows over a row's maps. Products of rows lie in one line, zeros between them, over which a window slides."""

    @staticmethod
    def product(a_RC: Tensor, b_RC: Tensor, lrn: LRN) -> Tensor:
        (rows, maps), gap = a_RC.shape, lrn.n // 2
        line = a_RC.new_empty(gap + rows * (maps + gap))
        line[:gap] = 0
        padded = line[gap:].view(rows, maps + gap)
        torch.mul(a_RC, b_RC, out=padded[:, :maps])
        padded[:, maps:] = 0
        return line

    @staticmethod
    def sum(line: Tensor, lrn: LRN) -> Tensor:
        """At i the sum of n values from i on, put together from sums of 1, 2, 4, ... values."""
        sums, width, done, length = None, 1, 0, line.shape[0] - lrn.n + 1
        while True:
            if lrn.n & width:
                part = line[done : done + length]
                sums, done = part if sums is None else sums + part, done + width
                if done == lrn.n:
                    return sums
            line, width = line[:-width] + line[width:], 2 * width

    @staticmethod
    def centres(line: Tensor, lrn: LRN) -> Tensor:
        """Of each sum, the product in the middle of its window."""
        return line[lrn.n // 2 : line.shape[0] - lrn.n // 2]

    @staticmethod
    def values(sums: Tensor, x_RC: Tensor, lrn: LRN) -> Tensor:
        """The sums around each of x."""
        return sums.as_strided(x_RC.shape, (x_RC.shape[1] + lrn.n // 2, 1))


class _Pixels:
    """Windows over the square of SPATIAL_PX around each pixel."""

    @staticmethod
    def product(a_BCHW: Tensor, b_BCHW: Tensor, lrn: LRN) -> Tensor:
        return a_BCHW * b_BCHW

    @staticmethod
    def sum(products_BCHW: Tensor, lrn: LRN) -> Tensor:
        return F.avg_pool2d(products_BCHW, SPATIAL_PX, stride=1, padding=SPATIAL_PX // 2, divisor_override=1)

    @staticmethod
    def centres(products_BCHW: Tensor, lrn: LRN) -> Tensor:
        return products_BCHW

    @staticmethod
    def values(sums_BCHW: Tensor, x_BCHW: Tensor, lrn: LRN) -> Tensor:
        return sums_BCHW


class _ResponseNorm(torch.autograd.Function):
    """x * (k + alpha * sum of x^2 over a window) ^ -beta; computes in float32 at least.

    The first dimension is independent. On the CPU it goes by parts of it that fit the cache with all that lies between.
    What the backward needs of each part is kept, twice the input's size: to compute it again takes longer.
    """

    @staticmethod
    def forward(ctx, x: Tensor, window: type[_Maps] | type[_Pixels], lrn: LRN) -> Tensor:
        y, denominators, powers = torch.empty_like(x), [], []
        for x_part, y_part in _parts(x, y):
            wide = _wide(x_part)
            denominator = _denominator(wide, window, lrn)
            power = _power(denominator, lrn.beta)
            torch.mul(wide, window.values(power, wide, lrn), out=y_part)
            if ctx.needs_input_grad[0]:
                denominators.append(denominator)
                powers.append(power)
        ctx.save_for_backward(x, *denominators, *powers)
        ctx.args = (window, lrn)
        return y

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:
        x, *kept = ctx.saved_tensors
        window, lrn = ctx.args
        dx = torch.empty_like(x)
        halves = kept[: len(kept) // 2], kept[len(kept) // 2 :]
        for (x_part, grad_part, dx_part), denominator, power in zip(_parts(x, grad, dx), *halves, strict=True):
            wide = _wide(x_part)
            direct = window.values(power, wide, lrn) * grad_part  # with the sum held constant
            products = window.product(direct, wide, lrn)
            window.centres(products, lrn).div_(denominator)
            through = window.values(window.sum(products, lrn), wide, lrn)
            torch.addcmul(direct, through, wide, value=-2 * lrn.alpha * lrn.beta, out=dx_part)
        return dx, None, None


PART_VALUES = 2**18  # 1 MiB of float32: with a few temporaries of the same size it fits the caches


def _parts(*tensors: Tensor) -> zip:
    """The tensors in slices of the first dimension: as many as fit the cache on the CPU, all at once on a GPU."""
    x = tensors[0]
    if x.device.type != "cpu" or torch.compiler.is_exporting() or not x.numel():
        return zip(*([tensor] for tensor in tensors), strict=True)
    size = max(1, PART_VALUES // x[:1].numel())
    return zip(*(tensor.split(size) for tensor in tensors), strict=True)


def _wide(x: Tensor) -> Tensor:
    """At least float32, whatever the convolutions compute in."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _denominator(x: Tensor, window: type[_Maps] | type[_Pixels], lrn: LRN) -> Tensor:
    sums = window.sum(window.product(x, x, lrn), lrn)
    return torch.add(torch.tensor(lrn.k, dtype=sums.dtype), sums, alpha=lrn.alpha, out=sums)


def _power(x: Tensor, beta: float) -> Tensor:
    """x ^ -beta; the paper's .75 by square roots, which are many times faster than `pow`."""
    if beta != 0.75:
        return x**-beta
    root = torch.rsqrt(x)
    return root.mul_(root.sqrt())
