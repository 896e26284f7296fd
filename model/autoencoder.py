"""A deep autoencoder with a binary code, for finding images fast (section 6.1; Krizhevsky and Hinton, 2011, in kind).

Units of ReLUs lead to logistic ones, which are rounded to bits, and back. The backward pass takes the rounding for the
identity, so that ordinary gradients train it; theirs was pre-trained layer by layer.

Letters: B vectors of a batch, U values of a vector, C bits of a code.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

HIDDEN = (1024, 512)  # units on the way to the code, and back


class Autoencoder(nn.Module):
    """From vectors to bits and back; vectors are standardised with `mean_U` and one `scale` for all values."""

    def __init__(self, num_values: int, num_bits: int, seed: int = 0):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.encoder = _layers((num_values, *HIDDEN, num_bits))
            self.decoder = _layers((num_bits, *reversed(HIDDEN), num_values))
        self.mean_U: Tensor
        self.scale: Tensor
        self.register_buffer("mean_U", torch.zeros(num_values))
        self.register_buffer("scale", torch.ones(()))

    def standardise(self, total_U: Tensor, squares_U: Tensor, count: int) -> None:
        """Takes mean and scale from the sums of so many vectors and of their squares, float64."""
        mean_U = total_U / count
        variance = (squares_U / count - mean_U.square()).clamp(min=0).mean()
        self.mean_U.copy_(mean_U)
        self.scale.copy_(variance.sqrt() if variance > 0 else torch.ones(()))

    def forward(self, vectors_BU: Tensor) -> Tensor:
        """The mean squared error of the reconstruction; 1 is that of the mean vector."""
        wanted_BU = self._standard(vectors_BU)
        soft_BC = self.encoder(wanted_BU).sigmoid()
        bits_BC = soft_BC + ((soft_BC > 0.5).to(soft_BC) - soft_BC).detach()
        return (self.decoder(bits_BC - 0.5) - wanted_BU).square().mean()

    @torch.no_grad()
    def bits(self, vectors_BU: Tensor) -> Tensor:
        """The codes, bool [B, C]."""
        return self.encoder(self._standard(vectors_BU)) > 0

    def _standard(self, vectors_BU: Tensor) -> Tensor:
        return (vectors_BU - self.mean_U) / self.scale


def train_epoch(net: Autoencoder, optimizer: torch.optim.Optimizer, batches: Iterable[Tensor]) -> float:
    """One pass over the vectors; the mean of the errors, each before its update."""
    total, count = 0.0, 0
    for vectors_BU in batches:
        optimizer.zero_grad()
        error = net(vectors_BU)
        error.backward()
        optimizer.step()
        total += error.item() * len(vectors_BU)
        count += len(vectors_BU)
    return total / count


def _layers(sizes: tuple[int, ...]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in zip(sizes, sizes[1:], strict=False):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
