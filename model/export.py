"""A trained network as two files that anyone can read: weights and mean in safetensors, the rest in JSON; never pickle.

What is loaded takes RGB pixels, 0 to 255, and needs nothing else.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import Tensor

from model.alexnet import AlexNet
from model.checkpoint import publish, sha256
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
    from safetensors.torch import save_file

    assert len(class_names) == spec.num_classes, f"{len(class_names)} names for {spec.num_classes} classes"
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {**weights, "mean": mean_CHW.detach().cpu().contiguous()}
    publish(folder / WEIGHTS, lambda path: save_file(tensors, path))
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
    """The network of an exported folder, both columns in this process, in eval mode."""
    card, tensors = read_exported(Path(folder))
    settings = {name: tuple(value) if isinstance(value, list) else value for name, value in card["net"].items()}
    net = AlexNet(AlexNetSpec(**settings))
    net.load_state_dict(tensors)
    return Exported(net.eval(), tuple(card["class_names"]), tuple(card["class_titles"]), card["provenance"])


def read_exported(folder: Path) -> tuple[dict, dict[str, Tensor]]:
    """The card and the tensors (parameters by name, and `mean`)."""
    from safetensors.torch import load_file

    if not (folder / CARD).exists():
        raise ValueError(f"{folder} holds no exported model (no {CARD}); name the folder that `train` exported")
    card = json.loads((folder / CARD).read_text())
    if sha256(folder / WEIGHTS) != card["sha256"]:
        raise ValueError(f"{folder / WEIGHTS} is not the file that {CARD} describes; export or copy it again")
    return card, load_file(folder / WEIGHTS)


def starting_weights(folder: Path, net: AlexNet) -> dict[str, Tensor]:
    """An exported model's weights to start `net` from; fc8 stays as `net` has it when the classes differ.

    Raises:
        ValueError: another layer has another shape.
    """
    _, tensors = read_exported(folder)
    weights = {}
    for name, layer in net.table.items():
        for kind, shape in (("weight", layer.weight_shape), ("bias", (layer.out,))):
            found = tensors.get(f"{name}.{kind}")
            if found is not None and tuple(found.shape) == tuple(shape):
                weights[f"{name}.{kind}"] = found
            elif name != "fc8":
                has = "no such layer" if found is None else f"shape {tuple(found.shape)}"
                raise ValueError(
                    f"train.init_from={folder}: {name}.{kind} needs shape {tuple(shape)}, that model has {has}; "
                    "set the same net.* as it was trained with"
                )
    return weights
