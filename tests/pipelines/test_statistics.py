"""Statistics are exact: those of plain NumPy, and the same bits however the images were cut and merged."""

import itertools
import json
import tarfile

import numpy as np
import pytest

from pipelines import shards
from pipelines.images import decode_jpeg
from pipelines.shards import read_shard
from pipelines.statistics import STATS_JSON, PixelSums, Statistics, _ImageSums, sum_shard, sum_shards
from pipelines.storage import Folder
from tests.memory_source import ingest, jpegs, memory_source

SIZE = 24
KINDS = pytest.mark.parametrize(
    ("format", "encoding"), [(f, e) for f in ("parquet", "tfrecord") for e in ("jpeg", "raw")]
)


def images():
    """With images that are there twice and three times, and one damaged."""
    all_images = jpegs(16)
    return [*all_images, all_images[3], all_images[5], all_images[9], all_images[9], b"no image"]


def sums_of(folder, manifest) -> list[PixelSums]:
    return [sum_shard(folder, record, manifest.size_px) for record in manifest.splits["train"]]


def merged(parts) -> PixelSums:
    return PixelSums.merged(SIZE, parts)


def equal_bits(a: Statistics, b: Statistics) -> bool:
    return all(np.asarray(getattr(a, name)).tobytes() == np.asarray(getattr(b, name)).tobytes() for name in vars(a))


@KINDS
def test_statistics_are_those_of_plain_numpy(tmp_path, format, encoding):
    folder, manifest = ingest(
        tmp_path, memory_source({"train": images()}), format=format, encoding=encoding, max_bad=0.2
    )
    stats = merged(sums_of(folder, manifest)).compute(3)
    rows = [read_shard(folder, record) for record in manifest.splits["train"]]
    stored = np.stack([i if i.ndim == 3 else decode_jpeg(i) for part in rows for i in part.images])
    pixels = stored.reshape(-1, 3).astype(np.float64)

    assert (stats.num_images, stats.num_pixels, stats.size_px) == (20, 20 * SIZE**2, SIZE)
    assert np.array_equal(stats.mean_image_HWC, stored.mean(axis=0, dtype=np.float64))
    np.testing.assert_allclose(stats.channel_mean, pixels.mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(stats.channel_std, pixels.std(axis=0), rtol=1e-12)
    per_image = stored.reshape(20, -1, 3).astype(np.float64).std(axis=1)
    np.testing.assert_allclose(stats.channel_std_of_images, per_image.mean(axis=0), atol=2**-24)
    np.testing.assert_allclose(stats.covariance, np.cov(pixels.T, bias=True), rtol=1e-11)
    assert np.array_equal(stats.channel_histogram, [np.bincount(c, minlength=256) for c in stored.reshape(-1, 3).T])
    labels = np.concatenate([part.labels for part in rows])
    assert np.array_equal(stats.class_counts, np.bincount(labels, minlength=3))
    widths = np.concatenate([part.widths for part in rows])
    assert np.array_equal(stats.width_histogram, np.bincount(widths // 32, minlength=64))
    assert stats.height_histogram.sum() == 20


def test_eigenvectors_have_the_documented_order_and_sign(tmp_path):
    folder, manifest = ingest(tmp_path, memory_source({"train": images()[:-1]}))
    stats = merged(sums_of(folder, manifest)).compute(3)
    assert (np.diff(stats.eigenvalues) < 0).all()
    np.testing.assert_allclose(stats.covariance @ stats.eigenvectors, stats.eigenvectors * stats.eigenvalues, atol=1e-9)
    np.testing.assert_allclose(stats.eigenvectors.T @ stats.eigenvectors, np.eye(3), atol=1e-12)
    assert (stats.eigenvectors[0] > 0).all()


def statistics_of(*images_HWC) -> Statistics:
    sums, num_images = _ImageSums(SIZE), len(images_HWC)
    for image in images_HWC:
        sums.add(np.ascontiguousarray(image, np.uint8))
    totals = {**vars(PixelSums.empty(SIZE)), **sums.totals(), "images": np.zeros((num_images, 3), np.uint64)}
    return PixelSums(**totals).compute(1)


@pytest.mark.parametrize("seed", range(20))
def test_images_without_colour_have_one_component_and_no_noise_around_it(seed):
    levels = np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE, 1))
    stats = statistics_of(np.repeat(levels, 3, axis=2))
    assert stats.eigenvalues.tolist()[1:] == [0, 0]
    np.testing.assert_allclose(stats.eigenvalues[0], 3 * levels.var(), rtol=1e-12)
    np.testing.assert_allclose(stats.eigenvectors[:, 0], 3**-0.5)


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (0, 128, 9)])
def test_images_of_one_colour_have_no_component_at_all(colour):
    stats = statistics_of(np.full((SIZE, SIZE, 3), colour))
    assert stats.eigenvalues.tolist() == stats.channel_std.tolist() == [0, 0, 0]
    assert np.isfinite(stats.eigenvectors).all()


@pytest.mark.parametrize("still", [(), (0,), (0, 1), (2,)])
def test_signs_follow_red_or_the_first_colour_that_varies(still):
    """Channels that are constant leave components without red."""
    image = np.random.default_rng(1).integers(0, 256, (SIZE, SIZE, 3))
    image[..., list(still)] = 7
    for vector in statistics_of(image).eigenvectors.T:
        assert vector[np.abs(vector) > 1e-6][0] > 0


