"""A trained network as two files that anyone can read: weights and mean in safetensors, the rest in JSON; never pickle.

What is loaded takes RGB pixels, 0 to 255, and needs nothing else.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
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


def starting_weights(folder: Path, layers: Iterable[Layer], class_names: tuple[str, ...]) -> dict[str, Tensor]:
    """An exported model's weights to start a network of these layers from, by parameter.

    For other classes than that model's, or the same ones in another order, fc8 stays new, and so does a bottleneck
    before it that does not fit.

    Raises:
        ValueError: Another layer has another shape, or is there in one of the two alone.
    """
    card, tensors = read_exported(folder)
    new_head = tuple(card["class_names"]) != class_names
    may_differ = {"fc8", "bottleneck"} if new_head else set()
    wanted = {
        f"{layer.name}.{kind}": tuple(shape)
        for layer in layers
        if not (new_head and layer.name == "fc8")
        for kind, shape in (("weight", layer.weight_shape), ("bias", (layer.out,)))
    }
    there = {name: tuple(tensor.shape) for name, tensor in tensors.items() if name != "mean"}
    for name in [*wanted, *sorted(there.keys() - wanted.keys(), reverse=True)]:  # weights before biases
        if wanted.get(name) != there.get(name) and name.split(".")[0] not in may_differ:
            needs = f"needs shape {wanted[name]}" if name in wanted else "has no place here"
            has = f"shape {there[name]}" if name in there else "no such layer"
            raise ValueError(
                f"train.init_from={folder}: {name} {needs}, that model has {has}; "
                "set the same net.* as it was trained with"
            )
    return {name: tensors[name] for name, shape in wanted.items() if there.get(name) == shape}
