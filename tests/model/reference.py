"""The slow, obvious twin of `model`: two explicit columns, the formulas as they are written, no grouping, no tricks.

Takes merged parameters by name, as `Trainer.weights()` gives them.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from model.specs import AlexNetSpec


def reference_logits(spec: AlexNetSpec, weights: dict[str, Tensor], mean_CHW: Tensor, images_BCHW: Tensor) -> Tensor:
    """Logits in test mode, one list entry per column until fc8 joins them."""
    data = images_BCHW - mean_CHW
    columns = [data for _ in range(spec.columns)]
    columns = _convolve(spec, weights, "conv1", columns, joined=False, data=True)
    if spec.conv1_order == "relu_norm_pool":
        columns = [_pool(spec, _lrn(spec, _neuron(spec, x))) for x in columns]
    else:
        columns = [_neuron(spec, _pool(spec, _lrn(spec, x))) for x in columns]
    columns = _convolve(spec, weights, "conv2", columns, joined=False)
    columns = [_lrn(spec, _neuron(spec, x)) for x in columns]
    if spec.spatial_norm and spec.normalisation:
        columns = [_spatial_norm(x) for x in columns]
    columns = [_pool(spec, x) for x in columns]
    first = True
    for name in ("conv3", "conv4", "conv5"):
        if name == spec.removed:
            continue
        columns = _convolve(spec, weights, name, columns, joined=first and spec.communication)
        columns = [_neuron(spec, x) for x in columns]
        first = False
    columns = [_pool(spec, x) for x in columns]
    if spec.conv6_kernels:
        columns = _convolve(spec, weights, "conv6", columns, joined=spec.communication)
        columns = [_neuron(spec, x) for x in columns]
    columns = [x.flatten(1) for x in columns]
    half = 0.5 if spec.dropout else 1.0
    columns = [half * _neuron(spec, x) for x in _multiply(weights, "fc6", columns, joined=spec.communication)]
    columns = [half * _neuron(spec, x) for x in _multiply(weights, "fc7", columns, joined=spec.communication)]
    if spec.bottleneck:
        columns = _multiply(weights, "bottleneck", columns, joined=spec.communication)
    return F.linear(torch.cat(columns, 1), weights["fc8.weight"], weights["fc8.bias"])


def _convolve(spec, weights, name, columns, *, joined, data=False) -> list[Tensor]:
    """Each column's kernels on its own maps, or on both columns' (`joined`), pixel by pixel of the output."""
    out = []
    for column, (weight, bias) in enumerate(_halves(weights, name, len(columns))):
        x = torch.cat(columns, 1) if joined else columns[column]
        stride = spec.conv1_stride if data else 1
        pad = {"conv1": spec.conv1_pad, "conv2": 2, "conv5": 1}.get(name, 1)
        if spec.pooling == "separate":
            pad = {"conv2": 1, "conv5": 0}.get(name, pad)
        out.append(_conv(x, weight, bias, stride, pad))
    return out


def _conv(x_BCHW: Tensor, weight: Tensor, bias: Tensor, stride: int, pad: int) -> Tensor:
    """out(i, j) = sum over the window from (i, j) * stride - pad; zeros wherever the window leaves the image."""
    kernel, size = weight.shape[-1], x_BCHW.shape[-1]
    steps = -(-(size + 2 * pad - kernel) // stride) + 1
    room = F.pad(x_BCHW, (pad, pad + kernel, pad, pad + kernel))
    rows = []
    for i in range(steps):
        for j in range(steps):
            window = room[:, :, i * stride : i * stride + kernel, j * stride : j * stride + kernel]
            rows.append(torch.einsum("bchw,ochw->bo", window, weight) + bias)
    return torch.stack(rows, -1).unflatten(-1, (steps, steps))


def _multiply(weights, name, columns, *, joined) -> list[Tensor]:
    return [
        F.linear(torch.cat(columns, 1) if joined else columns[column], weight, bias)
        for column, (weight, bias) in enumerate(_halves(weights, name, len(columns)))
    ]


def _halves(weights, name, columns):
    return zip(weights[f"{name}.weight"].chunk(columns), weights[f"{name}.bias"].chunk(columns), strict=True)


def _neuron(spec: AlexNetSpec, x: Tensor) -> Tensor:
    return torch.tanh(x) if spec.activation == "tanh" else x.clamp(min=0)


def _pool(spec: AlexNetSpec, x_BCHW: Tensor) -> Tensor:
    kernel, stride = (3, 2) if spec.pooling == "overlapping" else (2, 2)
    size = x_BCHW.shape[-1]
    starts = [stride * i for i in range(-(-(size - kernel) // stride) + 1)]
    rows = [
        torch.stack([x_BCHW[:, :, i : i + kernel, j : j + kernel].amax((2, 3)) for j in starts], -1) for i in starts
    ]
    return torch.stack(rows, -2)


def _lrn(spec: AlexNetSpec, x_BCHW: Tensor) -> Tensor:
    """The paper's formula, map by map of one column."""
    if not spec.normalisation:
        return x_BCHW
    maps, half = x_BCHW.shape[1], spec.lrn_n // 2
    alpha = spec.lrn_alpha / spec.lrn_n if spec.lrn_alpha_over_n else spec.lrn_alpha
    out = []
    for i in range(maps):
        total = sum(x_BCHW[:, j] ** 2 for j in range(max(0, i - half), min(maps - 1, i + half) + 1))
        out.append(x_BCHW[:, i] / (spec.lrn_k + alpha * total) ** spec.lrn_beta)
    return torch.stack(out, 1)


def _spatial_norm(x_BCHW: Tensor) -> Tensor:
    """Net 145's second normalisation: 5x5 pixels of the same map."""
    size, out = x_BCHW.shape[-1], torch.empty_like(x_BCHW)
    for i in range(size):
        for j in range(size):
            window = x_BCHW[:, :, max(0, i - 2) : i + 3, max(0, j - 2) : j + 3]
            out[:, :, i, j] = x_BCHW[:, :, i, j] / (1 + 1e-3 / 25 * (window**2).sum((2, 3))) ** 0.75
    return out


def reference_update(weight: Tensor, velocity: Tensor, grad: Tensor, rate: float, decay: float, momentum: float):
    """The paper's update, in place."""
    velocity.copy_(momentum * velocity - decay * rate * weight - rate * grad)
    weight += velocity
