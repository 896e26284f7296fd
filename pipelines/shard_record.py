"""What is known of one shard: what it holds, and which images could not be stored."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, fields

import numpy as np

REDO = "run `alexnet verify` and then `alexnet ingest`, which writes anew what is damaged"


@dataclass(frozen=True)
class Quarantined:
    """An image that could not be stored: where it is in the source (archive, member, offset), and why.

    A row of `_quarantine.parquet`, which also says the split.
    """

    id: int
    key: str  # its name in the source: the member of the archive, the path below the folder
    label: int
    file: str  # the source's archive or file
    offset: int  # in it, bytes
    reason: str


@dataclass(frozen=True)
class ShardRecord:
    """One shard: ids [first_id, first_id + listed) of its split without the quarantined ones, in this order."""

    name: str  # its path in the output
    split: str
    first_id: int
    listed: int
    rows: int
    bytes: int
    sha256: str
    quarantined: tuple[Quarantined, ...] = ()


@dataclass(frozen=True, kw_only=True)
class WrittenShard(ShardRecord):
    """And what only some want to know of it, who load it on their own: a worker has no use for 15,000 times as much."""

    labels: str  # "label:count label:count .."; as text, since a shard may have images of 1,000 classes
    libraries: str  # that it was written with: "simplejpeg 1.9.0, .."
    mended: str = ""  # "what:count" lines, of stored images that were odd but complete

    @property
    def record(self) -> ShardRecord:
        return ShardRecord(**{each.name: getattr(self, each.name) for each in fields(ShardRecord)})

    @property
    def labels_N2(self) -> np.ndarray:
        """int32: label, images."""
        return np.array(self.labels.replace(":", " ").split(), np.int32).reshape(-1, 2)

    @property
    def label_counts(self) -> dict[int, int]:
        return dict(self.labels_N2.tolist())

    @property
    def mended_counts(self) -> Counter[str]:
        pairs = (line.rpartition(":") for line in self.mended.splitlines())
        return Counter({what: int(count) for what, _, count in pairs})

    @staticmethod
    def from_json(values: dict) -> "WrittenShard":
        quarantined = tuple(Quarantined(**entry) for entry in values["quarantined"])
        return WrittenShard(**{**values, "quarantined": quarantined})


def pack_label_counts(labels: Iterable[int]) -> str:
    return " ".join(f"{label}:{count}" for label, count in sorted(Counter(labels).items()))


def sum_label_counts(shards: Iterable[WrittenShard]) -> dict[int, int]:
    """Images by label, of all these shards."""
    total = np.zeros(0, np.int64)  # from label -1 on
    for shard in shards:
        labels_N, counts_N = shard.labels_N2.T
        total = np.pad(total, (0, max(0, labels_N.max(initial=-2) + 2 - len(total))))
        total[labels_N + 1] += counts_N  # each label is there once
    return {int(place) - 1: int(total[place]) for place in np.flatnonzero(total)}


def pack_mended(mended: Counter[str]) -> str:
    return "\n".join(f"{what}:{count}" for what, count in sorted(mended.items()))


def mended_notes(shards: Iterable[WrittenShard]) -> list[str]:
    """A line on the images that are stored though something was odd in them."""
    counts = sum((shard.mended_counts for shard in shards), Counter[str]())
    kinds = ", ".join(f"{count:,} times {what}" for what, count in counts.most_common())
    return [f"{counts.total():,} images are complete but odd, and kept: {kinds}"] if counts else []
