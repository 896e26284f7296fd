"""Linear classifiers, one against the rest for each class, by stochastic gradient descent on the logistic loss.

Several settings of rate and decay learn side by side from one pass over the data. The rate falls linearly to 0; the
biases learn at a tenth of it and do not decay.

Letters: B images, F values of an image, K classes, X = settings * K.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_BIAS_RATE = 0.1


@dataclass(frozen=True)
class Setting:
    """How one of the classifiers learns."""

    rate: float  # at the first step
    decay: float  # of the weights


class OneAgainstRest:
    """The classifiers of some settings over the same data."""

    def __init__(self, settings: Sequence[Setting], num_values: int, num_classes: int, batch_size: int):
        self.settings, self.num_classes, self.batch_size = tuple(settings), num_classes, batch_size
        self.weights_FX = torch.zeros(num_values, len(settings) * num_classes)
        self.biases_X = torch.zeros(len(settings) * num_classes)
        self._rates_X = torch.tensor([s.rate for s in settings]).repeat_interleave(num_classes)
        self._decays_X = torch.tensor([s.decay for s in settings]).repeat_interleave(num_classes)

    def step(self, values_BF: Tensor, labels_B: Tensor, left: float) -> None:
        """One step of all of them, of a batch or what is left of one, which counts for less.

        Args:
            left: The share of the training that is still to come.
        """
        rate_X = self._rates_X * left
        is_class_BK = torch.nn.functional.one_hot(labels_B, self.num_classes).to(values_BF.dtype)
        scores_BX = torch.addmm(self.biases_X, values_BF, self.weights_FX)
        slopes_BX = torch.sigmoid(scores_BX) - is_class_BK.repeat(1, len(self.settings))
        slopes_BX *= rate_X / self.batch_size
        self.weights_FX *= 1 - rate_X * self._decays_X
        self.weights_FX.addmm_(values_BF.T, slopes_BX, alpha=-1)
        self.biases_X -= slopes_BX.sum(0) * _BIAS_RATE

    def probabilities(self, values_BF: Tensor) -> Tensor:
        """[settings, B, K]: each class's probability against the rest, scaled so that an image's sum to 1."""
        alone_BX = torch.sigmoid(torch.addmm(self.biases_X, values_BF, self.weights_FX))
        alone_SBK = alone_BX.reshape(len(values_BF), len(self.settings), self.num_classes).transpose(0, 1)
        return alone_SBK / alone_SBK.sum(-1, keepdim=True).clamp(min=1e-30)
