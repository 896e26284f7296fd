"""Images for people to look at: the first of a split, some of each class, or those with given ids."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from pipelines.manifest import Manifest
from pipelines.shard_record import ShardRecord
from pipelines.shard_table import read_written
from pipelines.shards import read_shard
from pipelines.storage import Folder

MAX_SHARDS = 16  # read in search of a class: enough for 8 images of any class in shards of 1,024


class Sample(NamedTuple):
    id: int
    key: str
    label: int
    pixels_HWC: np.ndarray  # uint8 RGB


def first(shards: Folder, manifest: Manifest, split: str, count: int) -> list[Sample]:
    """The first images of a split as they are stored, which is in shuffled order."""
    found: list[Sample] = []
    for record in manifest.splits.get(split, ()):
        if len(found) < count:
            found += _take(shards, record, range(min(record.rows, count - len(found))))
    return found


def with_ids(shards: Folder, manifest: Manifest, split: str, ids: Sequence[int]) -> list[Sample]:
    """The images with these ids, in this order."""
    found: dict[int, Sample] = {}
    for record in manifest.splits[split]:
        wanted = [i for i in ids if record.first_id <= i < record.first_id + record.listed]
        if wanted:
            rows = np.flatnonzero(np.isin(_stored_ids(record), wanted))
            found |= {sample.id: sample for sample in _take(shards, record, rows)}
    return [found[i] for i in ids]


def by_class(shards: Folder, split: str, labels: Iterable[int], per_class: int) -> dict[int, list[Sample]]:
    """Up to `per_class` images of each of these classes, from the first shards of the split that have any."""
    found: dict[int, list[Sample]] = {label: [] for label in labels}
    num_read = 0
    for shard in (shard for shard in read_written(shards) if shard.split == split):
        missing = {label: per_class - len(samples) for label, samples in found.items() if len(samples) < per_class}
        if num_read < MAX_SHARDS and missing.keys() & shard.label_counts.keys():
            num_read += 1
            rows = read_shard(shards, shard)
            for label, count in missing.items():
                found[label] += _samples(rows, np.flatnonzero(rows.labels == label)[:count])
    return found


def spread(manifest: Manifest, split: str, count: int) -> list[int]:
    """At most `count` classes that have images, evenly over the list of classes."""
    labels = [label for label in manifest.label_counts(split) if label >= 0]
    if len(labels) <= count:
        return labels
    return [labels[i] for i in np.linspace(0, len(labels) - 1, count).round().astype(int)]


def augmented(pixels_HWC: np.ndarray, crop_px: int, y: int, x: int, mirror: bool, shift_3: np.ndarray) -> np.ndarray:
    """The image as the network sees it with these parameters of pipelines.augment, cut to 0..255 to be looked at."""
    crop = pixels_HWC[y : y + crop_px, x : x + crop_px]
    lit = crop[:, ::-1] if mirror else crop
    return np.clip(lit + shift_3, 0, 255).round().astype(np.uint8)


def _stored_ids(record: ShardRecord) -> np.ndarray:
    ids = np.arange(record.first_id, record.first_id + record.listed)
    return np.setdiff1d(ids, [entry.id for entry in record.quarantined])


def _take(shards: Folder, record: ShardRecord, rows: Iterable[int]) -> list[Sample]:
    return _samples(read_shard(shards, record), rows)


def _samples(shard_rows, rows: Iterable[int]) -> list[Sample]:
    return [
        Sample(int(shard_rows.ids[i]), shard_rows.keys[i], int(shard_rows.labels[i]), _pixels(shard_rows.images[i]))
        for i in rows
    ]


def _pixels(image: np.ndarray) -> np.ndarray:
    """A stored image, JPEG bytes or pixels, as pixels."""
    from pipelines.images import decode_jpeg

    return np.array(image) if image.ndim == 3 else decode_jpeg(image.tobytes())
