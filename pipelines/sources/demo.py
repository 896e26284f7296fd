"""A data set that needs no download: ten classes of drawn scenes, each image a function of (seed, index) alone.

Colour, size, place, turn, light and background vary within every class, so that only shape and texture tell them
apart. One image in 25 is grayscale, and nine files are damaged on purpose: the workflow has to find them.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

import pyarrow as pa

from pipelines.names import TRAIN, VAL
from pipelines.sources.scenes import SCENES, draw_scene
from pipelines.sources.source import Source, fingerprint_of, listing

SEED = 2012
VERSION = 1  # raise when the drawings change
NUM_TRAIN, NUM_VAL = 3000, 500
DAMAGED = {  # index -> what remains of the file
    17: "truncated", 404: "garbage", 800: "empty", 1203: "truncated", 1777: "header", 2222: "garbage",
    2601: "truncated", NUM_TRAIN + 111: "truncated", NUM_TRAIN + 333: "garbage",
}  # fmt: skip


@dataclass(frozen=True)
class DemoReader:
    seed: int = SEED

    def read(self, rows: pa.Table) -> Iterator[bytes]:
        return (encoded_image(self.seed, index) for index in rows["offset"].to_pylist())


def open_demo() -> Source:
    names = tuple(sorted(SCENES))
    return Source(
        kind="demo",
        fingerprint=fingerprint_of(["demo", VERSION, SEED, NUM_TRAIN, NUM_VAL]),
        class_names=names,
        class_titles=names,
        splits={TRAIN: _rows(range(NUM_TRAIN), names), VAL: _rows(range(NUM_TRAIN, NUM_TRAIN + NUM_VAL), names)},
        reader=DemoReader(),
    )


def _rows(indices: range, names: tuple[str, ...]) -> pa.Table:
    labels = [index % len(names) for index in indices]
    keys = [f"{names[label]}/{index:05d}.jpg" for index, label in zip(indices, labels, strict=True)]
    return listing(keys, labels, "demo", pa.array(indices), pa.array([0] * len(keys)))


def encoded_image(seed: int, index: int) -> bytes:
    """The JPEG file of image `index`: 90 to 200 px a side, some grayscale, a few damaged."""
    random = Random(f"{seed} {index}")
    image = draw_scene(random, sorted(SCENES)[index % len(SCENES)])
    if random.random() < 0.04:
        image = image.convert("L")
    file = io.BytesIO()
    image.save(file, "JPEG", quality=random.randint(75, 95))
    data = file.getvalue()
    damage = DAMAGED.get(index)
    if damage == "truncated":
        return data[: int(len(data) * random.uniform(0.3, 0.9))]
    if damage == "header":
        return data[:150]
    if damage == "garbage":
        return random.randbytes(3000)
    return b"" if damage == "empty" else data
