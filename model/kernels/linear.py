"""A fully connected layer in float32 on the CPU by oneDNN, like the convolutions.

With the few rows of a batch its products are faster than MKL's, which `F.linear` takes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from model.kernels.operator import operator


@operator("linear", device="cpu")
def linear(x_BU: Tensor, weight_OU: Tensor, bias_O: Tensor) -> Tensor:
    """`F.linear` of float32 tensors."""
    return F.linear(x_BU.to_mkldnn(), weight_OU, bias_O).to_dense()


@operator("linear_backward", device="cpu")
def linear_backward(grad_BO: Tensor, x_BU: Tensor, weight_OU: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of x, weight and bias."""
    x, grad = x_BU.to_mkldnn(), grad_BO.to_mkldnn()
    of_x = torch.ops.aten.mkldnn_linear_backward_input(x_BU.shape, grad, weight_OU).to_dense()
    of_weight, of_bias = torch.ops.aten.mkldnn_linear_backward_weights(grad, x, weight_OU, True)
    return of_x, of_weight.to_dense().contiguous(), of_bias.to_dense()


@torch.library.register_fake(linear)
def _(x_BU: Tensor, weight_OU: Tensor, bias_O: Tensor) -> Tensor:
    return x_BU.new_empty(x_BU.shape[0], weight_OU.shape[0])


@torch.library.register_fake(linear_backward)
def _(grad_BO: Tensor, x_BU: Tensor, weight_OU: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(x_BU), torch.empty_like(weight_OU), weight_OU.new_empty(weight_OU.shape[0])


def _keep(ctx, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:2])


def _backward(ctx, grad_BO: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return linear_backward(grad_BO, *ctx.saved_tensors)


torch.library.register_autograd(linear, _backward, setup_context=_keep)
