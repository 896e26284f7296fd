"""The networks for CIFAR-10 of the paper's sections 3.1 and 3.3 (cuda-convnet): their spec, as arithmetic.

Standard library only. `cifar10.py` builds exactly these layers.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from model.shapes import Layer
from model.specs import NETWORK, NetworkSpec, conv_px, pool_px, require

POOL = (3, 2)  # window and stride of every pooling layer, px


@dataclass(frozen=True)
class Cifar10Spec(NetworkSpec):
    """Two convolutions, then locally connected layers (the 13 % and 11 % networks) or a third convolution (19 %)."""

    kind: Annotated[str, NETWORK] = "cifar10"
    input_px: Annotated[int, "side of the square crop that the network sees, px"] = 24
    num_classes: Annotated[int, "classes; 0 takes as many as the data set has"] = 10
    kernels: Annotated[
        tuple[int, ...], "kernels of conv1 and conv2; a third convolution follows where there are three"
    ] = (
        64,
        64,
    )
    local_kernels: Annotated[tuple[int, ...], "kernels, at each place, of the locally connected layers"] = (64, 32)
    activation: Annotated[Literal["relu", "tanh"], "the neurons' nonlinearity"] = "relu"
    normalisation: Annotated[
        Literal["none", "maps", "space"],
        "of the responses of conv1 and conv2: across 9 maps (11 % network), or within each map over 3 px (18 %)",
    ] = "none"
    columns: ClassVar[int] = 1

    def __post_init__(self):
        super().__post_init__()
        require(
            len(self.kernels) in (2, 3) and min(self.kernels) >= 1,
            f"net.kernels is {self.kernels}; give two or three positive counts, conv1 to conv3",
        )
        require(
            all(count >= 1 for count in self.local_kernels),
            f"net.local_kernels is {self.local_kernels}; give positive counts, or none",
        )
        side = self.input_px
        for _ in self.kernels:
            require(
                side >= POOL[0], f"net.input_px is {self.input_px}; too small for the pooling layers, take 24 or more"
            )
            side = pool_px(side, *POOL)


def layer_table(spec: Cifar10Spec) -> tuple[Layer, ...]:
    """The layers with parameters, conv1 to the softmax's; `spec.num_classes` must be known."""
    assert spec.num_classes, "net.num_classes is 0; set the data set's number of classes first"
    layers, px, maps = list[Layer](), spec.input_px, 3
    for number, kernels in enumerate(spec.kernels, 1):
        layers.append(_layer(f"conv{number}", 5, px, maps, kernels, std=1e-4 if number == 1 else 0.01))
        px, maps = pool_px(px, *POOL), kernels
    for number, kernels in enumerate(spec.local_kernels, len(layers) + 1):
        layers.append(_layer(f"local{number}", 3, px, maps, kernels, std=0.04, local=True))
        maps = kernels
    head = Layer("fc10", 1, True, 0, 1, 0, 1, 1, maps * px**2, spec.num_classes, 0.01, 0.0)
    return (*layers, head)


def _layer(name: str, kernel: int, px: int, sees: int, out: int, std: float, local: bool = False) -> Layer:
    """One that keeps the maps' size."""
    pad = kernel // 2
    return Layer(name, 1, True, kernel, 1, pad, px, conv_px(px, kernel, 1, pad), sees, out, std, 0.0, local)
