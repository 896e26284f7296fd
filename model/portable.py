"""A network that torch alone can run: each operator of ours replaced by the formula that it computes."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.layers import LRN, response_norm_formula
from model.network import Network


def portable(net: Network) -> nn.Module:
    """A trained network as a module of PyTorch's own operators, which exports to a file that needs nothing else."""
    side = net.spec.input_px
    images_BCHW = torch.zeros(2, 3, side, side, device=net.mean.device)
    exported = torch.export.export(net.eval(), (images_BCHW,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    return exported.run_decompositions(_FORMULAS).module()


def _response_norm(x: Tensor, n: int, alpha: float, beta: float, k: float, keep: bool) -> tuple[Tensor, Tensor, Tensor]:
    return response_norm_formula(x, LRN(n, alpha, beta, k)), x.new_empty(0), x.new_empty(0)


_FORMULAS = {
    torch.ops.alexnet.response_norm.default: _response_norm,
    torch.ops.alexnet.linear.default: F.linear,
}
