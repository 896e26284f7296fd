"""AlexNet in the paper's order, conv1 to fc8 (Krizhevsky, Sutskever, Hinton 2012, section 3).

Its two columns may live in one process or in two: `columns.exchange` marks the places where they meet, and nothing else
here knows where they are.

Letters: B batch, C maps (channels), H, W, U units, K classes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.columns import OneColumn, OneProcess
from model.layers import LRN, Dropout, linear, local_response_norm, spatial_norm
from model.network import Network
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


class AlexNet(Network):
    """The network of a spec, or one column of it."""

    spec: AlexNetSpec
    conv1: Convolution
    conv2: Convolution
    conv6: Convolution
    fc6: FullyConnected
    fc7: FullyConnected
    bottleneck: FullyConnected
    fc8: FullyConnected

    def __init__(self, spec: AlexNetSpec, columns: OneProcess | OneColumn | None = None, *, seed: int = 0):
        columns = columns or OneProcess(spec.columns)
        super().__init__(spec, columns)
        self.table = {layer.name: layer for layer in layer_table(spec)}
        for name, layer in self.table.items():
            self.add_module(name, (Convolution if layer.kernel else FullyConnected)(layer, columns))
        for name in ("fc6", "fc7") if spec.dropout else ():
            self.add_module(f"drop_{name}", Dropout(seed, name, columns.slice(self.table[name].out)))
        alpha = spec.lrn_alpha / spec.lrn_n if spec.lrn_alpha_over_n else spec.lrn_alpha
        self.lrn = LRN(spec.lrn_n, alpha, spec.lrn_beta, spec.lrn_k)
        self.initialise(self.table, seed)
        # Channels last is what convolutions like best, and pooling and normalisation need.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch does not declare this one

    def part(self, parameter: str, merged: Tensor) -> Tensor:
        return merged[self.columns.slice(self._outputs(parameter))]

    def merge(self, parameter: str, part: Tensor) -> Tensor:
        return self.columns.merge(part, self._outputs(parameter))

    def _outputs(self, parameter: str) -> int:
        return self.table[parameter.split(".")[0]].out

    def features(self, images_BCHW: Tensor, shift_B3: Tensor | None = None) -> Tensor:
        communicate = self.columns.exchange if self.spec.communication else _stay
        x = self.conv1(self.centre(images_BCHW, shift_B3, self.overhang))
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
        return self.columns.exchange(x)

    def head(self, features_BU: Tensor) -> Tensor:
        return self.columns.gather_logits(self.fc8(features_BU), self.spec.num_classes)

    @property
    def overhang(self) -> int:
        """How far conv1's last window reaches over the image's right and lower side, px."""
        conv1 = self.table["conv1"]
        return (conv1.out_px - 1) * conv1.stride + conv1.kernel - conv1.in_px - 2 * conv1.pad

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
