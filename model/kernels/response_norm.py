"""Response normalisation, x * (k + alpha * sum of x^2 over a window) ^ -beta, and its gradient.

Computes in float32 at least, channels last. On the CPU it goes by parts that fit the cache with all that lies between.
What the backward needs is kept, twice the input's size: to compute it again takes longer.

Letters: B batch, C maps, H, W; R rows (the maps of a column at one pixel), M maps of a column.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from model.kernels.operator import operator

PART_VALUES = 2**18  # 1 MiB of float32: with a few temporaries of the same size it fits the caches


class _Maps(NamedTuple):
    """Windows over n maps of a row. Products of rows lie in one line, zeros between them, over which they slide."""

    n: int
    maps: int

    def product(self, a_RM: Tensor, b_RM: Tensor) -> Tensor:
        gap = self.n // 2
        line = a_RM.new_empty(gap + len(a_RM) * (self.maps + gap))
        line[:gap] = 0
        padded = line[gap:].view(-1, self.maps + gap)
        torch.mul(a_RM, b_RM, out=padded[:, : self.maps])
        padded[:, self.maps :] = 0
        return line

    def sum(self, line: Tensor) -> Tensor:
        """At i the sum of n values from i on, put together from sums of 1, 2, 4, ... values."""
        sums, width, done, length = None, 1, 0, line.shape[0] - self.n + 1
        while True:
            if self.n & width:
                part = line[done : done + length]
                sums, done = part if sums is None else sums + part, done + width
                if done == self.n:
                    return sums
            line, width = line[:-width] + line[width:], 2 * width

    def centres(self, line: Tensor) -> Tensor:
        """Of each sum, the product in the middle of its window."""
        return line[self.n // 2 : line.shape[0] - self.n // 2]

    def values(self, sums: Tensor, x_RM: Tensor) -> Tensor:
        """The sums around each of x."""
        return sums.as_strided(x_RM.shape, (self.maps + self.n // 2, 1), sums.storage_offset())

    def room(self, x_RM: Tensor) -> Tensor:
        """What holds the sums of all rows."""
        return x_RM.new_empty(x_RM.shape[0], self.maps + self.n // 2, dtype=_wide(x_RM.dtype))

    def sums_in(self, room: Tensor) -> Tensor:
        """Where in the room of some rows their sums go."""
        return room.view(-1)[: room.numel() - self.n // 2]

    def close(self, room: Tensor) -> None:
        """Fills what is left of the room, behind the last sum, so that all of it is defined."""
        room.view(-1)[room.numel() - self.n // 2 :] = 1


class _Pixels(NamedTuple):
    """Windows over the square around each pixel, of an odd side; zeros outside."""

    side: int

    def product(self, a_BCHW: Tensor, b_BCHW: Tensor) -> Tensor:
        return a_BCHW * b_BCHW

    def sum(self, products_BCHW: Tensor) -> Tensor:
        return F.avg_pool2d(products_BCHW, self.side, stride=1, padding=self.side // 2, divisor_override=1)

    def centres(self, products_BCHW: Tensor) -> Tensor:
        return products_BCHW

    def values(self, sums_BCHW: Tensor, x_BCHW: Tensor) -> Tensor:
        return sums_BCHW

    def room(self, x_BCHW: Tensor) -> Tensor:
        return torch.empty_like(x_BCHW, dtype=_wide(x_BCHW.dtype))

    def sums_in(self, room: Tensor) -> Tensor:
        return room

    def close(self, room: Tensor) -> None:
        pass


def _windows(x: Tensor, n: int) -> _Maps | _Pixels:
    return _Maps(n, x.shape[1]) if x.dim() == 2 else _Pixels(n)


@operator("response_norm")
def response_norm(x: Tensor, n: int, alpha: float, beta: float, k: float, keep: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The normalised x, then the denominators and their powers -beta for the backward (empty if none is to `keep`).

    Args:
        x: rows of maps (R, M), normalised over n maps; or images (B, C, H, W), normalised over n x n pixels of a map.
    """
    windows = _windows(x, n)
    y, denominators, powers = _empty_results(x, n, keep)
    kept = (denominators, powers) if keep else ()
    for x_part, y_part, *kept_parts in _parts(x, y, *kept):
        wide = x_part.to(_wide(x.dtype))
        denominator, power = map(windows.sums_in, kept_parts or (windows.room(wide), windows.room(wide)))
        sums = windows.sum(windows.product(wide, wide))
        torch.add(torch.tensor(k, dtype=sums.dtype), sums, alpha=alpha, out=denominator)
        _power(denominator, beta, out=power)
        torch.mul(wide, windows.values(power, wide), out=y_part)
        for room in kept_parts:
            windows.close(room)
    return y, denominators, powers


