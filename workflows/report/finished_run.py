"""A finished run as one value: every stage's results, each read when it is first asked for.

The report and the notebooks read runs through this file alone.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from model.networks import Layers, NetSpec, layer_table, parameter_names, parameter_shapes
from model.schedules import Phase, phases
from pipelines.duplicates import DUPLICATES
from pipelines.manifest import Manifest
from pipelines.names import Views
from pipelines.neighbour_rows import NEIGHBOURS
from pipelines.quarantine import QUARANTINE
from pipelines.storage import Folder
from pipelines.tables import read_table
from workflows import config as configuration
from workflows.config import LAST, EvaluateSpec, RunConfig
from workflows.engine.outputs import Output, Places, places
from workflows.folders import MODELS
from workflows.training import history
from workflows.workflow import OF_A_RUN, STAGES

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from pipelines.features import FeatureRows
    from pipelines.statistics import Statistics


@dataclass(frozen=True)
class FinishedRun:
    """The outputs of a workflow's stages for one configuration."""

    root: Path
    config: RunConfig
    outputs: dict[str, Output]

    def output(self, stage: str) -> Output:
        """ValueError where the run did not come so far."""
        if stage not in self.outputs:
            way_out = f"run `alexnet {stage}`{' (or `run`)' if stage in OF_A_RUN else ''} first"
            raise ValueError(f"{stage} has not finished under {self.root}; {way_out}")
        return self.outputs[stage]

    def record(self, stage: str) -> dict[str, Any]:
        """The stage's `stage.json`: key, result, seconds, commit, versions, MLflow run."""
        return self.output(stage).require_record()

    @property
    def shards(self) -> Folder:
        return self.output("ingest").folder

    @cached_property
    def manifest(self) -> Manifest:
        return Manifest.load(self.shards)

    @cached_property
    def quarantine(self) -> "pd.DataFrame":
        """The images set aside: id, key, label, split, file, offset, reason."""
        return _frame(self.shards, QUARANTINE)

    @cached_property
    def statistics(self) -> "Statistics":
        from pipelines.statistics import Statistics

        return Statistics.load(self.output("stats").folder)

    @cached_property
    def duplicates(self) -> "pd.DataFrame":
        """Images stored again: split, id, key and label, and the same of the first with these bytes as first_…"""
        return _frame(self.output("stats").folder, DUPLICATES)

    @cached_property
    def net(self) -> NetSpec:
        """The network that was trained, its number of classes known."""
        return replace(self.config.net, num_classes=self.config.net.num_classes or self.manifest.num_classes)

    @cached_property
    def layers(self) -> Layers:
        return layer_table(self.net)

    @property
    def steps(self) -> "pd.DataFrame":
        """Every few steps: step, epoch, loss, top1_error, lr, images_per_s."""
        return self._history("step")

    @property
    def epochs(self) -> "pd.DataFrame":
        """After every epoch: epoch, epoch_loss, epoch_top1_error; with validation images val_top1_error and so on."""
        return self._history("epoch")

    @property
    def phases(self) -> list[Phase]:
        """The rates that the schedule says, from epoch to epoch; none where they followed the validation error."""
        return phases(self.config.train, parameter_names(self.net))

    def _history(self, kind: str) -> "pd.DataFrame":
        import pandas as pd

        points = history.read(self.output("train").folder)
        return pd.DataFrame([point for point in points if point["kind"] == kind])

    @cached_property
    def conv1_columns(self) -> "list[np.ndarray]":
        """The first layer's kernels [N, 3, k, k] in the weights that were evaluated, one array a column.

        Empty where no layer has kernels of three colours.
        """
        import numpy as np
        from safetensors import safe_open

        from model.export import WEIGHTS

        shapes = parameter_shapes(self.net)
        name = next((name for name, shape in shapes.items() if len(shape) == 4 and shape[1] == 3), None)
        if name is None:
            return []
        exported = self.output("train").folder.child(MODELS[self.config.evaluate.weights])
        with exported.as_local(WEIGHTS) as folder, safe_open(folder / WEIGHTS, "numpy") as tensors:
            return np.split(tensors.get_tensor(name), self.net.columns)

    @cached_property
    def evaluation(self) -> dict[str, Any]:
        """`evaluate.json`: the errors as fractions, the split, the number of images."""
        return json.loads(self.output("evaluate").folder.read("evaluate.json"))

    @cached_property
    def errors(self) -> dict[str, tuple[float, float]]:
        """Top-1 and top-5 over all views, such as "ten crops", then on the centre crop."""
        ways = (EvaluateSpec(views=views) for views in get_args(Views))
        found = {way.in_words: (f"top1_error{way.suffix}", f"top5_error{way.suffix}") for way in ways}
        known = self.evaluation
        return {words: (known[top1], known[top5]) for words, (top1, top5) in found.items() if top1 in known}

    @property
    def views(self) -> str:
        """What predictions are averaged over, in words."""
        return next(iter(self.errors))

    @cached_property
    def predictions(self) -> "pd.DataFrame":
        """id, key, label, and the five likeliest classes with their probabilities (means over the views)."""
        return _frame(self.output("evaluate").folder, "predictions.parquet")

    def features(self, split: str) -> "Iterator[FeatureRows]":
        """What `alexnet features` wrote of a split, in stored order and at most 8 MB of features at a time."""
        from pipelines.features import Features

        return Features.load(self.output("features").folder).rows(split)

    @cached_property
    def neighbours(self) -> "pd.DataFrame":
        """What `alexnet neighbours` found: id, key, label, and as lists neighbour_ids, …_keys, …_labels, distances."""
        return _frame(self.output("neighbours").folder, NEIGHBOURS)


