"""The learning rate over a run: as a log tells it, a function of the progress, or of the validation error."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from model.notation import LIGHT, Setting, fits, parse, parse_values, value_at
from model.specs import SCHEDULES, TrainSpec

SEGMENTS = 4
PLATEAU_DROPS = 3
LEARNING = 0.9  # of the error of chance: below it a network has begun to learn


@dataclass
class Plateau:
    """Counts the drops: the error has not improved for some epochs, of a network that has begun to learn."""

    spec: TrainSpec
    begun_below: float  # error; epochs above it are of the flat start, and do not count
    epochs: int = 0
    drops: int = 0
    best: float = 1.0
    waited: int = 0

    def end_epoch(self, val_error: float) -> None:
        self.epochs += 1
        if val_error < self.best - self.spec.min_improvement:
            self.best, self.waited = val_error, 0
        elif val_error < self.begun_below:
            self.waited += 1
        is_due = self.waited >= self.spec.patience and self.epochs >= self.spec.min_epochs
        if is_due and self.drops < PLATEAU_DROPS:
            self.drops, self.waited = self.drops + 1, 0


class Schedule:
    """The rate of each parameter at each step of a run."""

    def __init__(self, spec: TrainSpec, steps_per_epoch: int, num_classes: int):
        self.spec, self.steps_per_epoch = spec, steps_per_epoch
        self.num_steps = max(1, round(spec.epochs * steps_per_epoch))
        self.plateau = Plateau(spec, begun_below=LEARNING * (1 - 1 / num_classes))
        self._rates: dict[tuple[int, str], float] = {}  # of each parameter from each of the starts on

    def rate(self, step: int, parameter: str) -> float:
        """At a step, counted from 0, of a parameter ("conv1.weight")."""
        spec = self.spec
        match spec.schedule:
            case "constant":
                return spec.lr
            case "plateau":
                return spec.lr * 0.1**self.plateau.drops
            case "segments":
                segment = min(SEGMENTS * step // self.num_steps, SEGMENTS - 1)
                return spec.lr * 250 ** (-segment / (SEGMENTS - 1))
        number = bisect_right(self._starts, 1 + step / self.steps_per_epoch)
        if (number, parameter) not in self._rates:
            self._rates[number, parameter] = self._said(parameter, self._starts[number - 1])
        return self._rates[number, parameter]

    @cached_property
    def _starts(self) -> list[float]:
        return starts(self.spec)

    @cached_property
    def _settings(self) -> tuple[Setting, ...]:
        return parse(self.spec.schedule, "train.schedule")

    def _said(self, parameter: str, epoch: float) -> float:
        """What the settings say, which is matched by names and patterns."""
        rate = value_at(self._settings, parameter, epoch)
        assert rate is not None, parameter  # `require_rates` saw to it
        return rate

    def end_epoch(self, val_error: float) -> None:
        self.plateau.end_epoch(val_error)

    def state(self) -> dict[str, float]:
        plateau = self.plateau
        return {"epochs": plateau.epochs, "drops": plateau.drops, "best": plateau.best, "waited": plateau.waited}

    def load_state(self, state: dict[str, float]) -> None:
        for name, value in state.items():
            setattr(self.plateau, name, value)


def light_of(spec: TrainSpec) -> tuple[tuple[int, float], ...]:
    """The epochs, counted from 0, from which on the lighting has another coefficient, and which."""
    if spec.schedule in SCHEDULES:
        return ()
    settings = parse(spec.schedule, "train.schedule")
    return tuple((round(epoch) - 1, value) for epoch, name, value in settings if name == LIGHT)


def require_rates(spec: TrainSpec, parameters: Sequence[str]) -> None:
    """ValueError where a schedule says no rate for a parameter, or a name in it (or in the decays) fits none."""
    told = () if spec.schedule in SCHEDULES else parse(spec.schedule, "train.schedule")
    for key, settings in (("train.schedule", told), ("train.decays", parse_values(spec.decays, "train.decays"))):
        for _, name, _ in settings:
            if name != LIGHT and not any(fits(name, parameter) for parameter in parameters):
                layers = ", ".join(dict.fromkeys(parameter.rpartition(".")[0] for parameter in parameters))
                raise ValueError(f"{key}: {name} is no layer of this network; it has {layers}")
    for parameter in parameters if told else ():
        if value_at(told, parameter, 1) is None:
            raise ValueError(f"train.schedule: {parameter} has no rate in epoch 1; begin with 1:*=.01, for all of them")


@dataclass(frozen=True)
class Phase:
    """From the start of an epoch (counted from 1): the rate of each group of parameters that always have the same."""

    epoch: float
    rates: dict[str, float]
    light: float | None  # coefficient of the lighting, where the schedule says it


def phases(spec: TrainSpec, parameters: Sequence[str]) -> list[Phase]:
    """A run's rates as a table; empty for `plateau`, whose drops nobody knows before."""
    if spec.schedule == "plateau":
        return []
    epochs = [epoch for epoch in starts(spec) if epoch < 1 + spec.epochs]
    schedule = Schedule(spec, _FINE, num_classes=2)
    light: dict[float, float | None] = {1.0 + start: value for start, value in light_of(spec)}
    groups: dict[tuple[float, ...], list[str]] = {}
    for name in parameters:
        rates = tuple(schedule.rate(round((epoch - 1) * _FINE), name) for epoch in epochs)
        groups.setdefault(rates, []).append(name)
    named = {_named(members, parameters, groups.values()): rates for rates, members in groups.items()}
    table, now = list[Phase](), None
    for i, epoch in enumerate(epochs):
        now = light.get(epoch, now)
        table.append(Phase(epoch, {name: rates[i] for name, rates in named.items()}, now))
    return table


_FINE = 10_000  # steps of an epoch, for looking


def starts(spec: TrainSpec) -> list[float]:
    """The epochs, counted from 1, at whose start something changes, also after the run's end."""
    if spec.schedule == "segments":
        return [1 + spec.epochs * i / SEGMENTS for i in range(SEGMENTS)]
    settings = () if spec.schedule in SCHEDULES else parse(spec.schedule, "train.schedule")
    return sorted({1.0, *(setting.epoch for setting in settings)})


def _named(members: Sequence[str], parameters: Sequence[str], groups: Iterable[Sequence[str]]) -> str:
    """A short name of one of the groups of parameters."""
    kinds, alike = _kinds(members), [group for group in groups if _kinds(group) == _kinds(members)]
    kind = "" if len(kinds) == 2 else " weights" if kinds == {"weight"} else " biases"
    if len(members) == len(parameters):
        return "all"
    if 2 * len(members) == len(parameters) and kind:
        return kind.strip()
    if len(alike) > 1 and all(len(members) > len(group) for group in alike if group is not members):
        return f"other{kind or 's'}"
    layers = dict.fromkeys(name.rpartition(".")[0] for name in members)
    return " ".join(layers) + kind


def _kinds(members: Sequence[str]) -> set[str]:
    return {name.rpartition(".")[2] for name in members}
