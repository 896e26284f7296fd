"""From runs of stored samples to batches of tensors, decoding ahead of whoever takes them.

A run is decoded at once and cut into batches: DALI idles a little at the end of each run, so runs are of a few hundred
images even where batches are small.
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

RUN_IMAGES = 256


class Batch(NamedTuple):
    images_BCHW: torch.Tensor  # float32, RGB 0..255; several views are [B, V, C, H, W]
    labels_B: torch.Tensor  # int64; -1 unknown
    ids_B: np.ndarray  # int64


class Run(NamedTuple):
    samples: Samples
    parameters: Parameters
    sizes: list[int]  # of the batches, which may be empty


def batches_per_run(batch_size: int) -> int:
    return max(1, RUN_IMAGES // max(1, batch_size))


def decode_runs(runs: Iterable[Run], decoder: Decoder, reader: ShardReader, timings: Timings) -> Iterator[Batch]:
    """The batches of the runs, in order. ValueError names the shard and row of an image that cannot be decoded."""
    runs, started = iter(runs), deque[Run]()
    turn = decoder.begin()
    asked = perf_counter()
    reading_s = _start(runs, started, decoder)
    while started:
        run = started.popleft()
        before = perf_counter()
        images_BCHW = _finish(run, decoder, reader)
        decoding_s = perf_counter() - before
        reading_s += _start(runs, started, decoder)
        for batch in _cut(run, images_BCHW):
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


def _cut(run: Run, images_BCHW: torch.Tensor) -> Iterator[Batch]:
    labels_B = torch.from_numpy(run.samples.labels_B).to(images_BCHW.device)
    start = 0
    for size in run.sizes:
        stop = start + size
        yield Batch(images_BCHW[start:stop], labels_B[start:stop], run.samples.ids_B[start:stop])
        start = stop
    assert start == len(run.samples.images)
