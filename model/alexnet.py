"""AlexNet in the paper's order, conv1 to fc8 (Krizhevsky, Sutskever, Hinton 2012, section 3).

The network takes RGB pixels, 0 to 255, and subtracts its own mean. Its two columns may live in one process or in two:
`columns.exchange` marks the places where they meet, and nothing else here knows where they are.

Letters: B batch, C maps (channels), H, W, U units, K classes.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.columns import OneColumn, OneProcess
from model.layers import LRN, Dropout, initial_weights, linear, local_response_norm, spatial_norm
from model.shapes import Layer, layer_table
from model.specs import AlexNetSpec


class Convolution(nn.Module):
    """This process's kernels of a layer; they read both columns, or each its own."""

    def __init__(self, layer: Layer, columns: OneProcess | OneColumn):
        super().__init__()
        self.layer = layer
        held = columns.slice(layer.out)
        self.groups = 1 if layer.shared else columns.held
        self.weight = nn.Parameter(torch.empty(held.stop - held.start, *layer.weight_shape[1:]))
        self.bias = nn.Parameter(torch.empty(held.stop - held.start))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return F.conv2d(x_BCHW, self.weight, self.bias, self.layer.stride, self.layer.pad, groups=self.groups)


class FullyConnected(nn.Module):
    """This process's units of a layer; they read both columns, or each its own."""

    def __init__(self, layer: Layer, columns: OneProcess | OneColumn):
        super().__init__()
        self.layer = layer
        held = columns.slice(layer.out)
        self.groups = 1 if layer.shared else columns.held
        self.weight = nn.Parameter(torch.empty(held.stop - held.start, layer.sees))
        self.bias = nn.Parameter(torch.empty(held.stop - held.start))

    def forward(self, x_BU: Tensor) -> Tensor:
        if self.groups == 1:
            return linear(x_BU, self.weight, self.bias)
        x_BGU = x_BU.unflatten(1, (self.groups, -1))
        weight_GOU = self.weight.unflatten(0, (self.groups, -1))
        return torch.einsum("bgu,gou->bgo", x_BGU, weight_GOU).flatten(1) + self.bias


