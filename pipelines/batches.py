"""From runs of stored samples to batches of tensors, decoding ahead of whoever takes them.

A run is decoded at once and cut into batches: DALI idles a little at the end of each run, and Python prepares a run at
once, so runs are of many images even where batches are small.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from time import perf_counter
from typing import NamedTuple

import numpy as np
import torch

from pipelines.augment import Parameters
from pipelines.decode import MAX_UNDER_WAY, Decoder, UndecodableImage
from pipelines.manifest import REDO
from pipelines.reading import Samples, ShardReader
from pipelines.timings import BatchTiming, Timings

RUN_IMAGES = 1024  # three runs are in memory


class Batch(NamedTuple):
    """Images as they are decoded and cut, on the training device, and what lighting adds to them there."""

    crops_BCHW: torch.Tensor  # uint8, RGB, channels last; several views are [B, V, C, H, W]
    labels_B: torch.Tensor  # int64; -1 unknown
    ids_B: np.ndarray  # int64
    shift_B3: torch.Tensor | None = None  # float32, grey levels; None where nothing is lit

    @property
    def images_BCHW(self) -> torch.Tensor:
        """float32, RGB 0..255 plus the shift; channels last, as the crops are."""
        return lit(self.crops_BCHW.float(), self.shift_B3)


def lit(images_BCHW: torch.Tensor, shift_B3: torch.Tensor | None) -> torch.Tensor:
    """The images themselves, channels last, with the shift added: a line of pixels at a time, three would be slow."""
    if shift_B3 is not None:
        width = images_BCHW.shape[3]
        images_BCHW.permute(0, 2, 3, 1).flatten(2).add_(shift_B3.repeat(1, width)[:, None])
    return images_BCHW


class Run(NamedTuple):
    samples: Samples
    parameters: Parameters
    sizes: list[int]  # of the batches, which may be empty
    is_lit: bool = False


def batches_per_run(batch_size: int, run_images: int = RUN_IMAGES) -> int:
    return max(1, run_images // max(1, batch_size))


def decode_runs(runs: Iterable[Run], decoder: Decoder, reader: ShardReader, timings: Timings) -> Iterator[Batch]:
    """The batches of the runs, in order. ValueError names the shard and row of an image that cannot be decoded."""
    runs, started = iter(runs), deque[Run]()
    turn = decoder.begin()
    asked = perf_counter()
    reading_s = _start(runs, started, decoder)
    while started:
        run = started.popleft()
        before = perf_counter()
        crops_BCHW = _finish(run, decoder, reader)
        decoding_s = perf_counter() - before
        reading_s += _start(runs, started, decoder)
        for batch in _cut(run, crops_BCHW):
            handed_out = perf_counter()
            timings.add(len(batch.ids_B), BatchTiming(handed_out - asked, reading_s, decoding_s))
            yield batch
            if decoder.turn != turn:
                raise ValueError("these batches ended when another pass over the loader began; take one at a time")
            asked = perf_counter()
            timings.computing_s += asked - handed_out
            reading_s = decoding_s = 0.0


def _start(runs: Iterator[Run], started: deque[Run], decoder: Decoder) -> float:
    """Queue runs as long as there is room; returns the seconds spent until their samples were read."""
    before = perf_counter()
    while len(started) < MAX_UNDER_WAY and (run := next(runs, None)):
        if run.samples.images:
            decoder.start(run.samples.images, run.parameters)
        started.append(run)
    return perf_counter() - before


def _finish(run: Run, decoder: Decoder, reader: ShardReader) -> torch.Tensor:
    if not run.samples.images:
        return decoder.no_images()
    try:
        return decoder.finish()
    except UndecodableImage as error:
        samples, index = run.samples, error.index
        where = reader.describe(samples.shards_B[index], samples.rows_B[index], samples.ids_B[index])
        raise ValueError(f"{where} cannot be decoded: {error.reason}; {REDO}") from error


def _cut(run: Run, crops_BCHW: torch.Tensor) -> Iterator[Batch]:
    labels_B = _sent(run.samples.labels_B, crops_BCHW.device)
    shift_B3 = _sent(run.parameters.shift_B3, crops_BCHW.device) if run.is_lit else None
    start = 0
    for size in run.sizes:
        part = slice(start, start + size)
        shift_of_part = None if shift_B3 is None else shift_B3[part]
        yield Batch(crops_BCHW[part], labels_B[part], run.samples.ids_B[part], shift_of_part)
        start += size
    assert start == len(run.samples.images)


def _sent(values: np.ndarray, device: torch.device) -> torch.Tensor:
    """On the device; to a GPU from pinned memory, since it would finish all its work before it took from other."""
    tensor = torch.from_numpy(values)
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)
