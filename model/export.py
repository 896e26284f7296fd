"""A trained network as two files that anyone can read: weights and mean in safetensors, the rest in JSON; never pickle.

What is loaded takes RGB pixels, 0 to 255, and needs nothing else.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from torch import Tensor

from model.checkpoint import publish, sha256
from model.network import Network
from model.networks import NetSpec, build, kind_of

WEIGHTS, CARD = "model.safetensors", "model.json"
IMPORTED = (
    "module"  # all that a card says of where a network of somebody else's came from: loading runs nothing it names
)


@dataclass(frozen=True)
class Exported:
    """A network in one process, ready to predict, and what is known about it."""

    net: Network
    class_names: tuple[str, ...]
    class_titles: tuple[str, ...]
    provenance: dict  # where it came from: run, step, errors... whatever JSON can hold


def save_exported(
    folder: Path,
    spec: NetSpec,
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
        "net": asdict(spec) | {"kind": spec.kind.partition(":")[0]},
        "input": "RGB, float or uint8, 0..255, B x 3 x H x W",
        "class_names": class_names,
        "class_titles": class_titles or class_names,
        "provenance": provenance or {},
        "sha256": sha256(folder / WEIGHTS),
    }
    publish(folder / CARD, lambda path: path.write_text(json.dumps(card, indent=1)))
    return folder


def load_exported(folder: Path | str, kind: str = "") -> Exported:
    """The network of an exported folder, both columns in this process, in eval mode.

    Args:
        kind: the `net.kind` of the user's configuration. A network of somebody else's (`module:…`) is made by what it
            says; others do not need it. The exported folder itself never names code to import.

    Raises:
        ValueError: There is no model, or none that is whole and of this version; or nobody says how to make it.
    """
    card, tensors = read_exported(Path(folder))
    said = card["net"].get("kind", "alexnet") if isinstance(card.get("net"), dict) else ""
    is_imported = str(said).partition(":")[0] == IMPORTED
    if is_imported and not kind.startswith(f"{IMPORTED}:"):
        raise ValueError(
            f"{folder} is of somebody's own network, which its files do not name: say which function makes it, "
            "with --set net.kind=module:PACKAGE.MODULE:FUNCTION"
        )
    try:
        settings: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in card["net"].items()
        }
        settings["kind"] = kind if is_imported else said
        net = build(kind_of(settings["kind"]).spec(**settings))
        net.mean.copy_(tensors.pop("mean"))
        net.named.load_state_dict(tensors)
        return Exported(net.eval(), tuple(card["class_names"]), tuple(card["class_titles"]), card["provenance"])
    except (KeyError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        if is_imported:
            raise ValueError(f"{folder} is no model of the network that net.kind={kind} makes ({reason})") from error
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
    folder: Path, shapes: Mapping[str, tuple[int, ...]], class_names: tuple[str, ...], taken: str = "*"
) -> dict[str, Tensor]:
    """An exported model's weights to start a network of these parameters from, by parameter.

    All layers, for the same classes: for others than that model's, or the same ones in another order, the last layer
    stays new, and so does a bottleneck before it that does not fit. Or the layers that `taken` names and no other: by
    their names, or by patterns, of which a layer that the old network lacks is none. With a layer come its averages.

    Raises:
        ValueError: A layer has another shape, or is there in one of the two alone; or none is taken.
    """
    card, tensors = read_exported(folder)
    new_head = tuple(card["class_names"]) != class_names
    head = _layer(list(shapes)[-1])
    there = {name: tuple(tensor.shape) for name, tensor in tensors.items() if name != "mean"}
    wanted = dict(shapes)
    if taken != "*":
        there = {name: shape for name, shape in there.items() if name in wanted and _is_named(name, taken)}
        wanted = {name: shape for name, shape in wanted.items() if name in there or _layer(name) in _names(taken)}
        if not wanted:
            raise ValueError(f"train.init_layers={taken} names no layer of the network; name some, such as 'conv*'")
        if new_head and any(_layer(name) == head for name in wanted):
            raise ValueError(f"train.init_layers={taken} has {head}, but {folder} knows other classes: leave it out")
    may_differ = {head, "bottleneck"} if new_head else set()
    wanted = {name: shape for name, shape in wanted.items() if not (new_head and _layer(name) == head)}
    _require_same(wanted, there, may_differ, folder)
    return {name: tensors[name] for name, shape in wanted.items() if there.get(name) == shape}


def _layer(tensor: str) -> str:
    return tensor.rpartition(".")[0]


def _is_named(tensor: str, patterns: str) -> bool:
    return any(fnmatchcase(_layer(tensor), pattern) for pattern in _names(patterns))


def _names(patterns: str) -> list[str]:
    return patterns.replace(",", " ").split()


def _require_same(
    wanted: dict[str, tuple[int, ...]], there: dict[str, tuple[int, ...]], may_differ: set[str], folder: Path
) -> None:
    for name in [*wanted, *sorted(there.keys() - wanted.keys(), reverse=True)]:  # weights before biases
        if wanted.get(name) != there.get(name) and _layer(name) not in may_differ:
            needs = f"needs shape {wanted[name]}" if name in wanted else "has no place here"
            has = f"shape {there[name]}" if name in there else "no such layer"
            raise ValueError(
                f"train.init_from={folder}: {name} {needs}, that model has {has}; set the same net.* as it was trained "
                "with, or train.init_layers to those that both have"
            )
