"""Where the time of a training loop goes, and the one line that says what to do about it."""

from dataclasses import dataclass, field
from typing import NamedTuple

_WORTH_ACTING = 0.05  # of the time


class BatchTiming(NamedTuple):
    """Of one batch, seconds that the loop waited for it; of these, for shards to be read and images to be decoded."""

    waiting_s: float
    reading_s: float
    decoding_s: float


@dataclass
class Timings:
    """Of an epoch: how long the loop waited for its batches, and how long it was busy with them."""

    num_batches: int = 0
    num_images: int = 0
    waiting_s: float = 0.0
    reading_s: float = 0.0
    decoding_s: float = 0.0
    computing_s: float = 0.0
    last: BatchTiming = field(default=BatchTiming(0.0, 0.0, 0.0))

    def add(self, num_images: int, batch: BatchTiming) -> None:
        self.num_batches += 1
        self.num_images += num_images
        self.waiting_s += batch.waiting_s
        self.reading_s += batch.reading_s
        self.decoding_s += batch.decoding_s
        self.last = batch

    @property
    def images_per_s(self) -> float:
        return self.num_images / max(self.waiting_s + self.computing_s, 1e-9)


def verdict(timings: Timings, encoding: str = "jpeg") -> str:
    """One line: what bounds the loop, and the way out."""
    total_s = timings.waiting_s + timings.computing_s
    if not total_s:
        return "no batch yet"
    waiting = timings.waiting_s / total_s
    facts = f"{waiting:.0%} of the time spent waiting for images, {timings.images_per_s:,.0f} images/s"
    if waiting < _WORTH_ACTING:
        return f"compute-bound: {facts}; the loader keeps up"
    if timings.reading_s > timings.decoding_s:
        return f"storage-bound: {facts}; put the shards on a faster or nearer disk"
    raw = " or use raw shards (ingest.encoding=raw)" if encoding == "jpeg" else ""
    return f"input-bound: {facts}; raise loader.threads{raw}"
