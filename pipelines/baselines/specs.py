"""What can be configured about the baselines: frozen dataclasses, standard library only."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

DESCRIPTORS = ("sift", "colour", "patches")


@dataclass(frozen=True)
class BaselineSpec:
    """What both baselines are told: where descriptors are taken, and how the linear classifiers are trained."""

    section: ClassVar[str] = ""  # the keys' first part

    descriptors: Annotated[
        tuple[str, ...], "sift, colour, patches: one classifier of each, whose answers are averaged"
    ] = ("sift", "colour")
    patches: Annotated[tuple[float, ...], "sides of the patches, as shares of the image's"] = (0.25, 0.375, 0.5, 0.75)
    step: Annotated[float, "from one patch to the next, as a share of the image's side"] = 1 / 16
    grids: Annotated[tuple[int, ...], "spatial pyramid: 1,2 pools the whole image and its four quarters"] = (1, 2)
    samples: Annotated[int, "descriptors of training images that a vocabulary is learned from"] = 50_000
    rates: Annotated[tuple[float, ...], "learning rates of which the held-out images choose one"] = (30.0, 100.0, 300.0)
    decays: Annotated[tuple[float, ...], "weight decays of which the held-out images choose one"] = (1e-6, 1e-5)
    held_out: Annotated[float, "share of the training images that choose them; then all are trained on"] = 0.1
    passes: Annotated[int, "passes over the training images"] = 8
    batch_size: Annotated[int, "images in a step of the classifier"] = 100
    seed: Annotated[int, "seed of the sampled descriptors, the vocabulary and the order of the images"] = 0

    def __post_init__(self):
        known = ", ".join(DESCRIPTORS)
        named = 0 < len({*self.descriptors}) == len(self.descriptors) and {*self.descriptors} <= {*DESCRIPTORS}
        self._require(named, "descriptors", f"some of {known}, each once")
        self._require(bool(self.patches) and all(0 < p <= 1 for p in self.patches), "patches", "shares, 0 to 1")
        self._require(0 < self.step <= 1, "step", "a share, 0 to 1")
        self._require(bool(self.grids) and all(1 <= g <= 8 for g in self.grids), "grids", "whole numbers from 1 to 8")
        self._require(self.samples >= 1, "samples", "1 or more")
        for name in ("rates", "decays"):
            values = getattr(self, name)
            self._require(bool(values) and min(values) >= 0, name, "numbers of 0 or more")
        self._require(0 < self.held_out < 1, "held_out", "a share between 0 and 1")
        self._require(self.passes >= 1, "passes", "1 or more")
        self._require(self.batch_size >= 1, "batch_size", "1 or more")
        self._require(0 <= self.seed < 2**32, "seed", "0 to 2**32 - 1")

    @property
    def values_each(self) -> int:
        """Of an image and a kind of descriptor, in each part of the spatial pyramid."""
        raise NotImplementedError

    @property
    def encoded_bytes(self) -> int:
        """Of an image in all kinds of descriptor, as float16 that cannot be compressed."""
        return 2 * len(self.descriptors) * self.values_each * sum(grid * grid for grid in self.grids)

    def _require(self, condition: bool, name: str, use: str) -> None:
        if not condition:
            value = getattr(self, name)
            said = ",".join(map(str, value)) if isinstance(value, tuple) else value
            raise ValueError(f"{self.section}.{name} is {said}; use {use}")


@dataclass(frozen=True)
class FisherSpec(BaselineSpec):
    """Fisher vectors of dense descriptors (Sánchez and Perronnin), the runner-up of Table 2 in kind."""

    section: ClassVar[str] = "fisher"

    components: Annotated[int, "principal components of a descriptor that are kept"] = 32
    gaussians: Annotated[int, "Gaussians of the mixture, the words of the vocabulary"] = 64

    def __post_init__(self):
        super().__post_init__()
        self._require(1 <= self.components <= 48, "components", "1 to 48, which every descriptor has")
        self._require(self.gaussians >= 1, "gaussians", "1 or more")

    @property
    def values_each(self) -> int:
        return 2 * self.components * self.gaussians


@dataclass(frozen=True)
class SparseSpec(BaselineSpec):
    """Sparse codes of dense descriptors under a learned dictionary, as of Table 1's "sparse coding" in kind."""

    section: ClassVar[str] = "sparse"

    descriptors: Annotated[
        tuple[str, ...], "sift, colour, patches: one classifier of each, whose answers are averaged"
    ] = ("sift", "colour", "patches")
    patches: Annotated[tuple[float, ...], "sides of the patches, as shares of the image's"] = (0.25, 0.375, 0.5)
    step: Annotated[float, "from one patch to the next, as a share of the image's side"] = 1 / 16
    grids: Annotated[tuple[int, ...], "spatial pyramid: 1,2 pools the whole image and its four quarters"] = (1, 2, 3)
    atoms: Annotated[int, "atoms of the dictionary, the words of the vocabulary"] = 800
    threshold: Annotated[float, "what a code must pass to count; higher is sparser"] = 0.25

    def __post_init__(self):
        super().__post_init__()
        self._require(self.atoms >= 1, "atoms", "1 or more")
        self._require(0 <= self.threshold < 1, "threshold", "0 to below 1")

    @property
    def values_each(self) -> int:
        return self.atoms
