"""The networks for CIFAR-10 in the order of their layers (cuda-convnet's conv-local-13pct and -11pct, and 18 and 19 %).

Letters: B batch, C maps (channels), H, W, P places of a map, U units, K classes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.cifar10_shapes import POOL, Cifar10Spec, layer_table
from model.columns import OneColumn, OneProcess
from model.layers import LRN, linear, local_response_norm, spatial_norm
from model.network import Network
from model.shapes import Layer

MAPS = LRN(n=9, alpha=1e-3 / 9, k=1.0)  # of the 11 % network
SPACE = LRN(n=3, alpha=5e-5 / 3**2, k=1.0)  # of the 18 % network


class LocallyConnected(nn.Module):
    """Like a convolution of stride 1, with kernels and biases of its own at every place of the map.

    The weight is (P, kernels, U): places row by row, and of a kernel its rows, its columns, its maps.
    """

    def __init__(self, layer: Layer):
        super().__init__()
        self.layer = layer
        self.weight = nn.Parameter(torch.empty(layer.weight_shape))
        self.bias = nn.Parameter(torch.empty(layer.bias_shape))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        side, kernel, pad = self.layer.out_px, range(self.layer.kernel), self.layer.pad
        x_HWBC = F.pad(x_BCHW, [pad] * 4).permute(2, 3, 0, 1)
        # A window's pixels row by row, each with all its maps: whole runs of memory, which `F.unfold` would pick apart.
        windows_HWBU = torch.cat([x_HWBC[i : i + side, j : j + side] for i in kernel for j in kernel], dim=3)
        out_PBC = torch.baddbmm(self.bias[:, None], windows_HWBU.flatten(0, 1), self.weight.mT)
        return out_PBC.unflatten(0, (side, side)).permute(2, 3, 0, 1)


class Cifar10Net(Network):
    """The network of a spec."""

    spec: Cifar10Spec
    fc10: nn.Linear

    def __init__(self, spec: Cifar10Spec, columns: OneProcess | OneColumn | None = None, *, seed: int = 0):
        super().__init__(spec, columns or OneProcess(spec.columns))
        self.table = {layer.name: layer for layer in layer_table(spec)}
        for name, layer in self.table.items():
            self.add_module(name, _module(layer))
        self.initialise(self.table, seed)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch does not declare this one

    def features(self, images_BCHW: Tensor, shift_B3: Tensor | None = None) -> Tensor:
        x = self.neuron("conv1", self.centre(images_BCHW, shift_B3))
        x = self.norm(F.max_pool2d(x, *POOL, ceil_mode=True))
        x = self.neuron("conv2", x)
        if "conv3" in self.table:
            x = self.neuron("conv3", self.norm(_average(x)))
            x = _average(x)
        else:
            x = F.max_pool2d(self.norm(x), *POOL, ceil_mode=True)
        for name in self.table:
            if name.startswith("local"):
                x = self.neuron(name, x)
        return x.flatten(1)

    def head(self, features_BU: Tensor) -> Tensor:
        return linear(features_BU, self.fc10.weight, self.fc10.bias)

    def neuron(self, name: str, x: Tensor) -> Tensor:
        x = self.get_submodule(name)(x)
        return F.relu(x, inplace=True) if self.spec.activation == "relu" else torch.tanh(x)

    def norm(self, x_BCHW: Tensor) -> Tensor:
        match self.spec.normalisation:
            case "maps":
                return local_response_norm(x_BCHW, 1, MAPS)
            case "space":
                return spatial_norm(x_BCHW, SPACE)
        return x_BCHW


def _module(layer: Layer) -> nn.Module:
    if layer.local:
        return LocallyConnected(layer)
    if layer.kernel:
        return nn.Conv2d(layer.sees, layer.out, layer.kernel, layer.stride, layer.pad)
    return nn.Linear(layer.sees, layer.out)


def _average(x_BCHW: Tensor) -> Tensor:
    """Of each window, as much of it as lies on the map."""
    return F.avg_pool2d(x_BCHW, *POOL, ceil_mode=True)
