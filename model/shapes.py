"""AlexNet as arithmetic: shapes, parameters, neurons, work and traffic of each layer (Figure 2 as a table).

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
    local: bool = False  # locally connected: kernels and biases of its own at every place

    @property
    def weight_shape(self) -> tuple[int, ...]:
        if self.local:
            return (self.out_px**2, self.out, self.sees * self.kernel**2)
        return (self.out, self.sees, self.kernel, self.kernel) if self.kernel else (self.out, self.sees)

    @property
    def bias_shape(self) -> tuple[int, ...]:
        return (self.out_px**2, self.out) if self.local else (self.out,)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of the parameters, by name."""
        return {"weight": self.weight_shape, "bias": self.bias_shape}

    @property
    def averages(self) -> dict[str, tuple[int, ...]]:
        """Shapes of what it averages in training, by name: none of these layers does."""
        return {}

    @property
    def weights(self) -> int:
        return math.prod(self.weight_shape)

    @property
    def params(self) -> int:
        return self.weights + math.prod(self.bias_shape)

    @property
    def neurons(self) -> int:
        """Output values before any pooling."""
        return self.out * self.out_px**2

    @property
    def macs(self) -> int:
        """Multiply-adds of one image, forward; 1 is 2 FLOP."""
        return self.weights * (1 if self.local else self.out_px**2)

    @property
    def exchanged_bytes(self) -> int:
        """What both columns together send to feed this layer with one image, forward; the backward sends as much."""
        crosses = self.shared and self.columns == 2 and self.name != "conv1"
        return self.sees * self.in_px**2 * BYTES if crosses else 0


@dataclass(frozen=True)
class ImportedLayer:
    """A module with parameters of its own, as it was seen to work on one image."""

    name: str
    kind: str  # its class
    parameters: tuple[tuple[str, tuple[int, ...]], ...]  # names in it, and shapes
    buffers: tuple[tuple[str, tuple[int, ...]], ...]  # the same of what it averages in training
    output: tuple[int, ...]
    exchanged_bytes = 0  # there are no columns
    columns = 1

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return dict(self.parameters)

    @property
    def averages(self) -> dict[str, tuple[int, ...]]:
        return dict(self.buffers)

    @property
    def params(self) -> int:
        return sum(math.prod(shape) for _, shape in self.parameters)

    @property
    def neurons(self) -> int:
        return math.prod(self.output)

    @property
    def macs(self) -> int:
        """Multiply-adds of one image, forward, as of a layer that uses its weight at every place of its output."""
        weight = self.shapes.get("weight", ())
        return math.prod(weight) * math.prod(self.output[1:]) if len(weight) > 1 else 0


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
        spec.input_px, px, 3, spec.kernels[0], spec.conv1_std, 0.0,
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
    bias = 0.0 if name == "conv3" else _positive(spec)
    shared = shared or spec.columns == 1
    return Layer(
        name, spec.columns, shared, kernel, 1, pad, in_px, conv_px(in_px, kernel, 1, pad), sees, out, std, bias
    )


def _positive(spec: AlexNetSpec) -> float:
    """The initial bias that gives ReLUs positive inputs to learn from; it would saturate tanh."""
    return 1.0 if spec.activation == "relu" else 0.0


def _pooled(spec: AlexNetSpec, convs: tuple[Layer, ...]) -> int:
    """Side of the maps that fc6 reads, px: conv6 has no pooling after it."""
    return convs[-1].out_px if spec.conv6_kernels else pool_px(convs[-1].out_px, *spec.pool)


def _fully_connected(spec: AlexNetSpec, maps: int, px: int) -> tuple[Layer, ...]:
    layers, units = [], maps * px**2
    widths = [("fc6", spec.fc[0], _positive(spec)), ("fc7", spec.fc[1], _positive(spec))]
    widths += [("bottleneck", spec.bottleneck, 0.0)] if spec.bottleneck else []
    for name, out, bias in [*widths, ("fc8", spec.num_classes, 0.0)]:
        shared = spec.columns == 1 or name == "fc8" or spec.communication
        sees = units if shared else units // spec.columns
        layers.append(Layer(name, spec.columns, shared, 0, 1, 0, 1, 1, sees, out, 0.01, bias))
        units = out
    return tuple(layers)
