"""From a shard's images to their descriptors, to what a vocabulary is learned from, and to their vectors.

Letters: B images, S side in px, P patches, D values of a descriptor, F values of a vector, N descriptors.
"""

import io
from collections.abc import Iterator, Sequence
from dataclasses import asdict

import numpy as np

from pipelines.baselines.descriptors import Dense
from pipelines.baselines.fisher import FisherVocabulary
from pipelines.baselines.pyramid import regions
from pipelines.baselines.sparse import SparseVocabulary
from pipelines.baselines.specs import BaselineSpec, FisherSpec, SparseSpec
from pipelines.formats.rows import ShardRows
from pipelines.images import decode_jpeg
from pipelines.storage import Folder

VOCABULARY = "vocabulary.npz"
Vocabulary = FisherVocabulary | SparseVocabulary
_BATCH_PIXELS = 1 << 16  # of images that are described at once: 64 of 32 px, one of 256 px


def dense(kind: str, spec: BaselineSpec, size_px: int) -> Dense:
    return Dense(kind, size_px, spec.patches, spec.step)


def batches(images: Sequence[np.ndarray], size_px: int) -> Iterator[np.ndarray]:
    """uint8 [B, S, S, 3] of stored images, a few at a time."""
    at_once = max(1, _BATCH_PIXELS // size_px**2)
    for start in range(0, len(images), at_once):
        some = images[start : start + at_once]
        yield np.stack([decode_jpeg(image) if image.ndim == 1 else image for image in some])


def sampled(rows: ShardRows, described: Dense, wanted: int, random: np.random.Generator) -> np.ndarray:
    """float32 [N, D]: so many descriptors of a shard (or all there are), of as many images as there are."""
    num_patches = len(described.centres_P2)
    each = min(num_patches, -(-wanted // len(rows)))
    chosen = random.choice(len(rows), min(len(rows), -(-wanted // each)), replace=False)
    found = []
    for images_BSSC in batches([rows.images[row] for row in chosen], described.size_px):
        order_BP = random.permuted(np.tile(np.arange(num_patches), (len(images_BSSC), 1)), axis=1)
        values_BND = np.take_along_axis(described(images_BSSC), order_BP[:, :each, None], 1)
        found.append(values_BND.reshape(-1, values_BND.shape[-1]))
    return np.concatenate(found)[:wanted]


def learn(descriptors_ND: np.ndarray, spec: BaselineSpec) -> Vocabulary:
    """ValueError where there are too few descriptors."""
    if isinstance(spec, FisherSpec):
        return FisherVocabulary.learn(descriptors_ND, spec)
    assert isinstance(spec, SparseSpec)
    return SparseVocabulary.learn(descriptors_ND, spec)


def encoded(rows: ShardRows, described: Dense, vocabulary: Vocabulary, grids: tuple[int, ...]) -> Iterator[np.ndarray]:
    """float32 [B, F]: the vectors of a shard's images in their order, a few at a time."""
    inside = regions(described.centres_P2, grids)
    for images_BSSC in batches(rows.images, described.size_px):
        yield vocabulary.encode(described(images_BSSC), inside)


def save(vocabulary: Vocabulary, folder: Folder) -> None:
    folder.publish(VOCABULARY, lambda file: np.savez(file, **asdict(vocabulary)))


def load(folder: Folder, spec: BaselineSpec) -> Vocabulary:
    values = np.load(io.BytesIO(folder.read(VOCABULARY)))
    kind = FisherVocabulary if isinstance(spec, FisherSpec) else SparseVocabulary
    return kind(**values)
