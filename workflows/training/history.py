"""The points of a training, kept beside its checkpoints: each once, whatever was killed and replayed.

A resumed training repeats the steps since its last checkpoint with the same numbers; what is here already is not taken
again. A new attempt's MLflow run is given the earlier points first, so that its curves are whole. In an object store,
where nothing can be appended to, the file is written with each epoch; the points since then are in the checkpoints.
"""

import json
import math
from typing import Any

from pipelines.storage import Folder, writing

HISTORY = "history.jsonl"
NOT_METRICS = ("kind", "step", "warning", "verdict")


class History:
    """Reports of a training, in the order of their steps, in a file of one JSON object a line."""

    def __init__(self, folder: Folder):
        self._folder = folder
        self.points = read(folder)
        if self.points:  # a killed process may have left half a line
            self._write()

    def add(self, report: dict[str, Any]) -> dict[str, Any] | None:
        """The point as it was kept; None where it is known already."""
        if self.points and _place(report) <= _place(self.points[-1]):
            return None
        point = {**report, **self._epoch_means(report)} if report["kind"] == "epoch" else report
        self.points.append(point)
        if self._folder.is_local:
            path = self._folder.local_path() / HISTORY
            with writing(path), path.open("a") as file:
                file.write(json.dumps(point) + "\n")
        elif point["kind"] == "epoch":
            self._write()
        return point

    def _write(self) -> None:
        self._folder.write(HISTORY, "".join(json.dumps(point) + "\n" for point in self.points))

    def _epoch_means(self, report: dict[str, Any]) -> dict[str, float]:
        """Loss and error of the epoch that ends here, in train mode."""
        steps = [
            p
            for p in self.points
            if p["kind"] == "step" and math.ceil(report["epoch"]) - 1 < p["epoch"] <= report["epoch"]
        ]
        mean = {name: sum(p[name] for p in steps) / len(steps) for name in ("loss", "top1_error")} if steps else {}
        return {f"epoch_{name}": value for name, value in mean.items()}


def read(folder: Folder) -> list[dict[str, Any]]:
    """The points of a training's folder; none where there are none. A last line that was cut off is left out."""
    points = []
    for line in folder.read(HISTORY).decode().splitlines() if folder.size(HISTORY) is not None else ():
        try:
            points.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return points


def as_metrics(point: dict[str, Any]) -> dict[str, float]:
    """What of a point goes to MLflow, under names that mean one thing in all stages: `top1_error` is evaluate's."""
    kept = {name: value for name, value in point.items() if name not in NOT_METRICS and value is not None}
    return {f"train_{name}" if name == "top1_error" else name: value for name, value in kept.items()}


def _place(point: dict[str, Any]) -> tuple[int, bool]:
    return point["step"], point["kind"] == "epoch"
