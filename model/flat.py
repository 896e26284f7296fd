"""A network's parameters in one piece of memory, with a gradient and a velocity beside each value.

The update and the sum over replicas then work on three tensors of fixed layout, whatever layers there are.
"""

from collections.abc import Iterable

from torch import Tensor, nn

_ALIGN = 16  # values: each parameter begins where a cache line may, as if it had memory of its own


class Flat:
    """Makes the parameters views of `weights`, and their gradients views of `gradients`, which add up in place.

    Behind the gradients there is room for a few more values: `gradients_and_more` is what replicas sum in one call.
    The network must not be moved or converted, nor its gradients dropped, as long as this is used.
    """

    def __init__(self, named_parameters: Iterable[tuple[str, nn.Parameter]], more: int = 0):
        self.parameters = dict(named_parameters)
        first = next(iter(self.parameters.values()))
        self.places: dict[str, slice] = {}
        end = 0
        for name, parameter in self.parameters.items():
            self.places[name] = slice(end, end + parameter.numel())
            end += -(-parameter.numel() // _ALIGN) * _ALIGN
        self.weights, self.velocity = first.new_zeros(end), first.new_zeros(end)
        self.gradients_and_more = first.new_zeros(end + more)
        self.gradients, self.more = self.gradients_and_more.split([end, more])
        for name, parameter in self.parameters.items():
            values, gradient = self.view(self.weights, name), self.view(self.gradients, name)
            values.copy_(parameter.detach())
            parameter.data, parameter.grad = values, gradient

    def view(self, flat: Tensor, name: str) -> Tensor:
        """The part of a flat tensor that belongs to a parameter, in its shape and memory format."""
        parameter = self.parameters[name]
        return flat[self.places[name]].as_strided(parameter.shape, parameter.stride())

    def is_whole(self) -> bool:
        """Whether the parameters and their gradients still are where they were put."""
        return all(
            parameter.data_ptr() == self.weights[place].data_ptr()
            and parameter.grad is not None
            and parameter.grad.data_ptr() == self.gradients[place].data_ptr()
            for parameter, place in zip(self.parameters.values(), self.places.values(), strict=True)
        )
