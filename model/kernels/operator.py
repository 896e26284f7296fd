"""Functions as operators of torch, each one node to `torch.compile`.

`torch.library.custom_op` does the same, but the first call of such an operator imports the compiler, which takes a
second and is of no use to a command that looks at one image.
"""

from collections.abc import Callable

import torch
from torch._ops import OpOverload


def operator(name: str, device: str = "default") -> Callable[[Callable], OpOverload]:
    """Makes of a function that changes none of its arguments, and returns none, the operator `alexnet::NAME`.

    Args:
        device: Whose tensors it takes; by default those of all.
    """

    def register(compute: Callable) -> OpOverload:
        qualified = f"alexnet::{name}"
        schema = torch.library.infer_schema(compute, mutates_args=())
        torch.library.define(qualified, schema, tags=torch.Tag.pt2_compliant_tag)
        torch.library.impl(qualified, device, compute)
        return getattr(torch.ops.alexnet, name).default

    return register
