"""Several models on the same images: each one's errors, those of their averaged probabilities, and of all but one."""

import json
from collections.abc import Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any

from model.metrics import TopK
from pipelines.storage import Folder
from workflows.config import UsageError

if TYPE_CHECKING:
    from torch import Tensor

ALIKE = ("class_names", "input_px", "size_px")  # what models must agree on that judge the same images


class Votes:
    """Errors of M models, of their average and of the averages without one; sums that merge."""

    def __init__(self, num_models: int):
        self.single = [TopK() for _ in range(num_models)]
        self.average = TopK()
        self.without = [TopK() for _ in range(num_models if num_models > 2 else 0)]

    def update(self, probabilities_MBK: "Tensor", labels_B: "Tensor") -> None:
        total_BK = probabilities_MBK.sum(0)
        self.average.update(total_BK, labels_B)
        for top, probabilities_BK in zip(self.single, probabilities_MBK, strict=True):
            top.update(probabilities_BK, labels_B)
        for top, probabilities_BK in zip(self.without, probabilities_MBK, strict=False):
            top.update(total_BK - probabilities_BK, labels_B)

    def merge(self, other: "Votes") -> "Votes":
        merged = Votes(len(self.single))
        merged.average = self.average.merge(other.average)
        merged.single = [a.merge(b) for a, b in zip(self.single, other.single, strict=True)]
        merged.without = [a.merge(b) for a, b in zip(self.without, other.without, strict=True)]
        return merged


def errors(votes: Sequence[Votes], names: Sequence[str]) -> dict[str, Any]:
    """Fractions, over all views; `costs_to_leave_out` is how much the average's top-1 error rises without the model."""
    whole = reduce(Votes.merge, votes)
    models = [{"model": name, **_errors(top)} for name, top in zip(names, whole.single, strict=True)]
    for model, top in zip(models, whole.without, strict=False):
        model["costs_to_leave_out"] = top.top1_error - whole.average.top1_error
    return {"average": _errors(whole.average), "models": models}


def require_alike(models: dict[str, Folder]) -> None:
    """UsageError where models do not know the same classes, or were prepared for other images."""
    cards = {name: _card(name, folder) for name, folder in models.items()}
    first, *others = cards
    for name in others:
        for what in ALIKE:
            if cards[name][what] != cards[first][what]:
                raise UsageError(
                    f"evaluate.models: {name} has other {what} than {first} "
                    f"({_short(cards[name][what])}, {_short(cards[first][what])}): average models of the same images"
                )


def _card(name: str, folder: Folder) -> dict[str, Any]:
    from model.export import CARD

    if folder.size(CARD) is None:
        raise UsageError(f"evaluate.models: {name} holds no exported model (no {CARD})")
    card = json.loads(folder.read(CARD))
    return {
        "class_names": card["class_names"],
        "input_px": card["net"]["input_px"],
        "size_px": card["provenance"].get("size_px"),
    }


def _short(value: Any) -> str:
    return f"{len(value)} of them" if isinstance(value, list) else str(value)


def _errors(top: TopK) -> dict[str, float]:
    return {"top1_error": top.top1_error, "top5_error": top.top5_error}
