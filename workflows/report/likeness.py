"""Neighbours for the report: those that `alexnet neighbours` found for the run, or of a small data set found here."""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from pipelines import alike, pixels
from pipelines.evaluation import CentreCrops
from pipelines.features import FeatureRows
from pipelines.names import TRAIN
from pipelines.neighbour_rows import SUMMARY, joined, neighbours_among
from pipelines.pixels import PixelRows
from pipelines.shards import read_shard
from workflows.folders import MODELS
from workflows.report.finished_run import FinishedRun

SMALL_IMAGES = 10_000  # training and test images together: seconds of work
TOP = 50


class Likeness(NamedTuple):
    """Images of a split and their neighbours among the training images, the nearest first; in stored order."""

    split: str
    ids_Q: np.ndarray
    labels_Q: np.ndarray
    neighbour_ids_QK: np.ndarray
    neighbour_labels_QK: np.ndarray
    card: dict[str, Any]  # right_class and pixels of `neighbours.json`


def likeness(run: FinishedRun) -> Likeness | None:
    """None where nobody looked for neighbours and the data set is not small. ValueError: there are no features."""
    if "neighbours" in run.outputs:
        return _stored(run)
    split = run.evaluation["split"]
    num_images = run.manifest.num_rows(TRAIN) + run.manifest.num_rows(split)
    return _found(run, split) if num_images <= SMALL_IMAGES else None


def _stored(run: FinishedRun) -> Likeness:
    card, frame = json.loads(run.output("neighbours").folder.read(SUMMARY)), run.neighbours
    ids, labels = (np.stack(frame[name].to_numpy()) for name in ("neighbour_ids", "neighbour_labels"))
    return Likeness(card["split"], frame["id"].to_numpy(), frame["label"].to_numpy(), ids, labels, card)


def _found(run: FinishedRun, split: str) -> Likeness:
    """Each image is decoded once, for its features and for its pixels."""
    train, train_pixels = _looked_at(run, TRAIN)
    is_train = split == TRAIN
    queries, query_pixels = (train, train_pixels) if is_train else _looked_at(run, split)
    found = neighbours_among(queries, [train], TOP, leave_out=is_train)
    others_QM = alike.others(found.nearest.ids_QK, train.ids_N, train.ids_N if is_train else None)
    by_pixels = pixels.compared(query_pixels, [train_pixels], TOP, others_QM, is_train)
    counts, crop_px = run.manifest.label_counts(TRAIN), run.net.input_px
    card = alike.told(queries.labels_N, found.neighbour_labels_QK, by_pixels, query_pixels, counts, crop_px)
    return Likeness(split, queries.ids_N, queries.labels_N, found.nearest.ids_QK, found.neighbour_labels_QK, card)


def _looked_at(run: FinishedRun, split: str) -> tuple[FeatureRows, PixelRows]:
    """All images of a split."""
    features, as_pixels = zip(*_looks(run, split), strict=True)
    return joined(features), pixels.joined(as_pixels)


def _looks(run: FinishedRun, split: str) -> Iterator[tuple[FeatureRows, PixelRows]]:
    """The images of a split, a shard at a time, in the centre crop and with the weights that were evaluated."""
    from model.export import load_exported
    from model.step import features

    with run.output("train").folder.child(MODELS[run.config.evaluate.weights]).as_local() as folder:
        net = load_exported(folder, run.config.net.kind).net
    manifest, crop_px = run.manifest, run.net.input_px
    crops = CentreCrops(manifest.encoding, manifest.size_px, crop_px, batch_size=128, threads=1)
    for record in (record for record in manifest.splits[split] if record.rows):
        rows = read_shard(run.shards, record)
        batches = [batch.crops_BCHW for batch in crops.of_shard(run.shards, record, rows)]
        found_NU = np.concatenate([features(net, images_BCHW).numpy() for images_BCHW in batches])
        labels_N = rows.labels.astype(np.int64)
        as_pixels = PixelRows(rows.ids, labels_N, np.concatenate([pixels.reduced(images) for images in batches]))
        yield FeatureRows(rows.ids, rows.keys, labels_N, found_NU), as_pixels