class AlexNet(nn.Module):
    """The network of a spec, or one column of it.

    In training its images are multiplied by `input_scale` after the mean, and `at` names the masks of dropout.
    """

    input_scale = 1.0
    conv1: Convolution
    conv2: Convolution
    conv6: Convolution
    fc6: FullyConnected
    fc7: FullyConnected
    bottleneck: FullyConnected
    fc8: FullyConnected
    mean: Tensor

    def __init__(self, spec: AlexNetSpec, columns: OneProcess | OneColumn | None = None, *, seed: int = 0):
        super().__init__()
        self.spec = spec
        self.columns = columns = columns or OneProcess(spec.columns)
        self.table = {layer.name: layer for layer in layer_table(spec)}
        for name, layer in self.table.items():
            self.add_module(name, (Convolution if layer.kernel else FullyConnected)(layer, columns))
        for name in ("fc6", "fc7") if spec.dropout else ():
            self.add_module(f"drop_{name}", Dropout(seed, name, columns.slice(self.table[name].out)))
        alpha = spec.lrn_alpha / spec.lrn_n if spec.lrn_alpha_over_n else spec.lrn_alpha
        self.lrn = LRN(spec.lrn_n, alpha, spec.lrn_beta, spec.lrn_k)
        side = spec.input_px if spec.mean == "image" else 1
        self.register_buffer("mean", torch.zeros(3, side, side))
        self.initialise(seed)
        # Channels last is what convolutions like best, and pooling and normalisation need.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch does not declare this one

    @torch.no_grad()
    def initialise(self, seed: int) -> None:
        for name, layer in self.table.items():
            weight, bias = initial_weights(layer, seed)
            held = self.columns.slice(layer.out)
            self.get_parameter(f"{name}.weight").copy_(weight[held])
            self.get_parameter(f"{name}.bias").copy_(bias[held])

    def set_mean(self, mean_HWC: np.ndarray) -> None:
        """The training set's mean image, whose central window is subtracted, or its mean over all pixels."""
        side = self.spec.input_px
        top, left = ((size - side) // 2 for size in mean_HWC.shape[:2])
        if self.spec.mean == "channel":
            window_HWC = mean_HWC.mean(axis=(0, 1), keepdims=True)
        else:
            assert min(top, left) >= 0, f"the mean image is {mean_HWC.shape}, smaller than the network's {side} px"
            window_HWC = mean_HWC[top : top + side, left : left + side]
        self.mean.copy_(torch.from_numpy(np.ascontiguousarray(window_HWC)).permute(2, 0, 1))

    def at(self, step: int, first_row: int = 0) -> None:
        """What comes next is this training step, on rows of the global batch from `first_row` on."""
        for module in self.modules():
            if isinstance(module, Dropout):
                module.at(step, first_row)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Logits (B, K) of images (0..255, float or uint8)."""
        columns, communicate = self.columns, self.columns.exchange if self.spec.communication else _stay
        x = self.conv1(self.centre(images_BCHW))
        if self.spec.conv1_order == "relu_norm_pool":
            x = self.pool(self.norm(self.neuron(x)))
        else:
            x = self.neuron(self.pool(self.norm(x)))
        x = self.norm(self.neuron(self.conv2(x)))
        if self.spec.normalisation and self.spec.spatial_norm:
            x = spatial_norm(x)
        x = communicate(self.pool(x))
        for name in ("conv3", "conv4", "conv5"):
            if name != self.spec.removed:
                x = self.neuron(self.get_submodule(name)(x))
        x = self.pool(x)
        if self.spec.conv6_kernels:
            x = self.neuron(self.conv6(communicate(x)))
        x = communicate(x.flatten(1))
        x = self.drop(self.neuron(self.fc6(x)), "fc6")
        x = self.drop(self.neuron(self.fc7(communicate(x))), "fc7")
        if self.spec.bottleneck:
            x = self.bottleneck(communicate(x))
        return columns.gather_logits(self.fc8(columns.exchange(x)), self.spec.num_classes)

    @torch.no_grad()
    def centre(self, images_BCHW: Tensor) -> Tensor:
        """The images less the mean, with zeros on the right and at the bottom where conv1's last window overhangs."""
        conv1, side = self.table["conv1"], self.spec.input_px
        assert images_BCHW.shape[1:] == (3, side, side), f"images are {tuple(images_BCHW.shape)}, not B x 3 x {side}^2"
        overhang = (conv1.out_px - 1) * conv1.stride + conv1.kernel - side - 2 * conv1.pad
        shape = (images_BCHW.shape[0], 3, side + overhang, side + overhang)  # len() would fix the batch in an export
        mean = self.mean
        x = torch.empty(shape, dtype=mean.dtype, device=mean.device, memory_format=torch.channels_last).zero_()
        inner = x[:, :, :side, :side].copy_(images_BCHW).sub_(mean)
        if self.training and self.input_scale != 1:
            inner.mul_(self.input_scale)
        return x

    def neuron(self, x: Tensor) -> Tensor:
        return F.relu(x, inplace=True) if self.spec.activation == "relu" else torch.tanh(x)

    def norm(self, x_BCHW: Tensor) -> Tensor:
        return local_response_norm(x_BCHW, self.columns.held, self.lrn) if self.spec.normalisation else x_BCHW

    def pool(self, x_BCHW: Tensor) -> Tensor:
        return F.max_pool2d(x_BCHW, *self.spec.pool, ceil_mode=True)

    def drop(self, x_BU: Tensor, name: str) -> Tensor:
        return self.get_submodule(f"drop_{name}")(x_BU) if self.spec.dropout else x_BU


def _stay(x: Tensor) -> Tensor:
    """Each column goes on alone."""
    return x
