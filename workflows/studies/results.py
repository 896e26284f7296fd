"""What each run of a comparison came to: a row of the table of results, and what is read of its files."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pipelines.manifest import Manifest
from pipelines.storage import Folder
from pipelines.tables import read_table
from workflows.engine.outputs import Output
from workflows.engine.plan import Planned
from workflows.engine.provenance import Code
from workflows.studies.comparison import Member, Plans, is_done, outputs
from workflows.training import history

if TYPE_CHECKING:
    import pandas as pd

RESULTS = "results.parquet"
ARITHMETIC = ("torch", "nvidia-dali-cuda130", "numpy")  # libraries whose versions may change results


class Measure(NamedTuple):
    """Something measured of every run.

    Attributes:
        name: Its column.
        top: Of a share of wrong test images over all views, among how many classes the label must be.
        is_share: Whether it is a share of the test images.
    """

    name: str
    title: str
    top: int | None = None
    is_share: bool = True


MEASURES = (
    Measure("top1_error_views", "top-1 error", 1),
    Measure("top5_error_views", "top-5 error", 5),
    Measure("top1_error", "top-1 error, centre crop"),
    Measure("top5_error", "top-5 error, centre crop"),
    Measure("train_loss", "training loss, last epoch", is_share=False),
    Measure("train_top1_error", "training top-1 error, last epoch", is_share=False),
    Measure("train_s", "training time, s", is_share=False),
    Measure("images_per_s", "images/s in training", is_share=False),
)
SHARES = tuple(measure for measure in MEASURES if measure.is_share)
HEADLINE = MEASURES[0]


@dataclass(frozen=True, eq=False)
class Result:
    """What became of one run.

    Attributes:
        baseline: The stage that learned and was evaluated, of an arm that is no network; its key stands for both.
        state: done; failed; begun or missing.
        reason: Why it failed.
        manifest: The digest of the data.
        codes: What trained and evaluated it, in all attempts.
        libraries: Versions of what arithmetic and pictures come from.
        views: Over which of an image the errors are, in words.
        measures: By name, see MEASURES; a run that is not done has none, a baseline nothing of epochs and views.
        evaluated: The finished output of evaluate, and `trained` that of train; both the baseline's.
    """

    arm: str
    seed: int
    state: str
    reason: str = ""
    baseline: str = ""
    train_key: str = ""
    evaluate_key: str = ""
    manifest: str = ""
    codes: tuple[Code, ...] = ()
    libraries: tuple[str, ...] = ()
    device: str = ""
    finished: str = ""
    split: str = ""
    views: str = ""
    num_images: int = 0
    parameters: int | None = None
    train_run: str = ""
    evaluate_run: str = ""
    measures: Mapping[str, float] = field(default_factory=dict)
    trained: Output | None = None
    evaluated: Output | None = None

    @property
    def is_done(self) -> bool:
        return self.state == "done"

    def row(self) -> dict[str, Any]:
        """For the table: all but the outputs, the measures as columns."""
        plain = {name: value for name, value in vars(self).items() if name not in ("measures", "trained", "evaluated")}
        plain |= {"codes": [str(code) for code in self.codes], "libraries": list(self.libraries)}
        return plain | {measure.name: self.measures.get(measure.name) for measure in MEASURES}

    def wrong_N(self, top: int) -> np.ndarray:
        """Of each labelled test image, by id: 1 where its label is not among so many classes, over all views."""
        assert self.evaluated is not None, "it is done"
        table = read_table(self.evaluated.folder, "predictions.parquet", ["id", "label", "classes"])
        order = np.argsort(table["id"].to_numpy())
        labels = table["label"].to_numpy()[order]
        classes_N5 = np.stack(table["classes"].to_numpy())[order]
        right = (classes_N5[:, :top] == labels[:, None]).any(1)
        return (~right[labels >= 0]).astype(np.int8)

    def curve(self, name: str) -> tuple[list[float], list[float]]:
        """The epochs, and the values after them, of a point of the training's curves, such as val_top1_error."""
        assert self.trained is not None, "it is done"
        points = [p for p in history.read(self.trained.folder) if p["kind"] == "epoch" and p.get(name) is not None]
        return [p["epoch"] for p in points], [p[name] for p in points]


