"""Shards, order and augmentation -> training batches; an epoch is a pure function of (manifest, options, epoch).

What a sample looks like in an epoch does not depend on threads, replicas, columns or restarts, so resuming costs one
integer, the step, and no state has to be saved. A fingerprint says which function it is.
"""

import hashlib
import json
import math
import os
from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice

import numpy as np

from pipelines.augment import Augmentation, Light
from pipelines.batches import Batch, Run, batches_per_run, decode_runs
from pipelines.decode import Decoder
from pipelines.manifest import Manifest
from pipelines.names import Device
from pipelines.order import EpochOrder, num_batches, share
from pipelines.reading import OrderedSamples, ShardReader
from pipelines.specs import LoaderSpec
from pipelines.storage import Folder
from pipelines.timings import Timings

UNSAID = {"decoder": "CPU"}  # what fingerprints once left out; raw pixels are the same on every device


class TrainLoader:
    """This replica's contiguous slice of each global batch; of that, the contiguous `part` of `num_parts`."""

    def __init__(
        self,
        folder: Folder,
        manifest: Manifest,
        spec: LoaderSpec,
        *,
        crop_px: int,
        batch_size: int,
        epochs: float = math.inf,
        eigenvalues: np.ndarray | None = None,
        eigenvectors: np.ndarray | None = None,
        light: Light = (),
        split: str = "train",
        replica: int = 0,
        num_replicas: int = 1,
        part: int = 0,
        num_parts: int = 1,
        device: Device = "cpu",
    ):
        """Batches of one epoch after another, each for the asking.

        Args:
            batch_size: The global one.
            epochs: In the last of them nothing is read ahead for a next one.
            eigenvalues: [3], of pixels 0..255, with eigenvectors [3, 3] (columns); what is not lit needs neither.
        """
        records = manifest.splits.get(split, ())
        self._rows_per_shard = [record.rows for record in records]
        if not sum(self._rows_per_shard):
            raise ValueError(f"{folder.where()} holds no images of split {split!r}; it has {sorted(manifest.splits)}")
        if batch_size < 1:
            raise ValueError(f"the batch size is {batch_size}; use 1 or more")
        self.spec, self.batch_size, self.epochs = spec, batch_size, epochs
        self._shares = ((replica, num_replicas), (part, num_parts))
        self._augmentation = Augmentation(spec, manifest.size_px, crop_px, eigenvalues, eigenvectors, light)
        self.fingerprint = _fingerprint(
            manifest, split, spec, crop_px, batch_size, light, self._augmentation.lighting_33, device
        )
        self.timings = Timings()
        self._reader = ShardReader(folder, records)
        local_batch_size = -(-batch_size // (num_replicas * num_parts))
        self._steps_per_run = batches_per_run(local_batch_size)
        max_images = self._steps_per_run * local_batch_size
        self._decoder = Decoder(
            manifest.encoding, manifest.size_px, crop_px, max_images, spec.threads or num_cores(), device
        )

    @property
    def num_samples(self) -> int:
        return sum(self._rows_per_shard)

    @property
    def steps_per_epoch(self) -> int:
        return num_batches(self.num_samples, self.batch_size)

    def input_scale(self, epoch: int) -> float:
        """What the model multiplies its input, minus the mean, by: 1 / 1.1 while the lighting of 2012 is on."""
        return self._augmentation.input_scale(epoch)

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from a step on; the timings are of this pass."""
        if not 0 <= start_step <= self.steps_per_epoch:
            raise ValueError(f"step {start_step} of an epoch of {self.steps_per_epoch} steps does not exist")
        self.timings = Timings()
        return decode_runs(self._runs(epoch, start_step), self._decoder, self._reader, self.timings)

    def check_fingerprint(self, saved: str) -> None:
        """ValueError where a step saved under another fingerprint means other samples here, naming what differs."""
        was, now = UNSAID | json.loads(saved), json.loads(self.fingerprint)
        differing = [
            f"{name} was {was.get(name)}, is {now.get(name)}"
            for name in sorted(was.keys() | now.keys())
            if was.get(name) != now.get(name)
        ]
        if differing:
            raise ValueError(
                "the saved position belongs to other batches: " + "; ".join(differing) + ". "
                "Restore these settings (and shards), or start a new run"
            )

    def _runs(self, epoch: int, start_step: int) -> Iterator[Run]:
        order, following = self._order(epoch), self._order(epoch + 1)
        then = following.window_shard_numbers(0) if epoch + 1 < self.epochs else ()
        samples = OrderedSamples(self._reader, order, then)
        steps = iter(range(start_step, self.steps_per_epoch))
        while group := list(islice(steps, self._steps_per_run)):
            slices = [self._slice(step) for step in group]
            positions_B = np.concatenate([np.arange(start, stop) for start, stop in slices])
            taken = samples.take(positions_B)
            parameters = self._augmentation.draw(epoch, taken.ids_B, positions_B)
            is_lit = self._augmentation.coefficient(epoch) != 0
            yield Run(taken, parameters, [stop - start for start, stop in slices], is_lit)

    def _order(self, epoch: int) -> EpochOrder:
        key = (self.spec.seed, epoch if self.spec.reshuffle else 0)
        return EpochOrder(self._rows_per_shard, self.spec.window_shards, key)

    def _slice(self, step: int) -> tuple[int, int]:
        """The positions of this loader in a global batch."""
        start = step * self.batch_size
        stop = min(start + self.batch_size, self.num_samples)
        for part, num_parts in self._shares:
            start, stop = share(start, stop, part, num_parts)
        return start, stop


def num_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0))


def _fingerprint(
    manifest: Manifest,
    split: str,
    spec: LoaderSpec,
    crop_px: int,
    batch_size: int,
    light: Light,
    lighting_33: np.ndarray,
    device: Device,
) -> str:
    """JSON of all that decides which pixels come at which step; not of threads or replicas."""
    values = {"manifest": manifest.digest, "split": split, "crop_px": crop_px, "batch_size": batch_size}
    values["decoder"] = "GPU" if device == "cuda" and manifest.encoding == "jpeg" else UNSAID["decoder"]
    values |= {name: value for name, value in asdict(spec).items() if name != "threads"}
    if spec.lighting != "off":
        values["lighting_levels"] = _rounded_digest(lighting_33)
        values["light"] = light
    return json.dumps(values, sort_keys=True)


def _rounded_digest(levels_33: np.ndarray) -> str:
    """sha256 of grey levels to six digits behind the point: another LAPACK's last bit makes no other batches."""
    return hashlib.sha256((np.round(levels_33, 6) + 0.0).tobytes()).hexdigest()  # + 0.0 makes 0 of -0