def test_signs_stay_where_red_and_blue_take_turns_at_being_the_larger():
    """As in photographs, whose second component runs from warm to cold, when a few more images are added."""
    rng = np.random.default_rng(3)
    light, warmth = rng.normal(0, 50, (2, SIZE, SIZE))
    seconds = []
    for red, blue in ((0.2, 0.4), (0.4, 0.2)):
        image = np.stack([light + red * warmth, light, light - blue * warmth], axis=2)
        seconds.append(statistics_of(np.clip(image + 128, 0, 255)).eigenvectors[:, 1])
    assert len({np.abs(vector).argmax() for vector in seconds}) == 2
    assert seconds[0] @ seconds[1] > 0.9


def test_stats_do_not_depend_on_sharding(tmp_path):
    results = []
    for rows_per_shard in (21, 3, 1):
        folder, manifest = ingest(
            tmp_path / str(rows_per_shard),
            memory_source({"train": images()}),
            rows_per_shard=rows_per_shard,
            max_bad=0.2,
        )
        assert len(manifest.splits["train"]) == -(-21 // rows_per_shard)
        results.append(merged(sums_of(folder, manifest)).compute(3))
    assert all(equal_bits(results[0], other) for other in results[1:])


def test_stats_do_not_depend_on_the_order_or_the_grouping_of_merges(tmp_path):
    folder, manifest = ingest(tmp_path, memory_source({"train": images()}), rows_per_shard=6, max_bad=0.2)
    parts = sums_of(folder, manifest)
    expected = merged(parts).compute(3)
    for order in itertools.permutations(parts):
        assert equal_bits(merged(order).compute(3), expected)
    for cut in (1, 2, 3):
        halves = (manifest.splits["train"][:cut], manifest.splits["train"][cut:])
        assert equal_bits(merged(sum_shards(folder, half, SIZE) for half in halves).compute(3), expected)


@pytest.mark.parametrize("level", [0, 255])
def test_extreme_levels_do_not_overflow(level):
    """The largest size whose block is one product sum, and a size that needs several."""
    for size in (256, 300):
        sums = _ImageSums(size)
        sums.add(np.full((size, size, 3), level, np.uint8))
        totals = sums.totals()
        assert totals["cross_sums"].tolist() == [level**2 * size**2] * 3
        assert totals["channel_histogram"][:, level].tolist() == [size**2] * 3
        assert totals["std_sums"].tolist() == [0, 0, 0]


def test_the_std_of_an_image_is_exact_to_its_fixed_point():
    sums = _ImageSums(4)
    image = np.zeros((4, 4, 3), np.uint8)
    image[:2] = (255, 3, 1)
    sums.add(image)
    assert sums.totals()["std_sums"].tolist() == [int(127.5 * 2**24), int(1.5 * 2**24), int(0.5 * 2**24)]


def test_saved_statistics_are_read_back_to_the_bit(tmp_path):
    folder, manifest = ingest(tmp_path / "shards", memory_source({"train": images()}), max_bad=0.2)
    stats = merged(sums_of(folder, manifest)).compute(3)
    stats.save(Folder.at(tmp_path))
    assert equal_bits(Statistics.load(Folder.at(tmp_path)), stats)
    values = json.loads((tmp_path / STATS_JSON).read_text())
    keys = "num_images num_pixels channel_mean channel_std channel_std_of_images covariance eigenvalues eigenvectors"
    assert set(keys.split()) <= set(values)
    assert values["eigenvectors"] == stats.eigenvectors.tolist()


def test_an_image_of_another_size_is_named(tmp_path):
    """Whole by its checksums, yet no image of the size asked for."""
    folder, manifest = ingest(tmp_path, memory_source({"train": jpegs(5)}))
    (record,) = manifest.splits["train"]
    with pytest.raises(ValueError, match=f"{record.name}: row 0: 24 x 24 px instead of 32 x 32"):
        sum_shard(folder, record, 32)


def test_no_images_are_refused():
    with pytest.raises(ValueError, match="at least one image"):
        PixelSums.empty(SIZE).compute(3)


def test_a_damaged_shard_stops_the_statistics(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "_checked", set())
    folder, manifest = ingest(tmp_path, memory_source({"train": jpegs(5)}))
    (record,) = manifest.splits["train"]
    content = bytearray(folder.read(record.name))
    content[-100] ^= 1
    (tmp_path / record.name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{record.name}: row 4"):
        sum_shard(folder, record, SIZE)


def test_statistics_of_real_images_are_those_of_plain_numpy(tmp_path, real_data):
    with tarfile.open(real_data / "imagenet-sample-500.tar") as archive:
        data = [archive.extractfile(member).read() for member in archive if member.isfile()][::10]
    folder, manifest = ingest(tmp_path, memory_source({"train": data}), size=256, rows_per_shard=20)
    stats = PixelSums.merged(256, sums_of(folder, manifest)).compute(3)
    stored = np.stack(
        [decode_jpeg(i) for record in manifest.splits["train"] for i in read_shard(folder, record).images]
    )
    assert np.array_equal(stats.mean_image_HWC, stored.mean(axis=0, dtype=np.float64))
    np.testing.assert_allclose(stats.covariance, np.cov(stored.reshape(-1, 3).T.astype(float), bias=True), rtol=1e-10)
    assert len(stored) == stats.num_images == 50
