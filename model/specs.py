"""What can be configured about the network and its training: frozen dataclasses, standard library only.

A field's `Annotated` text is its help on the command line (meaning and unit); the default stands beside it. Defaults
are the paper's prose; where the network that was really run in 2012 ("net 145") differs, one key holds the difference.
"""

import re
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, get_args, get_origin, get_type_hints

from model.notation import parse, parse_values

NETWORK = "network: alexnet, cifar10, or module:PACKAGE.MODULE:FUNCTION, your function from a spec to a torch.nn.Module"
SCHEDULES = ("plateau", "segments", "constant")  # those that go by themselves


def require(condition: bool, message: str) -> None:
    """ValueError with this message unless the condition holds."""
    if not condition:
        raise ValueError(message)


def _require_choices(spec: object, section: str) -> None:
    """Every Literal field holds one of its choices."""
    for name, hint in get_type_hints(type(spec)).items():
        value = getattr(spec, name)
        if get_origin(hint) is Literal and value not in get_args(hint):
            choices = ", ".join(str(choice) for choice in get_args(hint))
            raise ValueError(f"{section}.{name} is {value!r}; choose one of {choices}")


def conv_px(in_px: int, kernel: int, stride: int, pad: int) -> int:
    """Side of a convolution's output, px: the last window may overhang right and bottom, where it reads zeros."""
    return 1 + -((kernel - 2 * pad - in_px) // stride)


def pool_px(in_px: int, kernel: int, stride: int) -> int:
    """Side of a pooling layer's output, px: the last window may overhang and is clipped."""
    return 1 + -((kernel - in_px) // stride)


@dataclass(frozen=True)
class NetworkSpec:
    """What every network is told. `columns`: how many it has side by side."""

    kind: Annotated[str, NETWORK] = ""
    input_px: Annotated[int, "side of the square crop that the network sees, px"] = 224
    num_classes: Annotated[int, "classes; 0 takes as many as the data set has"] = 1000
    mean: Annotated[Literal["image", "channel"], "what to subtract: the mean image's centre, or one RGB mean"] = "image"

    def __post_init__(self):
        _require_choices(self, "net")
        require(self.input_px >= 1, f"net.input_px is {self.input_px}; use 1 px or more")
        require(self.num_classes >= 0, f"net.num_classes is {self.num_classes}; use 0 (as the data set) or more")
        require(self.num_classes != 1, "net.num_classes is 1; there is nothing to learn with fewer than 2 classes")


@dataclass(frozen=True)
class AlexNetSpec(NetworkSpec):
    """AlexNet. Counts of kernels, units and classes are of both columns together."""

    kind: Annotated[str, NETWORK] = "alexnet"
    columns: Annotated[Literal[1, 2], "columns of the network; the paper has 2, one on each GPU"] = 2
    kernels: Annotated[tuple[int, ...], "kernels of conv1 to conv5"] = (96, 256, 384, 384, 256)
    fc: Annotated[tuple[int, ...], "units of fc6 and fc7"] = (4096, 4096)
    conv1_kernel: Annotated[int, "side of conv1's kernels, px"] = 11
    conv1_stride: Annotated[int, "stride of conv1, px"] = 4
    conv1_pad: Annotated[int, "zeros around conv1's input, px; the last window may overhang further"] = 0
    conv6_kernels: Annotated[int, "kernels of a sixth convolution, which reads both columns; 0: none"] = 0
    bottleneck: Annotated[int, "units of a linear layer between fc7 and fc8; 0: none"] = 0
    removed: Annotated[Literal["none", "conv3", "conv4", "conv5"], "a middle convolution to leave out"] = "none"
    communication: Annotated[bool, "columns see each other before conv3, conv6, fc6 and fc7; false: at fc8 only"] = True
    pooling: Annotated[
        Literal["overlapping", "separate"], "windows 3/2, or 2/2 (then conv2 pads 1 and conv5 pads 0)"
    ] = "overlapping"
    activation: Annotated[Literal["relu", "tanh"], "the neurons' nonlinearity"] = "relu"
    dropout: Annotated[bool, "mask half of the outputs of fc6 and fc7 in training, halve them at test"] = True
    conv1_order: Annotated[
        Literal["relu_norm_pool", "norm_pool_relu"], "after conv1: as the paper says, or as it was run in 2012"
    ] = "relu_norm_pool"
    normalisation: Annotated[bool, "response normalisation; false drops every kind of it"] = True
    spatial_norm: Annotated[bool, "a second, 5x5 within-map normalisation after conv2's, as run in 2012"] = False
    lrn_alpha_over_n: Annotated[bool, "divide lrn_alpha by lrn_n, as run in 2012 (and as PyTorch does)"] = False
    lrn_n: Annotated[int, "neighbouring maps that a response is normalised over; odd"] = 5
    lrn_alpha: Annotated[float, "factor of the sum of squares, for pixels on 0..255"] = 1e-4
    lrn_beta: Annotated[float, "exponent of the normalisation"] = 0.75
    lrn_k: Annotated[float, "constant of the normalisation"] = 2.0
    conv1_std: Annotated[
        float, "initial standard deviation of conv1; tanh wants 0.001: with 0.01 pixels of 0..255 saturate most of it"
    ] = 0.01
    middle_std: Annotated[float, "initial standard deviation of conv3 to conv6; 0.03 as run in 2012"] = 0.01
    initial: Annotated[
        Literal["fixed", "scaled"],
        "initial weights of a layer: its standard deviation, or that times sqrt(inputs in the full network / inputs)",
    ] = "fixed"

    def __post_init__(self):
        super().__post_init__()
        require(
            len(self.kernels) == 5 and min(self.kernels) >= 1,
            f"net.kernels is {self.kernels}; give five positive counts, conv1 to conv5",
        )
        require(len(self.fc) == 2 and min(self.fc) >= 1, f"net.fc is {self.fc}; give two positive counts, fc6 and fc7")
        for name in ("conv6_kernels", "bottleneck", "conv1_pad"):
            require(getattr(self, name) >= 0, f"net.{name} is {getattr(self, name)}; use 0 or more")
        for name in ("conv1_kernel", "conv1_stride"):
            require(getattr(self, name) >= 1, f"net.{name} is {getattr(self, name)}; use 1 or more")
        for name in ("kernels", "fc", "conv6_kernels", "bottleneck"):
            value = getattr(self, name)
            counts = value if isinstance(value, tuple) else (value,)
            whole = all(count % self.columns == 0 for count in counts)
            require(whole, f"net.{name} is {value}; each count must divide among net.columns={self.columns}")
        require(self.lrn_n >= 1 and self.lrn_n % 2 == 1, f"net.lrn_n is {self.lrn_n}; use an odd number")
        require(self.lrn_k > 0, f"net.lrn_k is {self.lrn_k}; use more than 0")
        require(self.lrn_alpha >= 0, f"net.lrn_alpha is {self.lrn_alpha}; use 0 or more")
        for name in ("conv1_std", "middle_std"):
            require(getattr(self, name) > 0, f"net.{name} is {getattr(self, name)}; use more than 0")
        self._require_room()

    def _require_room(self) -> None:
        """The input is large enough for every window."""
        kernel, _ = self.pool
        conv1 = conv_px(self.input_px, self.conv1_kernel, self.conv1_stride, self.conv1_pad)
        room = self.input_px + 2 * self.conv1_pad >= self.conv1_kernel and conv1 >= kernel
        if room:
            conv2 = conv_px(pool_px(conv1, *self.pool), 5, 1, self.conv2_pad)
            room = conv2 >= kernel and conv_px(pool_px(conv2, *self.pool), 3, 1, self.conv5_pad) >= kernel
        require(room, f"net.input_px is {self.input_px}; too small for the layers, take more (paper: 224)")

    @property
    def pool(self) -> tuple[int, int]:
        """Window and stride of every pooling layer, px."""
        return (3, 2) if self.pooling == "overlapping" else (2, 2)

    @property
    def conv2_pad(self) -> int:
        return 2 if self.pooling == "overlapping" else 1

    @property
    def conv5_pad(self) -> int:
        return 1 if self.pooling == "overlapping" else 0


@dataclass(frozen=True)
class ImportedSpec(NetworkSpec):
    """A network of somebody else's: kind is module:PACKAGE.MODULE:FUNCTION, and the function makes it of this spec."""

    kind: Annotated[str, NETWORK] = "module:"
    columns: ClassVar[int] = 1

    def __post_init__(self):
        super().__post_init__()
        require(
            bool(re.fullmatch(r"module:[\w.]+:[\w.]+", self.kind)),
            f"net.kind is {self.kind!r}; write it as module:PACKAGE.MODULE:FUNCTION, such as module:mynets:resnet18",
        )


@dataclass(frozen=True)
class TrainSpec:
    """How the network is trained, and on how many workers."""

    seed: Annotated[int, "seed of the initial weights and of dropout"] = 0
    epochs: Annotated[float, "times that the training set is seen, or a part of one; the paper: about 90"] = 90
    batch_size: Annotated[int, "images in a batch, over all replicas"] = 128
    eval_batch_size: Annotated[int, "images in a batch of an evaluation, on each replica"] = 128
    lr: Annotated[float, "initial learning rate, where the schedule does not say the rates"] = 0.01
    momentum: Annotated[float, "momentum"] = 0.9
    weight_decay: Annotated[float, "weight decay"] = 0.0005
    decays: Annotated[str, "weight decay by layer or pattern where it is another, such as '*.bias=0 fc8=.004'"] = ""
    schedule: Annotated[
        str,
        "learning rate. plateau: / 10 when the validation error stops improving; segments: four equal ones, "
        "lr * 250^(-i/3); constant; or the rates from each epoch on, by layer or pattern, and the lighting's "
        "coefficient: '1:*=.01 *.bias=.02 23:*=.001 68:conv1=1e-5,light=0 72:conv1=0'",
    ] = "segments"
    patience: Annotated[int, "epochs without improvement before a plateau drop"] = 5
    min_epochs: Annotated[int, "epochs before the first plateau drop"] = 1
    min_improvement: Annotated[float, "smaller falls of the validation error are no improvement, for plateau"] = 0.002
    optimizer: Annotated[
        Literal["paper", "torch"], "momentum that contains the rate (paper), or torch.optim.SGD's, which does not"
    ] = "paper"
    precision: Annotated[
        Literal["float32", "tf32", "bf16", "auto"],
        "arithmetic of convolutions and matrix products; tf32 and bf16 need a GPU; auto: bf16 on one that has it",
    ] = "float32"
    device: Annotated[
        Literal["auto", "cpu", "gpu"], "what training and evaluation run on; auto: on GPUs where there are any"
    ] = "auto"
    placement: Annotated[
        Literal["auto", "one", "columns"], "both columns in one process, or one a process; auto looks at the GPUs"
    ] = "auto"
    replicas: Annotated[int, "copies of the network, which share each batch"] = 1
    checkpoint_every_steps: Annotated[int, "steps between checkpoints; 0: only at the end of an epoch"] = 1000
    checkpoint_every_s: Annotated[float, "seconds between checkpoints, beside those by steps; 0: none by the clock"] = 0
    keep_checkpoints: Annotated[int, "checkpoints kept; the oldest are deleted"] = 2
    init_from: Annotated[
        str,
        "model to start from: its folder on every node, models:/NAME@ALIAS, or RECIPE@newest of the same root; other "
        "classes get a new fc8; empty: random weights",
    ] = ""
    init_layers: Annotated[
        str, "layers to take from init_from, by name or pattern, such as 'conv* fc6'; the others start anew"
    ] = "*"
    stall_steps: Annotated[int, "steps after which a loss still at ln(classes) is warned about; 0: never"] = 2000

    def __post_init__(self):
        _require_choices(self, "train")
        least = {"batch_size": 1, "eval_batch_size": 1, "patience": 1, "min_epochs": 1, "replicas": 1}
        least |= {"keep_checkpoints": 1, "checkpoint_every_steps": 0, "checkpoint_every_s": 0}
        least |= {"stall_steps": 0, "seed": 0}
        for name, minimum in least.items():
            value = getattr(self, name)
            require(value >= minimum, f"train.{name} is {value}; use {minimum} or more")
        require(self.epochs > 0, f"train.epochs is {self.epochs:g}; use more than 0")
        require(self.lr > 0, f"train.lr is {self.lr}; use more than 0")
        parse_values(self.decays, "train.decays")
        if self.schedule not in SCHEDULES:
            self._require_schedule()
        require(0 <= self.momentum < 1, f"train.momentum is {self.momentum}; use 0 to below 1")
        require(self.weight_decay >= 0, f"train.weight_decay is {self.weight_decay}; use 0 or more")
        require(self.min_improvement >= 0, f"train.min_improvement is {self.min_improvement}; use 0 or more")
        require(
            self.batch_size >= self.replicas,
            f"train.batch_size is {self.batch_size}, fewer than train.replicas={self.replicas}; each needs an image",
        )

    def _require_schedule(self) -> None:
        """The schedule is one of settings."""
        near = ", ".join(SCHEDULES)
        require(":" in self.schedule, f"train.schedule is {self.schedule!r}; use {near}, or '1:*=.01 23:*=.001'")
        parse(self.schedule, "train.schedule")
        require(
            self.lr == TrainSpec.lr, f"train.lr is {self.lr:g}, but train.schedule says the rates: change them there"
        )
