"""A network's parameters in one piece of memory, with a velocity beside each value, and a gradient where replicas sum.

The update and the sum over replicas then work on tensors of fixed layout, whatever layers there are.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

_ALIGN = 16  # values: each parameter begins where a cache line may, as if it had memory of its own


class Flat:
    """Makes the parameters views of `weights`, with a velocity for each value beside it.

    Gradients are what autograd makes of them, which costs no copy; or, `in_place`, they add up in views of `gradients`,
    behind which there is room for a few `more` values: `gradients_and_more` is what replicas sum in one call. The
    network must not be moved or converted as long as this is used, nor gradients in place be dropped.
    """

    def __init__(self, named_parameters: Iterable[tuple[str, nn.Parameter]], in_place: bool = False, more: int = 0):
        self.parameters = dict(named_parameters)
        first = next(iter(self.parameters.values()))
        self.places: dict[str, slice] = {}
        end = 0
        for name, parameter in self.parameters.items():
            self.places[name] = slice(end, end + parameter.numel())
            end += -(-parameter.numel() // _ALIGN) * _ALIGN
        self.weights, self.velocity = first.new_zeros(end), first.new_zeros(end)
        for name, parameter in self.parameters.items():
            values = self.view(self.weights, name)
            values.copy_(parameter.detach())
            parameter.data = values
        self.in_place = in_place
        self.gradients_and_more = first.new_zeros(end + more if in_place else 0)
        self.gradients, self.more = self.gradients_and_more.split([end, more] if in_place else [0, 0])
        for name, parameter in self.parameters.items():
            parameter.grad = self.view(self.gradients, name) if in_place else None

    def view(self, flat: Tensor, name: str) -> Tensor:
        """The part of a flat tensor that belongs to a parameter, in its shape and memory format."""
        parameter = self.parameters[name]
        return flat[self.places[name]].as_strided(parameter.shape, parameter.stride())

    def gradient(self, name: str) -> Tensor:
        """Of a parameter, its values in the order of its place; zeros where there was nothing to learn from."""
        parameter = self.parameters[name]
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        if gradient.stride() != parameter.stride():
            gradient = torch.empty_like(parameter).copy_(gradient)
        return gradient.as_strided((gradient.numel(),), (1,))

    def clear_gradients(self) -> None:
        self.gradients.zero_()
        for parameter in () if self.in_place else self.parameters.values():
            parameter.grad = None

    def is_whole(self) -> bool:
        """Whether the parameters, and gradients in place, still are where they were put."""
        return all(
            parameter.data_ptr() == self.weights[place].data_ptr()
            and (not self.in_place or _begins_at(self.gradients[place], parameter.grad))
            for parameter, place in zip(self.parameters.values(), self.places.values(), strict=True)
        )


def _begins_at(place: Tensor, tensor: Tensor | None) -> bool:
    return tensor is not None and tensor.data_ptr() == place.data_ptr()
