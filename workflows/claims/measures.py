"""What claims measure of a run, beside what every comparison does; each a function of what the run left behind."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple

from pipelines.storage import Folder
from workflows.claims import averages
from workflows.config import RunConfig
from workflows.folders import MODELS
from workflows.studies.statistics import Mean

CHANCE = 0.05  # how many random deals of the kernels may differ as much as the columns do
DEALS = 2000
NEIGHBOURS = "6"  # as many as Figure 4 shows
Unit = Literal["%", "", "epochs", "images/s"]  # %: a share of images


@dataclass(frozen=True)
class Run:
    """A finished run: its row of the results, its configuration, and the folders of its stages."""

    row: dict[str, Any]
    config: RunConfig
    trained: Folder
    evaluated: Folder
    also: Mapping[str, Folder] = field(default_factory=dict)  # of optional stages


class Measure(NamedTuple):
    """A value of each run, or one of all runs of an arm together.

    Attributes:
        of: Gives a run's value, None where the run has none; without it, it is the results' column of its name.
        of_all: Gives that of the evaluations of all runs; of one run alone there is none then.
    """

    title: str
    unit: Unit
    of: Callable[[Run], float | None] | None = None
    of_all: Callable[[Sequence[Folder]], Mean | None] | None = None


def value(name: str, run: Run) -> float | None:
    of = MEASURES[name].of
    return of(run) if of else run.row.get(name)


def curve(run: Run, name: str) -> tuple[list[float], list[float]]:
    """The epochs, and the values after them."""
    from workflows.training import history

    points = [p for p in history.read(run.trained) if p["kind"] == "epoch" and p.get(name) is not None]
    return [p["epoch"] for p in points], [p[name] for p in points]


def epochs_to(level: float, epochs: list[float], errors: list[float]) -> float | None:
    """When a curve first comes down to a level, between the epochs on a straight line; None where it does not."""
    before: tuple[float, float] | None = None
    for epoch, error in zip(epochs, errors, strict=True):
        if error <= level:
            if before is None:
                return epoch
            return before[0] + (epoch - before[0]) * (before[1] - level) / (before[1] - error)
        before = epoch, error
    return None


def _epochs_to(run: Run, name: str, level: float) -> float | None:
    return epochs_to(level, *curve(run, name))


def _less(run: Run, one: str, other: str) -> float | None:
    first, second = run.row.get(one), run.row.get(other)
    return None if first is None or second is None else first - second


def _neighbours_over_pixels(run: Run) -> float:
    """The share of right-class neighbours by features less that by pixels."""
    found = json.loads(run.also["neighbours"].read("neighbours.json"))["right_class"]
    return found["features"][NEIGHBOURS]["share"] - found["pixels"][NEIGHBOURS]["share"]


def _codes_over_pixels(run: Run, bits: int) -> float:
    """The same by codes of features less that by codes of pixels."""
    shares = _by_codes(run, bits)
    return shares["features"] - shares["pixels"]


def _lost_by_codes(run: Run, bits: int) -> float:
    """The share by features less that by their codes."""
    found = json.loads(run.also["neighbours"].read("neighbours.json"))["right_class"]
    return found["features"][NEIGHBOURS]["share"] - _by_codes(run, bits)["features"]


def _by_codes(run: Run, bits: int) -> dict[str, float]:
    """Shares by what is coded."""
    found = json.loads(run.also["codes"].read("codes.json"))["codes"]
    return {one["of"]: one["right_class"][NEIGHBOURS]["share"] for one in found if one["bits"] == bits}


def _colour_differs(run: Run) -> float | None:
    """1 where conv1's kernels differ in colour by column more than random deals of them do, else 0."""
    import numpy as np

    from workflows.report.figures_net import chroma_share

    columns = conv1_columns(run)
    if len(columns) < 2:
        return None
    shares = [chroma_share(kernels) for kernels in columns]
    rng, pooled, count = np.random.default_rng(0), np.concatenate(shares), len(shares[0])
    deals = (rng.permutation(pooled) for _ in range(DEALS))
    chance = np.array([abs(np.median(deal[:count]) - np.median(deal[count:])) for deal in deals])
    real = abs(np.median(shares[0]) - np.median(shares[1]))
    return float(np.mean(chance >= real - 1e-12) < CHANCE)


