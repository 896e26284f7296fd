"""What a claim of the paper is, as a value: what it says, its numbers, and the comparisons that measure it.

Numbers are shares of images, differences of shares, ratios or counts; of a difference or ratio they are those of the
pair's second arm against its first.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from workflows import recipes
from workflows.config import RunConfig, with_values
from workflows.studies.arms import BASELINE, Arm
from workflows.studies.comparison import Comparison

Kind = Literal["value", "difference", "ratio", "fact", "cited"]
At = Literal["full", "small"]
ATS: tuple[At, ...] = get_args(At)


@dataclass(frozen=True)
class Numbers:
    """Numbers as they are written, with their values in the order of the claim's measures."""

    text: str
    values: tuple[float, ...] = ()


@dataclass(frozen=True)
class Setup:
    """Arms over a recipe that measure a claim, and what they cost.

    Attributes:
        arms: What each sets, by its name; differences are against the first.
        images: Training images in an epoch.
        tested: Test images; evidence of other data has another number of them.
        images_per_s: About how many are trained a second, by device.
        baselines_per_s: About how many images a baseline takes a second, by its name, on any of these devices.
        reduced: What is smaller than the paper's, in words; empty for its own data and network.
        measures: Where this setup measures something else than the claim says.
        also: Optional stages that each network's run makes too.
        averages: Rows of averaged probabilities: by name, of how many runs of which arms, those of the first seeds.
    """

    recipe: str
    arms: Mapping[str, Mapping[str, str]]
    images: int
    tested: int
    images_per_s: Mapping[str, float]
    settings: Mapping[str, str] = field(default_factory=dict)
    seeds: int = 3
    reduced: str = ""
    measures: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    baselines_per_s: Mapping[str, float] = field(default_factory=dict)
    averages: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def base(self) -> RunConfig:
        """What its arms share. UsageError where a key or value does not fit."""
        return with_values(recipes.named(self.recipe), dict(self.settings))

    def comparison(self, name: str, base: RunConfig, seeds: int) -> Comparison:
        arms = tuple(Arm(arm, dict(settings)) for arm, settings in self.arms.items())
        return Comparison(name, base, arms, tuple(range(seeds)), self.also)

    def trainings(self, seeds: int = 0) -> int:
        return len(self._trained()) * (seeds or self.seeds)

    def baselines(self, seeds: int = 0) -> int:
        return len(self._baselines()) * (seeds or self.seeds)

    def hours(self, seeds: int = 0) -> dict[str, float]:
        """Of training, by device, without ingest and evaluation; what other claims have trained already is in it."""
        usual = self.base().train.epochs
        epochs = sum(float(arm.get("train.epochs", usual)) for arm in self._trained())
        images = epochs * self.images * (seeds or self.seeds)
        of_baselines_s = sum((self.images + self.tested) / self.baselines_per_s[name] for name in self._baselines())
        baselines_s = of_baselines_s * (seeds or self.seeds)
        return {device: (images / rate + baselines_s) / 3600 for device, rate in self.images_per_s.items()}

    def _baselines(self) -> list[str]:
        return [arm[BASELINE] for arm in self.arms.values() if BASELINE in arm]

    def _trained(self) -> list[Mapping[str, str]]:
        """The networks without those that only evaluate in another way what one before them has trained."""
        found: list[dict[str, str]] = []
        for arm in (arm for arm in self.arms.values() if BASELINE not in arm):
            settings = {key: value for key, value in arm.items() if not key.startswith("evaluate.")}
            found += [] if settings in found else [settings]
        return list(found)


@dataclass(frozen=True)
class Claim:
    """A row of what the paper says in numbers, or almost.

    Attributes:
        kind: value: of one arm. difference, ratio: of a pair of arms. fact: computed, nothing is trained. cited: of
            others' systems, or of hardware that is no more; nothing is run.
        section: Of the paper, or its table or figure.
        measures: Names in measures.MEASURES; the first is the one that is judged.
        sign: Of the difference (of a ratio: of its logarithm) that the claim says; 0 where it says that there is none.
        tolerance: How far a value or fact may be from the paper's; where `sign` is 0, how large a difference may be.
        within: Least and greatest ratio that counts as the paper's.
        pair: The two arms that are judged.
        note: How else it can be measured, what is to be known.
    """

    id: str
    section: str
    says: str
    kind: Kind
    paper: Numbers
    logged: Numbers = Numbers("")
    measures: tuple[str, ...] = ()
    sign: int = 0
    tolerance: float | None = None
    within: tuple[float, float] | None = None
    pair: tuple[str, str] = ("", "")
    full: Setup | None = None
    small: Setup | None = None
    fact: Callable[[], float] | None = None
    note: str = ""

    def setup(self, at: str) -> Setup | None:
        return self.full if at == "full" else self.small

    def measured(self, at: str) -> tuple[str, ...]:
        """What is measured at this scale."""
        setup = self.setup(at)
        return (setup.measures if setup else ()) or self.measures

    def comparison(self, at: str) -> Comparison | None:
        """The comparison that measures it, without the place of the data."""
        setup = self.setup(at)
        if setup is None:
            return None
        return setup.comparison(comparison_name(self.id, at), setup.base(), setup.seeds)


def comparison_name(claim: str, at: str) -> str:
    return f"claim-{claim}-{at}"
