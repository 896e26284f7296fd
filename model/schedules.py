"""The learning rate over a run: a function of the progress, or of the validation error (`plateau`).

Rates come in four groups, since the 2012 run gave biases and conv1 rates of their own.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

from model.specs import TrainSpec

MANUAL_DROPS = tuple((epoch - 1) / 93 for epoch in (23, 51, 78))  # the run behind Table 1: from its 23rd epoch on, ...
CONV1_SLOW, CONV1_FROZEN = 67 / 93, 71 / 93  # with its biases, which its log does not mention
SEGMENTS = 4
PLATEAU_DROPS = 3


class Rates(NamedTuple):
    """The rate of each group of parameters."""

    conv1_weights: float
    weights: float
    conv1_biases: float
    biases: float

    def of(self, parameter: str) -> float:
        """The rate of a parameter, from its name in the network."""
        layer, _, kind = parameter.partition(".")
        if layer == "conv1":
            return self.conv1_weights if kind == "weight" else self.conv1_biases
        return self.weights if kind == "weight" else self.biases


@dataclass
class Plateau:
    """Counts the drops: the error has not improved for some epochs, and the network had begun to learn at all."""

    patience: int
    min_improvement: float
    begun_below: float  # error; above it the start is still flat and no epoch counts
    drops: int = 0
    best: float = 1.0
    waited: int = 0

    def end_epoch(self, val_error: float) -> None:
        if val_error < self.best - self.min_improvement:
            self.best, self.waited = val_error, 0
        elif self.best < self.begun_below:
            self.waited += 1
        if self.waited >= self.patience and self.drops < PLATEAU_DROPS:
            self.drops, self.waited = self.drops + 1, 0


@dataclass
class Schedule:
    """The rates at each step of a run of `num_steps`."""

    spec: TrainSpec
    num_steps: int
    num_classes: int
    plateau: Plateau = field(init=False)

    def __post_init__(self):
        chance = 1 - 1 / self.num_classes
        self.plateau = Plateau(self.spec.patience, self.spec.min_improvement, begun_below=0.95 * chance)

    def rates(self, step: int) -> Rates:
        spec, progress = self.spec, step / self.num_steps
        weights = spec.lr * self._factor(progress)
        biases = 2 * spec.lr * (0.1 if self._bias_dropped(progress) else 1) if spec.biases == "as_run" else weights
        if spec.conv1_late == "same" or progress < CONV1_SLOW:
            return Rates(weights, weights, biases, biases)
        late = 0.0 if progress >= CONV1_FROZEN else spec.lr / 1000
        return Rates(min(late, weights), weights, min(late, biases), biases)

    def _factor(self, progress: float) -> float:
        if self.spec.schedule == "segments":
            segment = min(int(SEGMENTS * progress), SEGMENTS - 1)
            return 250 ** (-segment / (SEGMENTS - 1))
        return 0.1 ** self._drops(progress)

    def _drops(self, progress: float) -> int:
        """Times that the rate was divided by 10."""
        if self.spec.schedule == "plateau":
            return self.plateau.drops
        return sum(progress >= drop for drop in MANUAL_DROPS) if self.spec.schedule == "manual" else 0

    def _bias_dropped(self, progress: float) -> bool:
        return progress >= 0.5 if self.spec.schedule == "segments" else self._drops(progress) > 0

    def end_epoch(self, val_error: float) -> None:
        self.plateau.end_epoch(val_error)

    def state(self) -> dict[str, float]:
        return {"drops": self.plateau.drops, "best": self.plateau.best, "waited": self.plateau.waited}

    def load_state(self, state: dict[str, float]) -> None:
        for name, value in state.items():
            setattr(self.plateau, name, value)
