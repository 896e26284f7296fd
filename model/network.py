"""What everything else asks of a network: the trainer, the export, evaluation, the features, the report, `predict`.

A new network is a class that says `features` and `head`, its spec, and a line in `networks.py`.

Letters: B batch, H, W, U units, K classes.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from model.columns import OneColumn, OneProcess
from model.layers import Dropout, initial_weights
from model.shapes import Layer
from model.specs import NetworkSpec


class Network(nn.Module):
    """A classifier of RGB pixels, 0 to 255, of which it subtracts its own mean.

    In training its images are multiplied by `input_scale` after the mean, and `at` names the masks of dropout.
    """

    input_scale = 1.0
    mean: Tensor

    def __init__(self, spec: NetworkSpec, columns: OneProcess | OneColumn):
        super().__init__()
        self.spec, self.columns = spec, columns
        side = spec.input_px if spec.mean == "image" else 1
        self.register_buffer("mean", torch.zeros(3, side, side), persistent=False)

    def features(self, images_BCHW: Tensor, shift_B3: Tensor | None = None) -> Tensor:
        """What the last layer reads (B, U), of images (0..255, float or uint8), lit by a shift of their colours."""
        raise NotImplementedError

    def head(self, features_BU: Tensor) -> Tensor:
        """Logits (B, K): the last layer."""
        raise NotImplementedError

    def forward(self, images_BCHW: Tensor, shift_B3: Tensor | None = None) -> Tensor:
        """Logits (B, K) of images (0..255, float or uint8), lit by a shift of their colours."""
        return self.head(self.features(images_BCHW, shift_B3))

    @property
    def named(self) -> nn.Module:
        """The module in which parameters and buffers have the names by which schedules and files know them."""
        return self

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

    def at(self, step: int, first_row: int = 0, counter: Tensor | None = None) -> None:
        """What comes next is this training step, on rows of the global batch from `first_row` on.

        The counter says the same step on the device: what was captured once in a CUDA graph is right in later steps.
        """
        for module in self.modules():
            if isinstance(module, Dropout):
                module.at(step if counter is None else counter, first_row)

    @torch.no_grad()
    def initialise(self, table: Mapping[str, Layer], seed: int) -> None:
        """Gives the layers of a table, which are modules of these names, their first weights and biases."""
        for name, layer in table.items():
            for kind, initial in zip(("weight", "bias"), initial_weights(layer, seed), strict=True):
                self.get_parameter(f"{name}.{kind}").copy_(self.part(f"{name}.{kind}", initial))

    def part(self, parameter: str, merged: Tensor) -> Tensor:
        """What this process holds of a parameter of all columns."""
        return merged

    def merge(self, parameter: str, part: Tensor) -> Tensor:
        """A parameter of all columns, from what each process holds; every rank of a replica must call it."""
        return part.clone(memory_format=torch.contiguous_format)

    @torch.no_grad()
    def centre(self, images_BCHW: Tensor, shift_B3: Tensor | None = None, overhang: int = 0) -> Tensor:
        """The images, lit, less the mean, with px of zeros on the right and at the bottom."""
        side, mean = self.spec.input_px, self.mean
        assert images_BCHW.shape[1:] == (3, side, side), f"images are {tuple(images_BCHW.shape)}, not B x 3 x {side}^2"
        shape = (images_BCHW.shape[0], 3, side + overhang, side + overhang)  # len() would fix the batch in an export
        x = torch.empty(shape, dtype=mean.dtype, device=mean.device, memory_format=torch.channels_last).zero_()
        inner = x[:, :, :side, :side].copy_(images_BCHW)
        lines_BHX = inner.permute(0, 2, 3, 1).flatten(2)  # W pixels of three values: three at a time would be slow
        if shift_B3 is not None:
            lines_BHX.add_(shift_B3.repeat(1, side)[:, None])
        lines_BHX.sub_(mean.permute(1, 2, 0).expand(side, side, 3).flatten(1))
        if self.training and self.input_scale != 1:
            inner.mul_(self.input_scale)
        return x
