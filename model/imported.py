"""A network of somebody else's: any importable function from a spec to a `torch.nn.Module`, in one process.

The module takes RGB pixels less the mean, float32 (B, 3, input_px, input_px), about -128 to 128, and returns logits
(B, num_classes). What it draws at random in training is a function of the seed, the step and the rows.
"""

import inspect
import os
import sys
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from importlib import import_module
from operator import attrgetter
from pathlib import Path

import torch
from torch import Tensor, nn

from model.columns import OneColumn, OneProcess
from model.layers import generator
from model.network import Network
from model.shapes import ImportedLayer
from model.specs import ImportedSpec


class Changed(ValueError):
    """The file of a function is not what was imported from it."""


class Imported(Network):
    """The network of a spec, whose module's parameters go by their names in it."""

    spec: ImportedSpec

    def __init__(self, spec: ImportedSpec, columns: OneProcess | OneColumn | None = None, *, seed: int = 0):
        super().__init__(spec, columns or OneProcess(spec.columns))
        self.seed = seed
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.module = _made(spec)
        if "mean" in self.module.state_dict():
            raise _wrong(spec, "a tensor of it is called mean, as that of the pixels is; call it otherwise")

    @property
    def named(self) -> nn.Module:
        return self.module

    def at(self, step: int, first_row: int = 0, counter: Tensor | None = None) -> None:
        torch.manual_seed(generator("cpu", self.seed, "step", step, first_row).initial_seed())

    def features(self, images_BCHW: Tensor, shift_B3: Tensor | None = None) -> Tensor:
        found: list[Tensor] = []
        with self.last.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0])):
            self(images_BCHW, shift_B3)
        return found[-1].flatten(1)

    def head(self, features_BU: Tensor) -> Tensor:
        return self.last(features_BU)

    def forward(self, images_BCHW: Tensor, shift_B3: Tensor | None = None) -> Tensor:
        return self.module(self.centre(images_BCHW, shift_B3))

    @property
    def last(self) -> nn.Linear:
        """The layer that makes the logits. ValueError: there is no such layer."""
        found = [module for module in self.module.modules() if isinstance(module, nn.Linear)]
        if not found or found[-1].out_features != self.spec.num_classes:
            raise _wrong(self.spec, "its last layer is no torch.nn.Linear, so that nobody knows its features")
        return found[-1]


def layer_table(spec: ImportedSpec) -> tuple[ImportedLayer, ...]:
    """The modules with parameters of their own, in the order in which they are registered.

    Raises:
        ValueError: The function cannot be imported, or what it makes is no network of this spec.
    """
    net = Imported(spec).eval()
    names = {name: module for name, module in net.module.named_modules() if any(True for _ in module.parameters(False))}
    outputs: dict[str, tuple[int, ...]] = dict.fromkeys(names, ())
    for name, module in names.items():
        module.register_forward_hook(partial(_note, outputs, name))
    try:
        with torch.no_grad():
            logits_BK = net(torch.zeros(2, 3, spec.input_px, spec.input_px))
    except Exception as error:
        raise _wrong(spec, f"it fails on images of {spec.input_px} px: {_line(error)}") from error
    if not isinstance(logits_BK, Tensor) or logits_BK.shape != (2, spec.num_classes):
        shape = list(logits_BK.shape) if isinstance(logits_BK, Tensor) else type(logits_BK).__name__
        raise _wrong(spec, f"two images give {shape}, not logits of [2, {spec.num_classes}]")
    return tuple(
        ImportedLayer(
            name,
            type(module).__name__,
            tuple((one, tuple(parameter.shape)) for one, parameter in module.named_parameters(recurse=False)),
            tuple((one, tuple(buffer.shape)) for one, buffer in module.named_buffers(recurse=False)),
            outputs[name],
        )
        for name, module in names.items()
    )


_as_first_seen: dict[object, str] = {}  # digests of files, by the modules that were imported from them


def source_digest(spec: ImportedSpec) -> str:
    """sha256 of the file that the function is in.

    Raises:
        Changed: The function was imported here from other code than is in the file now.
        ValueError: It cannot be imported.
    """
    function = inspect.unwrap(_function(spec))
    try:
        file = Path(inspect.getsourcefile(function) or "")
        now = sha256(file.read_bytes()).hexdigest()
    except (TypeError, OSError) as error:  # of C, or no function but something else to call, or typed in
        raise _wrong(spec, "the file that it is in cannot be read; give a function that a .py file defines") from error
    if _as_first_seen.setdefault(inspect.getmodule(function), now) != now:
        what = f"{file.name} was changed since it was imported; start again (a notebook: restart its kernel)"
        raise Changed(f"net.kind={spec.kind}: {what}")
    return now


def _note(outputs: dict[str, tuple[int, ...]], name: str, module: nn.Module, inputs: tuple, output: object) -> None:
    outputs[name] = tuple(output.shape[1:]) if isinstance(output, Tensor) else ()


def _made(spec: ImportedSpec) -> nn.Module:
    function = _function(spec)
    try:
        module = function(spec)
    except Exception as error:
        raise _wrong(spec, f"it fails: {_line(error)}") from error
    if not isinstance(module, nn.Module) or not any(True for _ in module.parameters()):
        raise _wrong(spec, f"it gives no torch.nn.Module with parameters, but {type(module).__name__}")
    return module


def _function(spec: ImportedSpec) -> Callable[[ImportedSpec], nn.Module]:
    """By its name; modules of the current folder are found as well."""
    _, module, name = spec.kind.split(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        found = attrgetter(name)(import_module(module))
    except Exception as error:
        raise _wrong(spec, f"{_line(error)}; it must be importable here and on every worker") from error
    if not callable(found):
        raise _wrong(spec, f"{name} is no function")
    return found


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _wrong(spec: ImportedSpec, what: str) -> ValueError:
    return ValueError(f"net.kind={spec.kind}: {what}")