def look(
    members: Iterable[Member], root: Path, failures: Mapping[Member, str] | None = None, in_tasks: Callable = map
) -> dict[Member, Result]:
    """What is stored of each run; nothing runs. `failures` say why runs could not be made."""
    plans = Plans(root, in_tasks)
    return {member: result(member, plans.of(member), (failures or {}).get(member, "")) for member in members}


def result(member: Member, steps: dict[str, Planned], failure: str = "") -> Result:
    """What is stored of a run; `failure` says why it could not be made."""
    makers = (member.trained_by, member.evaluated_by)
    train_key, evaluate_key = (steps[stage].output.key for stage in makers)
    if not is_done(steps):
        begun = steps[member.trained_by].state in ("PARTIAL", "CACHED")
        state = "failed" if failure else "begun" if begun else "missing"
        return Result(member.arm.name, member.seed, state, failure, member.arm.baseline, train_key, evaluate_key)
    made = outputs(steps)
    trained, evaluated = (made[stage].require_record() for stage in makers)
    manifest = Manifest.load(made["ingest"].folder)
    return Result(
        arm=member.arm.name,
        seed=member.seed,
        state="done",
        baseline=member.arm.baseline,
        train_key=train_key,
        evaluate_key=evaluate_key,
        manifest=manifest.digest,
        codes=_codes((trained, evaluated)),
        libraries=_libraries((trained, evaluated)),
        device=trained.get("made_with", {}).get("device", ""),
        finished=evaluated["finished"],
        views="" if member.arm.baseline else member.config.evaluate.in_words,
        split=evaluated["metrics"]["split"],
        num_images=evaluated["metrics"]["num_images"],
        parameters=trained["metrics"].get("parameters"),
        train_run=trained.get("mlflow_run_id", ""),
        evaluate_run=evaluated.get("mlflow_run_id", ""),
        measures=_measures(member, trained, evaluated, made[member.trained_by].folder, manifest.num_rows("train")),
        trained=made[member.trained_by],
        evaluated=made[member.evaluated_by],
    )


def _measures(member: Member, trained: dict, evaluated: dict, folder: Folder, images: int) -> dict[str, float]:
    errors = evaluated["metrics"]
    if member.arm.baseline:  # which sees an image whole, once
        return {f"{name}_views": errors[name] for name in ("top1_error", "top5_error")}
    found = {name: errors[name] for name in ("top1_error", "top5_error")}
    found |= {f"{name}_views": errors[name + member.config.evaluate.suffix] for name in list(found)}
    points = history.read(folder)
    if rates := [point["images_per_s"] for point in points if point.get("images_per_s")]:
        found["images_per_s"] = float(np.median(rates))
    points = [point for point in points if point["kind"] == "epoch"]
    for name, point in (("train_loss", "epoch_loss"), ("train_top1_error", "epoch_top1_error")):
        if points and points[-1].get(point) is not None:
            found[name] = points[-1][point]
    if rate := trained["metrics"]["mean_images_per_s"]:  # else it was stopped after its last step
        found["train_s"] = member.config.train.epochs * images / rate
    return found


def _codes(records: Iterable[dict[str, Any]]) -> tuple[Code, ...]:
    attempts = [attempt for record in records for attempt in record.get("attempts", [record])]
    return tuple(sorted({Code(attempt.get("commit", "unknown"), attempt.get("code", "")) for attempt in attempts}))


def _libraries(records: Iterable[dict[str, Any]]) -> tuple[str, ...]:
    found = ((name, record.get("versions", {}).get(name)) for record in records for name in ARITHMETIC)
    return tuple(sorted({f"{name} {version}" for name, version in found if version}))


def write(results: Iterable[Result], folder: Folder) -> None:
    """The table as `results.parquet`: a row a run."""
    frame = as_frame(results)
    folder.publish(RESULTS, lambda file: frame.to_parquet(file, index=False))


def as_frame(results: Iterable[Result]) -> "pd.DataFrame":
    import pandas as pd

    return pd.DataFrame([one.row() for one in results])
