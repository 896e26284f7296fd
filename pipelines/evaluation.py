"""Batches to evaluate on: every stored sample once, in stored order, for any number of workers.

Several views of an image are all cut from one decode.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import numpy as np

from pipelines.augment import Parameters
from pipelines.batches import Batch, Run, batches_per_run, decode_runs
from pipelines.decode import Decoder
from pipelines.formats.rows import ShardRows
from pipelines.manifest import Manifest
from pipelines.names import Device, Views
from pipelines.order import EpochOrder, share
from pipelines.reading import OrderedSamples, Samples, ShardReader
from pipelines.shard_record import ShardRecord
from pipelines.storage import Folder
from pipelines.timings import Timings
from pipelines.views import cut_views

RUN_IMAGES = 256  # at once: of each core's task


def eval_batches(
    folder: Folder,
    manifest: Manifest,
    split: str,
    *,
    crop_px: int,
    batch_size: int,
    views: Views = "one",
    worker: int = 0,
    num_workers: int = 1,
    part: int = 0,
    num_parts: int = 1,
    threads: int,
    device: Device = "cpu",
) -> Iterator[Batch]:
    """This worker's contiguous share of the split: images [B, C, H, W] of one view, or [B, V, C, H, W] of several.

    Of each batch it is the contiguous `part` of `num_parts`, which may be empty.
    """
    size_px, records = manifest.size_px, manifest.splits.get(split, ())
    first, end = share(0, manifest.num_rows(split), worker, num_workers)
    if first == end:
        return
    decoded_px = crop_px if views == "one" else size_px
    batches_in_run = batches_per_run(batch_size, RUN_IMAGES)
    decoder = Decoder(manifest.encoding, size_px, decoded_px, batches_in_run * batch_size, threads, device)
    reader = ShardReader(folder, records)
    samples = OrderedSamples(reader, EpochOrder([record.rows for record in records], window_shards=1))
    slices = list(batch_slices(first, end, batch_size, part, num_parts))
    runs = _runs(samples.take, slices, batches_in_run, (size_px - decoded_px) // 2)
    seen = []
    for batch in decode_runs(runs, decoder, reader, Timings()):
        seen.append(batch.ids_B)
        if views != "one":
            batch = batch._replace(crops_BCHW=cut_views(batch.crops_BCHW, crop_px, views))
        yield batch
    expected = np.concatenate([stored_ids(record) for record in records])
    expected = expected[np.concatenate([np.arange(*rows) for rows in slices])]
    assert np.array_equal(np.concatenate(seen), expected), f"{split}: not the samples of the manifest"


def batch_slices(first: int, end: int, batch_size: int, part: int = 0, num_parts: int = 1) -> Iterator[tuple[int, int]]:
    """Where, among rows first..end-1, each batch begins and ends, or a contiguous part of it."""
    for start in range(first, end, batch_size):
        yield share(start, min(start + batch_size, end), part, num_parts)


class CentreCrops:
    """Centre crops of whole shards, in stored order: one shard after the other, through one decoder."""

    def __init__(
        self, encoding: str, size_px: int, crop_px: int, batch_size: int, threads: int, device: Device = "cpu"
    ):
        self._batch_size, self._batches_in_run = batch_size, batches_per_run(batch_size, RUN_IMAGES)
        self._offset_px = (size_px - crop_px) // 2
        self._decoder = Decoder(encoding, size_px, crop_px, self._batches_in_run * batch_size, threads, device)

    def of_shard(self, folder: Folder, record: ShardRecord, rows: ShardRows) -> Iterator[Batch]:
        """Images [B, C, H, W] of a shard of this folder, whose rows are read already."""
        assert np.array_equal(rows.ids, stored_ids(record)), f"{record.name}: not the samples of the manifest"
        labels_N, no_N, row_N = rows.labels.astype(np.int64), np.zeros(len(rows), np.int64), np.arange(len(rows))

        def take(at_B: np.ndarray) -> Samples:
            images = [rows.images[row] for row in at_B]
            return Samples(images, labels_N[at_B], rows.ids[at_B], no_N[at_B], row_N[at_B])

        runs = _runs(take, batch_slices(0, len(rows), self._batch_size), self._batches_in_run, self._offset_px)
        return decode_runs(runs, self._decoder, ShardReader(folder, [record]), Timings())


def stored_ids(record: ShardRecord) -> np.ndarray:
    """The ids of a shard's rows, from the manifest alone."""
    listed = np.arange(record.first_id, record.first_id + record.listed)
    return np.setdiff1d(listed, [entry.id for entry in record.quarantined], assume_unique=True)


def _runs(
    take: Callable[[np.ndarray], Samples],
    slices: Iterable[tuple[int, int]],
    batches_in_run: int,
    offset_px: int,
) -> Iterator[Run]:
    waiting = iter(slices)
    while group := list(islice(waiting, batches_in_run)):
        sizes = [stop - start for start, stop in group]
        taken = take(np.concatenate([np.arange(*rows) for rows in group]))
        yield Run(taken, _unchanged(sum(sizes), offset_px), sizes)


def _unchanged(num_images: int, offset_px: int) -> Parameters:
    """No mirror and no lighting; the same offset on both axes."""
    offset_B = np.full(num_images, offset_px)
    return Parameters(offset_B, offset_B, np.zeros(num_images, np.int32), np.zeros((num_images, 3), np.float32))
