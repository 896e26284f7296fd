"""Rates as the logs of 2012 tell them: "1:*=.01 *.bias=.02 23:*=.001 68:conv1=1e-5,light=0 72:conv1=0".

From the start of an epoch on (counted from 1, fractions allowed) parameters have a rate, by the name of their layer or
a pattern, weights and biases together or apart. Of several that fit, that of the closest name holds (conv1.bias, conv1,
conv*.bias, conv*, *.bias, *), and of one name the latest. `light` is the coefficient of the lighting.

Standard library only: specs are read without torch.
"""

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import NamedTuple

LIGHT = "light"
_WORD = re.compile(r"[^\s,]+")
_EPOCH = re.compile(r"(?P<epoch>[^:]*):(?P<rest>.*)")
_NAME = re.compile(r"[A-Za-z0-9_*?]+(\.[A-Za-z0-9_*?]+)*")
KINDS = ("weight", "bias")


class Setting(NamedTuple):
    """From the start of an epoch (1: from the beginning) what has the name has the value."""

    epoch: float
    name: str
    value: float


def parse(text: str, key: str) -> tuple[Setting, ...]:
    """The settings in the order of the text. ValueError with a caret, in its notes, under what cannot be read."""
    settings, epoch = list[Setting](), 0.0
    for word in _WORD.finditer(text):
        start, said = word.start(), word.group()
        if begun := _EPOCH.fullmatch(said):
            before, epoch = max(epoch, 1), _number(begun["epoch"], "an epoch", text, start, key)
            if epoch < before:
                raise _wrong(text, start, key, f"epoch {epoch:g} comes before {before:g}")
            start, said = start + begun.start("rest"), begun["rest"]
        if not said:
            continue
        if not epoch:
            raise _wrong(text, start, key, "no epoch is named yet; begin with 1:")
        settings.append(_setting(said, epoch, text, start, key))
    if not settings:
        raise ValueError(f"{key} is {text!r}; use epochs and rates, such as '1:*=.01 23:*=.001'")
    return tuple(settings)


def parse_values(text: str, key: str) -> tuple[Setting, ...]:
    """The same without epochs, for what does not change: "*.bias=0 fc10=.004"."""
    words = _WORD.finditer(text)
    return tuple(_setting(word.group(), 1.0, text, word.start(), key) for word in words)


def value_at(settings: Iterable[Setting], parameter: str, epoch: float) -> float | None:
    """What holds for a parameter ("conv1.weight", or `light`) at an epoch; None where nothing fits.

    Args:
        epoch: counted from 1; 1.5 is the middle of the first one.
    """
    fitting = [setting for setting in settings if setting.epoch <= epoch and fits(setting.name, parameter)]
    closest = max(reversed(fitting), key=lambda setting: _closeness(setting.name), default=None)  # of equals the latest
    return closest.value if closest else None


def fits(name: str, parameter: str) -> bool:
    if LIGHT in (name, parameter):
        return name == parameter
    (layer, kind), (of_layer, _, of_kind) = _parted(name), parameter.rpartition(".")
    return fnmatchcase(of_layer, layer) and kind in ("", of_kind)


def _closeness(name: str) -> tuple[int, bool]:
    """How exactly a name says which parameters: a whole name, then patterns by their letters; then a kind."""
    layer, kind = _parted(name)
    is_pattern = "*" in layer or "?" in layer
    return len(layer) - layer.count("*") - layer.count("?") if is_pattern else 1000, bool(kind)


def _parted(name: str) -> tuple[str, str]:
    """The layer that a name says, and the kind of its parameters, if any: layer1.conv2.bias."""
    layer, _, kind = name.rpartition(".")
    return (layer, kind) if kind in KINDS and layer else (name, "")


def _setting(said: str, epoch: float, text: str, start: int, key: str) -> Setting:
    name, equals, value = said.partition("=")
    if not equals or not _NAME.fullmatch(name):
        raise _wrong(text, start, key, f"{said!r} is not NAME=VALUE, such as *=.01, conv1=0 or *.bias=.02")
    number = _number(value, "a value", text, start + len(name) + 1, key)
    if name == LIGHT and epoch % 1:
        raise _wrong(text, start, key, "the light changes with a whole epoch only")
    return Setting(epoch, name, number)


def _number(said: str, what: str, text: str, start: int, key: str) -> float:
    try:
        number = float(said)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise _wrong(text, start, key, f"{said!r} is not {what}, a number of 0 or more")
    return number


def _wrong(text: str, start: int, key: str, what: str) -> ValueError:
    error = ValueError(f"{key}: {what}")
    error.add_note(f"  {text}")
    error.add_note(f"  {' ' * start}^")
    return error
