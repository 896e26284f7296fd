"""Networks of other seeds averaged: what the probabilities that an arm's runs kept come to together.

N images, R runs, K classes; of two columns the first is top-1, the second top-5.
"""

from collections.abc import Sequence

import numpy as np

from pipelines.storage import Folder
from workflows.folders import PROBABILITIES
from workflows.stages import kept
from workflows.stages.kept import Kept
from workflows.studies.statistics import Mean


def error(evaluated: Sequence[Folder], column: int) -> Mean | None:
    """Of the averaged probabilities of these evaluations; None where one kept none."""
    wrong = _wrong(evaluated)
    return None if wrong is None else _mean(wrong[1][:, column])


def gain(evaluated: Sequence[Folder], column: int) -> Mean | None:
    """How much less that is than the networks' own errors are on the mean, paired by image."""
    wrong = _wrong(evaluated)
    return None if wrong is None else _mean((wrong[0].mean(0) - wrong[1])[:, column])


def _mean(values_N: np.ndarray) -> Mean:
    """One average is one sample, however many networks are in it: its error bar is that of the test images."""
    return Mean(1, float(values_N.mean()), None, float(values_N.std(ddof=1) / len(values_N) ** 0.5))


def _wrong(evaluated: Sequence[Folder]) -> tuple[np.ndarray, np.ndarray] | None:
    """How wrong each network [R, N, 2] and their average [N, 2] are of each labelled image, 0 to 1."""
    if any(folder.size(PROBABILITIES) is None for folder in evaluated):
        return None
    tables = [_labelled(kept.read(folder)) for folder in evaluated]
    single_RN2 = np.stack([_wrong_of(probabilities_NK, labels_N) for probabilities_NK, labels_N in tables])
    together_NK = np.stack([probabilities_NK for probabilities_NK, _ in tables]).mean(0, dtype=np.float32)
    return single_RN2, _wrong_of(together_NK, tables[0][1])


def _labelled(found: Kept) -> tuple[np.ndarray, np.ndarray]:
    """[N, K] probabilities (float16) and [N] labels of the images that have one."""
    is_labelled_N = found.labels_N >= 0
    return found.probabilities_NK[is_labelled_N], found.labels_N[is_labelled_N]


def _wrong_of(probabilities_NK: np.ndarray, labels_N: np.ndarray) -> np.ndarray:
    import torch

    from model.metrics import credits

    return 1 - credits(torch.from_numpy(probabilities_NK).float(), torch.from_numpy(labels_N)).numpy()