def _colour_gap(run: Run) -> float | None:
    """How far the columns' median shares of colour are apart."""
    import numpy as np

    from workflows.report.figures_net import chroma_share

    medians = [float(np.median(chroma_share(kernels))) for kernels in conv1_columns(run)]
    return abs(medians[0] - medians[-1]) if len(medians) > 1 else None


def conv1_columns(run: Run) -> list[Any]:
    """conv1's kernels [N, 3, k, k] in the last weights, one array a column."""
    import numpy as np
    from safetensors import safe_open

    from model.export import WEIGHTS

    with run.trained.child(MODELS["last"]).as_local(WEIGHTS) as folder, safe_open(folder / WEIGHTS, "numpy") as tensors:
        return np.split(tensors.get_tensor("conv1.weight"), run.config.net.columns)


MEASURES = {
    "top1_error_views": Measure("top-1 error", "%"),
    "top5_error_views": Measure("top-5 error", "%"),
    "top1_error": Measure("top-1 error, centre crop", "%"),
    "top5_error": Measure("top-5 error, centre crop", "%"),
    "train_loss": Measure("training loss, last epoch", ""),
    "train_top1_error": Measure("training top-1 error, last epoch", "%"),
    "images_per_s": Measure("images/s in training", "images/s"),
    "gap": Measure("test less training top-1 error", "%", partial(_less, one="top1_error", other="train_top1_error")),
    "gain_of_views": Measure(
        "top-1 error of one view less all", "%", partial(_less, one="top1_error", other="top1_error_views")
    ),
    "gain_of_views_top5": Measure(
        "top-5 error of one view less all", "%", partial(_less, one="top5_error", other="top5_error_views")
    ),
    "epochs_to_25": Measure(
        "epochs to 25 % training error", "epochs", partial(_epochs_to, name="epoch_top1_error", level=0.25)
    ),
    "epochs_to_val_50": Measure(
        "epochs to 50 % validation error", "epochs", partial(_epochs_to, name="val_top1_error", level=0.5)
    ),
    "epochs_to_val_60": Measure(
        "epochs to 60 % validation error", "epochs", partial(_epochs_to, name="val_top1_error", level=0.6)
    ),
    "average_top1": Measure("top-1 error of the average", "%", of_all=partial(averages.error, column=0)),
    "average_top5": Measure("top-5 error of the average", "%", of_all=partial(averages.error, column=1)),
    "gain_of_average": Measure("top-1 error less the average's", "%", of_all=partial(averages.gain, column=0)),
    "gain_of_average_top5": Measure("top-5 error less the average's", "%", of_all=partial(averages.gain, column=1)),
    "neighbours_over_pixels": Measure("right of 6 neighbours, less by pixels", "%", _neighbours_over_pixels),
    "codes_over_pixels": Measure(
        "right of 6 by 256 bits, less by 256 of pixels", "%", partial(_codes_over_pixels, bits=256)
    ),
    "codes_over_pixels_28": Measure(
        "right of 6 by 28 bits, less by 28 of pixels", "%", partial(_codes_over_pixels, bits=28)
    ),
    "lost_by_codes": Measure("right of 6 by features, less by 256 bits", "%", partial(_lost_by_codes, bits=256)),
    "colour_differs": Measure("runs whose columns differ in colour", "%", _colour_differs),
    "colour_gap": Measure("columns' medians of colour apart", "%", _colour_gap),
}
CURVES = {"epochs_to_25": "epoch_top1_error"}  # what the evidence keeps whole
