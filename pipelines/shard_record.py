"""What is known of one shard: what it holds, and which images could not be stored."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Quarantined:
    """An image that could not be stored: where it is in the source (archive, member, offset), and why.

    A row of `quarantine.parquet`, which also says the split.
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

    name: str
    split: str
    first_id: int
    listed: int
    rows: int
    bytes: int
    sha256: str
    labels: str  # "label:count label:count .."; as text, since a split may have 15,000 shards of 1,000 classes
    quarantined: tuple[Quarantined, ...] = ()

    @property
    def label_counts(self) -> dict[int, int]:
        pairs = (pair.split(":") for pair in self.labels.split())
        return {int(label): int(count) for label, count in pairs}

    @staticmethod
    def from_json(values: dict) -> "ShardRecord":
        quarantined = tuple(Quarantined(**entry) for entry in values["quarantined"])
        return ShardRecord(**{**values, "quarantined": quarantined})


def pack_label_counts(labels: Iterable[int]) -> str:
    return " ".join(f"{label}:{count}" for label, count in sorted(Counter(labels).items()))
