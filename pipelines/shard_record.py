"""What is known of one shard: what it holds, and which images could not be stored."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass


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
    mended: str = ""  # "what:count" lines, of stored images that were odd but complete

    @property
    def label_counts(self) -> dict[int, int]:
        pairs = (pair.split(":") for pair in self.labels.split())
        return {int(label): int(count) for label, count in pairs}

    @property
    def mended_counts(self) -> Counter[str]:
        pairs = (line.rpartition(":") for line in self.mended.splitlines())
        return Counter({what: int(count) for what, _, count in pairs})

    def to_json(self) -> dict:
        """Without what only later versions know, where that is empty: older records keep their digest."""
        values = asdict(self)
        return values if self.mended else {name: value for name, value in values.items() if name != "mended"}

    @staticmethod
    def from_json(values: dict) -> "ShardRecord":
        quarantined = tuple(Quarantined(**entry) for entry in values["quarantined"])
        return ShardRecord(**{**values, "quarantined": quarantined})


def pack_label_counts(labels: Iterable[int]) -> str:
    return " ".join(f"{label}:{count}" for label, count in sorted(Counter(labels).items()))


def pack_mended(mended: Counter[str]) -> str:
    return "\n".join(f"{what}:{count}" for what, count in sorted(mended.items()))


def mended_notes(records: Iterable[ShardRecord]) -> list[str]:
    """A line on the images that are stored though something was odd in them."""
    counts = sum((record.mended_counts for record in records), Counter[str]())
    kinds = ", ".join(f"{count:,} times {what}" for what, count in counts.most_common())
    return [f"{counts.total():,} images are complete but odd, and kept: {kinds}"] if counts else []