@operator("response_norm_backward")
def response_norm_backward(
    grad: Tensor, x: Tensor, denominators: Tensor, powers: Tensor, n: int, alpha: float, beta: float
) -> Tensor:
    """The gradient of x, from what the forward kept."""
    windows, of_x = _windows(x, n), torch.empty_like(x)
    for x_part, grad_part, out, *kept in _parts(x, grad, of_x, denominators, powers):
        wide, (denominator, power) = x_part.to(_wide(x.dtype)), map(windows.sums_in, kept)
        direct = windows.values(power, wide) * grad_part  # with the sum held constant
        products = windows.product(direct, wide)
        windows.centres(products).div_(denominator)
        through = windows.values(windows.sum(products), wide)
        torch.addcmul(direct, through, wide, value=-2 * alpha * beta, out=out)
    return of_x


def _empty_results(x: Tensor, n: int, keep: bool) -> tuple[Tensor, Tensor, Tensor]:
    windows, y = _windows(x, n), torch.empty_like(x)
    room = (lambda: windows.room(x)) if keep else (lambda: x.new_empty(0, dtype=_wide(x.dtype)))
    return y, room(), room()


def _parts(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The tensors in slices of the first dimension: as many as fit the cache on the CPU, all at once on a GPU."""
    x = tensors[0]
    size = len(x)
    if x.device.type == "cpu" and x.numel():
        size = max(1, PART_VALUES // x[:1].numel())
    return zip(*(tensor.split(size) for tensor in tensors), strict=True)


def _wide(dtype: torch.dtype) -> torch.dtype:
    """At least float32, whatever the convolutions compute in."""
    return torch.promote_types(dtype, torch.float32)


def _power(x: Tensor, beta: float, out: Tensor) -> None:
    """x ^ -beta; the paper's .75 by square roots, which are many times faster than `pow`."""
    if beta != 0.75:
        torch.pow(x, -beta, out=out)
        return
    root = torch.rsqrt(x)
    torch.mul(root, root.sqrt(), out=out)


@torch.library.register_fake(response_norm)
def _(x: Tensor, n: int, alpha: float, beta: float, k: float, keep: bool) -> tuple[Tensor, Tensor, Tensor]:
    return _empty_results(x, n, keep)


@torch.library.register_fake(response_norm_backward)
def _(grad, x: Tensor, denominators, powers, n: int, alpha: float, beta: float) -> Tensor:
    return torch.empty_like(x)


def _keep(ctx, inputs: tuple, output: tuple[Tensor, Tensor, Tensor]) -> None:
    x, ctx.n, ctx.alpha, ctx.beta, _, _ = inputs
    ctx.save_for_backward(x, *output[1:])
    ctx.mark_non_differentiable(*output[1:])


def _backward(ctx, grad: Tensor, *unused: None) -> tuple[Tensor | None, ...]:
    x, denominators, powers = ctx.saved_tensors
    of_x = response_norm_backward(grad, x, denominators, powers, ctx.n, ctx.alpha, ctx.beta)
    return of_x, None, None, None, None, None


torch.library.register_autograd(response_norm, _backward, setup_context=_keep)
