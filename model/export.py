"""A trained network as two files that anyone can read: weights and mean in safetensors, the rest in JSON; never pickle.

What is loaded takes RGB pixels, 0 to 255, and needs nothing else.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from torch import Tensor

from model.alexnet import AlexNet
from model.checkpoint import publish, sha256
from model.shapes import Layer
from model.specs import AlexNetSpec

WEIGHTS, CARD = "model.safetensors", "model.json"


@dataclass(frozen=True)
class Exported:
    """A network in one process, ready to predict, and what is known about it."""

    net: AlexNet
    class_names: tuple[str, ...]
    class_titles: tuple[str, ...]
    provenance: dict  # where it came from: run, step, errors... whatever JSON can hold


def save_exported(
    folder: Path,
    spec: AlexNetSpec,
    weights: dict[str, Tensor],
    mean_CHW: Tensor,
    *,
    class_names: tuple[str, ...],
    class_titles: tuple[str, ...] = (),
    provenance: dict | None = None,
) -> Path:
    """Writes the weights (`Trainer.weights()`), the mean (`net.mean`) and the card, which comes last."""
    from safetensors.torch import save

    assert len(class_names) == spec.num_classes, f"{len(class_names)} names for {spec.num_classes} classes"
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {**weights, "mean": mean_CHW.detach().cpu().contiguous()}
    publish(folder / WEIGHTS, lambda path: path.write_bytes(save(tensors)))
    card = {
        "net": asdict(spec),
        "input": "RGB, float or uint8, 0..255, B x 3 x H x W",
        "class_names": class_names,
        "class_titles": class_titles or class_names,
        "provenance": provenance or {},
        "sha256": sha256(folder / WEIGHTS),
    }
    publish(folder / CARD, lambda path: path.write_text(json.dumps(card, indent=1)))
    return folder


def load_exported(folder: Path | str) -> Exported:
    """The network of an exported folder, both columns in this process, in eval mode.

    Raises:
        ValueError: There is no model, or none that is whole and of this version.
    """
    card, tensors = read_exported(Path(folder))
    try:
        settings: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in card["net"].items()
        }
        net = AlexNet(AlexNetSpec(**settings))
        net.load_state_dict(tensors)
        return Exported(net.eval(), tuple(card["class_names"]), tuple(card["class_titles"]), card["provenance"])
    except (KeyError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{folder} holds no model of this version ({reason}); export it again") from error


def read_exported(folder: Path) -> tuple[dict, dict[str, Tensor]]:
    """The card and the tensors (parameters by name, and `mean`)."""
    from safetensors.torch import load_file

    if not (folder / CARD).exists():
        raise ValueError(f"{folder} holds no exported model (no {CARD}); name the folder that `train` exported")
    try:
        card = json.loads((folder / CARD).read_text())
        described, found = card["sha256"], sha256(folder / WEIGHTS)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{folder} holds no whole model ({error}); export or copy it again") from error
    if found != described:
        raise ValueError(f"{folder / WEIGHTS} is not the file that {CARD} describes; export or copy it again")
    return card, load_file(folder / WEIGHTS)


def starting_weights(
    folder: Path, layers: Iterable[Layer], class_names: tuple[str, ...], taken: str = "*"
) -> dict[str, Tensor]:
    """An exported model's weights to start a network of these layers from, by parameter.

    All layers, for the same classes: for others than that model's, or the same ones in another order, fc8 stays new,
    and so does a bottleneck before it that does not fit. Or the layers that `taken` names and no other: by their names,
    or by patterns, of which a layer that the old network lacks is none.

    Raises:
        ValueError: A layer has another shape, or is there in one of the two alone; or none is taken.
    """
    card, tensors = read_exported(folder)
    new_head = tuple(card["class_names"]) != class_names
    there = {name: tuple(tensor.shape) for name, tensor in tensors.items() if name != "mean"}
    wanted = _shapes(layers)
    if taken != "*":
        there = {name: shape for name, shape in there.items() if name in wanted and _is_named(name, taken)}
        wanted = {n: shape for n, shape in wanted.items() if n in there or n.partition(".")[0] in _names(taken)}
        if not wanted:
            raise ValueError(f"train.init_layers={taken} names no layer of the network; name some, such as 'conv*'")
        if new_head and "fc8.weight" in wanted:
            raise ValueError(f"train.init_layers={taken} has fc8, but {folder} knows other classes: leave it out")
    may_differ = {"fc8", "bottleneck"} if new_head else set()
    wanted = {name: shape for name, shape in wanted.items() if not (new_head and name.startswith("fc8."))}
    _require_same(wanted, there, may_differ, folder)
    return {name: tensors[name] for name, shape in wanted.items() if there.get(name) == shape}


def _shapes(layers: Iterable[Layer]) -> dict[str, tuple[int, ...]]:
    return {
        f"{layer.name}.{kind}": tuple(shape)
        for layer in layers
        for kind, shape in (("weight", layer.weight_shape), ("bias", (layer.out,)))
    }


def _is_named(parameter: str, patterns: str) -> bool:
    layer = parameter.partition(".")[0]
    return any(fnmatchcase(layer, pattern) for pattern in _names(patterns))


def _names(patterns: str) -> list[str]:
    return patterns.replace(",", " ").split()


def _require_same(
    wanted: dict[str, tuple[int, ...]], there: dict[str, tuple[int, ...]], may_differ: set[str], folder: Path
) -> None:
    for name in [*wanted, *sorted(there.keys() - wanted.keys(), reverse=True)]:  # weights before biases
        if wanted.get(name) != there.get(name) and name.split(".")[0] not in may_differ:
            needs = f"needs shape {wanted[name]}" if name in wanted else "has no place here"
            has = f"shape {there[name]}" if name in there else "no such layer"
            raise ValueError(
                f"train.init_from={folder}: {name} {needs}, that model has {has}; set the same net.* as it was trained "
                "with, or train.init_layers to those that both have"
            )