def open_run(root: str | Path | None = None) -> FinishedRun:
    """The newest run that came furthest under a root: env ALEXNET_ROOT, or `runs` here or one level up.

    What was configured since then does not matter: the keys and values are those of the finished stages.
    """
    near = next((path for path in (Path("runs"), Path("../runs")) if path.is_dir()), "runs")
    root = Path(root or os.environ.get("ALEXNET_ROOT") or near).absolute()
    last_config = root / LAST
    config = configuration.load_known(last_config)[0] if last_config.is_file() else RunConfig()
    where = places(config, root, may_write=False)
    last = next((found[0][1] for name in reversed(OF_A_RUN) if (found := where.finished(name))), None)
    if last is None:
        raise ValueError(f"{root} holds no run; `alexnet run --root {root}` makes one, ALEXNET_ROOT names another root")
    keys = {**last["inputs"], last["stage"]: last["key"]}
    made = {name: where.output(name, key) for name, key in keys.items()}
    records = {name: record for name, output in made.items() if (record := output.record)}  # others were deleted since
    records = _with_optional(where, records)
    outputs = {name: where.output(name, record["key"]) for name, record in records.items()}
    return FinishedRun(root, configuration.with_values(config, _settings(records)), outputs)


def optional_too(where: Places, outputs: dict[str, Output]) -> dict[str, Output]:
    """With the newest output of each optional stage that was made of these."""
    records = _with_optional(where, {name: output.require_record() for name, output in outputs.items()})
    return {name: outputs.get(name) or where.output(name, record["key"]) for name, record in records.items()}


def _with_optional(where: Places, records: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """With the newest record of each optional stage that read these outputs, and was made with no other settings."""
    found = dict(records)
    for stage in (stage for stage in STAGES if stage.optional):
        keys, settings = {name: record["key"] for name, record in found.items()}, _settings(found)
        for _, record in where.finished(stage.name):
            own = _settings({stage.name: record})
            is_alike = all(settings.get(name, value) == value for name, value in own.items())
            if is_alike and record["inputs"].items() <= keys.items():
                found[stage.name] = record
                break
    return found


def _settings(records: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The configuration keys that outputs were made with."""
    known = configuration.keys()
    return {k: v for record in records.values() for k, v in record["ingredients"].items() if k in known}


def _frame(folder: Folder, name: str) -> "pd.DataFrame":
    import pandas as pd

    return pd.DataFrame(read_table(folder, name).to_pydict())
