"""The network as arithmetic: shapes, parameters, neurons, work and traffic of each layer (Figure 2 as a table).

Standard library only. `alexnet.py` builds exactly these layers, so a count here is a fact about the network there.
"""

import math
from dataclasses import dataclass, replace

from model.specs import AlexNetSpec, conv_px, pool_px

BYTES = 4  # of a float32
FULL_INPUTS = {  # weights of one kernel or unit in the paper's network
    **{"conv1": 363, "conv2": 1200, "conv3": 2304, "conv4": 1728, "conv5": 1728, "conv6": 2304},
    **{"fc6": 9216, "fc7": 4096, "bottleneck": 4096, "fc8": 4096},
}


@dataclass(frozen=True)
class Layer:
    """One layer with weights. Counts are of both columns together, except `sees`: what one kernel or unit reads."""

    name: str
    columns: int  # columns of the network
    shared: bool  # reads both columns (or the image); false: its own column only
    kernel: int  # side, px; 0: fully connected
    stride: int  # px
    pad: int  # px, on each side
    in_px: int  # side of the input map; 1: fully connected
    out_px: int  # side of the output map; 1: fully connected
    sees: int  # input maps (units) that one kernel (unit) reads
    out: int  # output maps (units)
    std: float  # of the initial weights
    bias: float  # initial value of every bias

    @property
    def weight_shape(self) -> tuple[int, ...]:
        return (self.out, self.sees, self.kernel, self.kernel) if self.kernel else (self.out, self.sees)

    @property
    def weights(self) -> int:
        return self.out * self.sees * max(self.kernel, 1) ** 2

    @property
    def params(self) -> int:
        return self.weights + self.out

    @property
    def neurons(self) -> int:
        """Output values before any pooling."""
        return self.out * self.out_px**2

    @property
    def macs(self) -> int:
        """Multiply-adds of one image, forward; 1 is 2 FLOP."""
        return self.weights * self.out_px**2

    @property
    def exchanged_bytes(self) -> int:
        """What both columns together send to feed this layer with one image, forward; the backward sends as much."""
        crosses = self.shared and self.columns == 2 and self.name != "conv1"
        return self.sees * self.in_px**2 * BYTES if crosses else 0


def layer_table(spec: AlexNetSpec) -> tuple[Layer, ...]:
    """The layers with weights, from conv1 to fc8; `spec.num_classes` must be known."""
    assert spec.num_classes, "net.num_classes is 0; set the data set's number of classes first"
    convs = _convolutions(spec)
    layers = (*convs, *_fully_connected(spec, convs[-1].out, _pooled(spec, convs)))
    return tuple(map(_scaled, layers)) if spec.initial == "scaled" else layers


def _scaled(layer: Layer) -> Layer:
    """With a standard deviation that passes the signal on as strongly as the full network's wider layer does."""
    return replace(layer, std=layer.std * math.sqrt(FULL_INPUTS[layer.name] * layer.out / layer.weights))


def _convolutions(spec: AlexNetSpec) -> tuple[Layer, ...]:
    px = conv_px(spec.input_px, spec.conv1_kernel, spec.conv1_stride, spec.conv1_pad)
    conv1 = Layer(
        "conv1", spec.columns, True, spec.conv1_kernel, spec.conv1_stride, spec.conv1_pad,
        spec.input_px, px, 3, spec.kernels[0], 0.01, 0.0,
    )  # fmt: skip
    conv2 = _next_conv(spec, conv1, "conv2", 5, spec.conv2_pad, shared=False, pooled=True)
    layers = [conv1, conv2]
    for name, pad in (("conv3", 1), ("conv4", 1), ("conv5", spec.conv5_pad)):
        if name != spec.removed:
            first = layers[-1] is conv2
            layers.append(_next_conv(spec, layers[-1], name, 3, pad, shared=first and spec.communication, pooled=first))
    if spec.conv6_kernels:
        layers.append(_next_conv(spec, layers[-1], "conv6", 3, 1, shared=spec.communication, pooled=True))
    return tuple(layers)


def _next_conv(
    spec: AlexNetSpec, before: Layer, name: str, kernel: int, pad: int, *, shared: bool, pooled: bool
) -> Layer:
    in_px = pool_px(before.out_px, *spec.pool) if pooled else before.out_px
    sees = before.out if shared else before.out // spec.columns
    out = spec.conv6_kernels if name == "conv6" else spec.kernels[int(name[-1]) - 1]
    std = 0.01 if name == "conv2" else spec.middle_std
    bias = 0.0 if name == "conv3" else 1.0
    shared = shared or spec.columns == 1
    return Layer(
        name, spec.columns, shared, kernel, 1, pad, in_px, conv_px(in_px, kernel, 1, pad), sees, out, std, bias
    )


def _pooled(spec: AlexNetSpec, convs: tuple[Layer, ...]) -> int:
    """Side of the maps that fc6 reads, px: conv6 has no pooling after it."""
    return convs[-1].out_px if spec.conv6_kernels else pool_px(convs[-1].out_px, *spec.pool)


def _fully_connected(spec: AlexNetSpec, maps: int, px: int) -> tuple[Layer, ...]:
    layers, units = [], maps * px**2
    widths = [("fc6", spec.fc[0], 1.0), ("fc7", spec.fc[1], 1.0)]
    widths += [("bottleneck", spec.bottleneck, 0.0)] if spec.bottleneck else []
    for name, out, bias in [*widths, ("fc8", spec.num_classes, 0.0)]:
        shared = spec.columns == 1 or name == "fc8" or spec.communication
        sees = units if shared else units // spec.columns
        layers.append(Layer(name, spec.columns, shared, 0, 1, 0, 1, 1, sees, out, 0.01, bias))
        units = out
    return tuple(layers)


def parameter_names(spec: AlexNetSpec) -> list[str]:
    """conv1.weight, conv1.bias and so on, in the network's order; the number of classes has no part in it."""
    layers = layer_table(replace(spec, num_classes=spec.num_classes or 2))
    return [f"{layer.name}.{kind}" for layer in layers for kind in ("weight", "bias")]


def num_params(spec: AlexNetSpec) -> int:
    return sum(layer.params for layer in layer_table(spec))


def num_macs(spec: AlexNetSpec) -> int:
    """Multiply-adds of one image, forward."""
    return sum(layer.macs for layer in layer_table(spec))


def train_macs(spec: AlexNetSpec) -> int:
    """Multiply-adds of one image, forward and backward: conv1 needs no gradient of its input."""
    return 3 * num_macs(spec) - layer_table(spec)[0].macs


def exchanged_bytes(spec: AlexNetSpec) -> int:
    """Bytes that both columns together send for one training image in float32: gathers, their sums, and the logits."""
    logits = spec.num_classes * BYTES if spec.columns == 2 else 0
    return 2 * sum(layer.exchanged_bytes for layer in layer_table(spec)) + logits
