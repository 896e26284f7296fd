"""What a run's line in MLflow's table says: its errors, its main parameters, and who made it from which code."""

import getpass
import json
from typing import Any

from workflows.config import RunConfig, values, without_secrets

MAIN: tuple[str, ...] = (
    "ingest.source",
    "ingest.size",
    "net.kind",
    "net.columns",
    "net.kernels",
    "net.fc",
    "net.input_px",
)
MAIN += ("train.epochs", "train.batch_size", "train.lr", "train.schedule", "train.seed", "train.precision")
ALIASES = {"last": "newest", "best": "best"}  # in the registry, by the weights that training exports
IN_THE_TABLE = ("recipe", "train.epochs", "train.lr", "train.batch_size")
VIEW = "errors"  # the name of the view of the runs
ERRORS: tuple[str, ...] = ("top1_error_ten_crop", "top5_error_ten_crop", "top1_error_nine_crop", "top5_error_nine_crop")
ERRORS += ("top1_error", "top5_error")


def main_params(config: RunConfig) -> dict[str, Any]:
    """What tells one workflow from another; the stages' runs have all the rest."""
    known = without_secrets(values(config))
    return {"recipe": config.recipe, **{name: known[name] for name in MAIN if name in known}}


def errors_of(record: dict[str, Any]) -> dict[str, float]:
    """The headline errors in a stage's record; only evaluate's has them."""
    return {name: record["metrics"][name] for name in ERRORS if name in record["metrics"]}


def provenance(commit: str) -> dict[str, str]:
    """Who ran which code, in MLflow's own tags as well: its table has columns for them."""
    whole = {"mlflow.source.git.commit": commit.partition("+")[0]} if commit != "unknown" else {}
    source = {"mlflow.source.name": "alexnet", "mlflow.source.type": "LOCAL"}
    return {"alexnet.commit": commit, "mlflow.user": _user(), **source, **whole}


def view_of_the_runs() -> str:
    """The runs table with the columns that matter, as the value of an experiment's tag in which the UI keeps views."""
    columns = [f"metrics.`{name}`" for name in ERRORS] + [f"params.`{name}`" for name in IN_THE_TABLE]
    order = {"orderByKey": "attributes.start_time", "orderByAsc": False}
    return json.dumps({"searchFilter": "", **order, "selectedColumns": [*columns, "attributes.`Source`"]})


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        return "unknown"


def text_tags(summary: dict[str, Any]) -> dict[str, Any]:
    """A stage's results and how they were made, as tags: as metrics, single values would be charts of one bar."""
    results = {f"result.{name}": _text(value) for name, value in summary["metrics"].items() if name not in ERRORS}
    return results | {f"made_with.{name}": value for name, value in summary.get("made_with", {}).items()}


def _text(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def model_name(config: RunConfig) -> str:
    """Under which a trained network stands in MLflow's registry: one for each recipe, unless the user gave one."""
    return config.tracking.model_name or f"alexnet-{config.recipe}"


def hardware(use_gpu: bool) -> dict[str, str]:
    """The device that the work ran on; of a GPU its name, as the driver's machine knows it."""
    if not use_gpu:
        return {"device": "cpu"}
    import torch

    name = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "unknown"
    return {"device": "cuda", "gpu": name}
