"""The demo draws the same set everywhere, varied, balanced, and with the damage that it announces."""

import io
import time

import numpy as np
import pytest
from PIL import Image

from pipelines.sources.catalog import open_source
from pipelines.sources.demo import DAMAGED, NUM_TRAIN, NUM_VAL, SEED, encoded_image
from pipelines.sources.scenes import SCENES
from pipelines.specs import IngestSpec


@pytest.fixture(scope="module")
def source():
    return open_source(IngestSpec())


def test_classes_are_balanced_in_both_splits(source):
    assert source.class_names == tuple(sorted(SCENES))
    assert len(source.class_names) == 10
    for split, count in (("train", NUM_TRAIN), ("val", NUM_VAL)):
        rows = source.splits[split]
        assert rows.num_rows == len(set(rows["key"].to_pylist())) == count
        assert (np.bincount(rows["label"]) == count // 10).all()


def test_an_image_depends_on_its_index_alone(source):
    rows = source.splits["train"].take([40, 3, 8, 3])
    a, b, c, d = source.reader.read(rows)
    assert b == d == encoded_image(SEED, 3) != encoded_image(SEED + 1, 3)
    assert len({a, b, c}) == 3
    assert [a, c] == [encoded_image(SEED, 40), encoded_image(SEED, 8)]


def test_images_vary_in_size_colour_and_mode():
    images = [Image.open(io.BytesIO(encoded_image(SEED, index))) for index in range(20, 220)]
    widths, heights = zip(*(image.size for image in images), strict=True)
    assert min(widths + heights) >= 90
    assert max(widths + heights) <= 200
    assert len(set(widths)) > 50
    assert 1 <= sum(image.mode == "L" for image in images) <= 25
    means = np.array([np.asarray(image.convert("RGB")).mean((0, 1)) for image in images])
    labels = np.arange(20, 220) % 10
    between = np.array([means[labels == label].mean(0) for label in range(10)]).std(0)
    assert (between < means.std(0) / 2).all()  # the mean colour does not give the class away


def test_exactly_the_announced_files_are_damaged():
    for index in (*DAMAGED, 18, 405):
        data = encoded_image(SEED, index)
        try:
            image = Image.open(io.BytesIO(data))
            image.load()
            is_whole = True
        except OSError:
            is_whole = False
        assert is_whole == (index not in DAMAGED), index
    assert {DAMAGED[index] for index in DAMAGED if index < NUM_TRAIN} == {"truncated", "garbage", "header", "empty"}


@pytest.mark.slow
def test_drawing_takes_a_few_milliseconds_an_image(source):
    start = time.process_time()
    count = sum(1 for _ in source.reader.read(source.splits["val"].slice(0, 200)))
    assert (time.process_time() - start) / count < 0.02
