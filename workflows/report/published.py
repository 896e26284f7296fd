"""The errors that the paper reports, and when a run may be compared with them: on the very same images."""

from typing import NamedTuple

from pipelines.manifest import Manifest


class Published(NamedTuple):
    """A published result: fractions of the images."""

    name: str
    top1_error: float
    top5_error: float


class Benchmark(NamedTuple):
    """A set of images with published errors."""

    name: str
    num_images: int
    results: tuple[Published, ...]


_VAL_2012 = Benchmark(
    "ILSVRC-2012 validation",
    50_000,
    (
        Published("paper, 1 CNN, ten crops (Table 2)", 0.407, 0.182),
        Published("paper, average of 5 CNNs (Table 2)", 0.381, 0.164),
    ),
)
_TEST_2010 = Benchmark(
    "ILSVRC-2010 test",
    150_000,
    (
        Published("paper, CNN, ten crops (Table 1)", 0.375, 0.170),
        Published("paper, the same, centre crop", 0.390, 0.183),
    ),
)
_BENCHMARKS = {
    ("ilsvrc2012", "val"): _VAL_2012,
    ("kaggle", "val"): _VAL_2012,
    ("ilsvrc2010", "test"): _TEST_2010,
}


def benchmark(manifest: Manifest, split: str) -> Benchmark | None:
    """The paper's set of images that this split is, whole; None where it is another, or a part."""
    found = _BENCHMARKS.get((manifest.source_kind, split))
    whole = found is not None and manifest.num_listed(split) == found.num_images
    return found if whole and manifest.num_classes == 1000 else None
