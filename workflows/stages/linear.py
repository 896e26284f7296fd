"""The linear classifiers of a baseline, trained in passes over files of encoded images; a state file after each pass.

First all settings of rate and decay learn side by side without the held-out images, which choose one; then that one
learns from all. A pass is a task, so that a killed run goes on with the next.
"""

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np

from pipelines.baselines.specs import BaselineSpec
from pipelines.features import FeatureFile, FeatureRows, forget, read_features
from pipelines.storage import Folder

if TYPE_CHECKING:
    from model.one_against_rest import OneAgainstRest, Setting

CHOSEN, STATE = "chosen.json", "{}.npz"
Phase = Literal["choosing", "classifier"]


@dataclass(frozen=True)
class Course:
    """How the classifier of one kind of descriptor is trained."""

    folder: Folder  # of that kind: the encoded images, and what is made here
    files: tuple[FeatureFile, ...]  # of the training images
    spec: BaselineSpec
    num_classes: int
    num_cpus: int


@dataclass(frozen=True)
class Chosen:
    """The setting that the held-out images chose, and the error on them."""

    rate: float
    decay: float
    held_out_error: float


def is_held_out(ids_N: np.ndarray, share: float) -> np.ndarray:
    """Which images choose the setting: evenly spread over the ids, of which the order is random."""
    return np.floor((ids_N + 1) * share) > np.floor(ids_N * share)


def passes_done(course: Course, phase: Phase) -> int:
    if course.folder.size(STATE.format(phase)) is None:
        return 0
    return int(np.load(io.BytesIO(course.folder.read(STATE.format(phase))))["passes"])


def one_pass(phase: Phase, course: Course) -> None:
    """A task: the next pass over the training images, in an order of its own."""
    import torch

    torch.set_num_threads(course.num_cpus)
    done = passes_done(course, phase)
    classifiers = load(course, phase)
    order = np.random.default_rng([course.spec.seed, done]).permutation(len(course.files))
    total, seen = sum(file.rows for file in course.files), 0
    for number in order:
        for values_BF, labels_B in _batches(course, course.files[number], phase):
            left = 1 - (done + min(1, seen / total)) / course.spec.passes
            classifiers.step(torch.from_numpy(values_BF).float(), torch.from_numpy(labels_B), left)
            seen += len(labels_B)
    weights_FX, biases_X = classifiers.weights_FX.numpy(), classifiers.biases_X.numpy()
    save = partial(np.savez, weights=weights_FX, biases=biases_X, passes=np.array(done + 1))
    course.folder.publish(STATE.format(phase), save)


def load(course: Course, phase: Phase) -> "OneAgainstRest":
    """The classifiers as they are after the passes that are done."""
    import torch

    from model.one_against_rest import OneAgainstRest

    made = OneAgainstRest(
        _settings(course, phase), course.files[0].num_features, course.num_classes, course.spec.batch_size
    )
    if course.folder.size(STATE.format(phase)) is not None:
        arrays = np.load(io.BytesIO(course.folder.read(STATE.format(phase))))
        made.weights_FX, made.biases_X = torch.from_numpy(arrays["weights"]), torch.from_numpy(arrays["biases"])
    return made


def choose(course: Course) -> None:
    """A task: keeps the setting with the fewest errors on the held-out images (the first of those)."""
    import torch

    torch.set_num_threads(course.num_cpus)
    classifiers = load(course, "choosing")
    wrong_S, total = torch.zeros(len(classifiers.settings), dtype=torch.int64), 0
    for file in course.files:
        for rows in rows_of(course, file):
            held_N = is_held_out(rows.ids_N, course.spec.held_out)
            found_SN = classifiers.probabilities(torch.tensor(rows.features_NU[held_N]).float()).argmax(-1)
            wrong_S += (found_SN != torch.tensor(rows.labels_N[held_N])).sum(1)
            total += int(held_N.sum())
    best = int(wrong_S.argmin())
    setting, error = classifiers.settings[best], float(wrong_S[best]) / max(1, total)
    course.folder.write(CHOSEN, json.dumps(asdict(Chosen(setting.rate, setting.decay, error)), indent=1) + "\n")


def rows_of(course: Course, file: FeatureFile) -> Iterator[FeatureRows]:
    """The encoded images of a file. ValueError where it is missing or damaged; it is encoded anew by the next run."""
    way_out = f"run `alexnet baseline {course.spec.section}` again, which encodes its images anew"
    try:
        yield from read_features(course.folder, file, way_out)
    except ValueError:
        forget(course.folder, [file.name])
        raise


def chosen(course: Course) -> Chosen:
    return Chosen(**json.loads(course.folder.read(CHOSEN)))


def _settings(course: Course, phase: Phase) -> "Sequence[Setting]":
    from model.one_against_rest import Setting

    if phase == "classifier":
        best = chosen(course)
        return (Setting(best.rate, best.decay),)
    return tuple(Setting(rate, decay) for rate in course.spec.rates for decay in course.spec.decays)


def _batches(course: Course, file: FeatureFile, phase: Phase) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Values [B, F] and labels of a file's images in stored order; without the held-out ones while choosing."""
    size = course.spec.batch_size
    values_NF, labels_N = np.zeros((0, file.num_features), np.float16), np.zeros(0, np.int64)
    for rows in rows_of(course, file):
        keep_N = ~is_held_out(rows.ids_N, course.spec.held_out) | (phase == "classifier")
        values_NF = np.concatenate([values_NF, rows.features_NU[keep_N]])
        labels_N = np.concatenate([labels_N, rows.labels_N[keep_N]])
        whole = len(labels_N) // size * size
        for start in range(0, whole, size):
            yield values_NF[start : start + size], labels_N[start : start + size]
        values_NF, labels_N = values_NF[whole:], labels_N[whole:]
    if len(labels_N):
        yield values_NF, labels_N
