"""The networks there are. A new one is a spec with its layers, a module that is a `Network`, and a line here.

Standard library only, as long as no network is built or imported.
"""

from dataclasses import replace
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from model.cifar10_shapes import Cifar10Spec
from model.shapes import BYTES, ImportedLayer, Layer
from model.specs import AlexNetSpec, ImportedSpec

if TYPE_CHECKING:
    from model.columns import OneColumn, OneProcess
    from model.network import Network

NetSpec = AlexNetSpec | Cifar10Spec | ImportedSpec
Layers = tuple[Layer, ...] | tuple[ImportedLayer, ...]


class Kind(NamedTuple):
    """A kind of network."""

    spec: type
    layers: str  # module:function from a spec to the layers with parameters, in the network's order
    network: str  # module:class, a `Network`


KINDS = {
    "alexnet": Kind(AlexNetSpec, "model.shapes:layer_table", "model.alexnet:AlexNet"),
    "cifar10": Kind(Cifar10Spec, "model.cifar10_shapes:layer_table", "model.cifar10:Cifar10Net"),
    "module": Kind(ImportedSpec, "model.imported:layer_table", "model.imported:Imported"),
}


def kind_of(name: str) -> Kind:
    """The kind of a `net.kind`. ValueError: there is none."""
    kind = KINDS.get(name.partition(":")[0])
    if kind is None:
        known = ", ".join(known for known in KINDS if known != "module")
        raise ValueError(f"net.kind is {name!r}; use {known}, or module:PACKAGE.MODULE:FUNCTION for a network of yours")
    return kind


def build(spec: NetSpec, columns: "OneProcess | OneColumn | None" = None, *, seed: int = 0) -> "Network":
    """The network of a spec, or one column of it, with its initial weights."""
    return _named(kind_of(spec.kind).network)(spec, columns, seed=seed)


@cache
def layer_table(spec: NetSpec) -> Layers:
    """The layers with parameters, in the network's order; `spec.num_classes` must be known."""
    return _named(kind_of(spec.kind).layers)(spec)


def parameter_shapes(spec: NetSpec) -> dict[str, tuple[int, ...]]:
    """conv1.weight, conv1.bias and so on, in the network's order, of all columns together."""
    return {_joined(layer.name, name): shape for layer in layer_table(spec) for name, shape in layer.shapes.items()}


def tensor_shapes(spec: NetSpec) -> dict[str, tuple[int, ...]]:
    """The same, with what layers average in training."""
    return {
        _joined(layer.name, name): shape
        for layer in layer_table(spec)
        for name, shape in (layer.shapes | layer.averages).items()
    }


def parameter_names(spec: NetSpec) -> list[str]:
    """The same without shapes; the number of classes has no part in them."""
    return list(parameter_shapes(replace(spec, num_classes=spec.num_classes or 2)))


def num_params(spec: NetSpec) -> int:
    return sum(layer.params for layer in layer_table(spec))


def num_features(spec: NetSpec) -> int:
    """How many values of an image the last layer reads; the number of classes has no part in it."""
    shapes = parameter_shapes(replace(spec, num_classes=spec.num_classes or 2))
    return next((shape[1] for shape in reversed(shapes.values()) if len(shape) == 2), 0)


def num_macs(spec: NetSpec) -> int:
    """Multiply-adds of one image, forward."""
    return sum(layer.macs for layer in layer_table(spec))


def train_macs(spec: NetSpec) -> int:
    """Multiply-adds of one image, forward and backward: the first layer needs no gradient of its input."""
    return 3 * num_macs(spec) - layer_table(spec)[0].macs


def exchanged_bytes(spec: NetSpec) -> int:
    """Bytes that both columns together send for one training image in float32: gathers, their sums, and the logits."""
    logits = spec.num_classes * BYTES if spec.columns == 2 else 0
    return 2 * sum(layer.exchanged_bytes for layer in layer_table(spec)) + logits


def _joined(layer: str, name: str) -> str:
    return f"{layer}.{name}" if layer else name


def _named(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)
