"""Images as rows of pixels: the centre crops, reduced where large; their neighbours, whatever parts they come in."""

import numpy as np
import pytest
import shard_builder

from pipelines import pixels
from pipelines.pixels import PixelRows, compared, joined, merged, pixel_rows

LISTED = {"train": [7, 4], "val": [3]}


@pytest.mark.parametrize(("size_px", "crop_px"), [(48, 20), (80, 64)])
def test_rows_are_the_means_of_the_centre_crop(tmp_path, size_px, crop_px):
    store, manifest = shard_builder.write_shards(tmp_path, LISTED, encoding="raw", size_px=size_px, quarantined=(2,))
    rows = joined(pixel_rows(store, manifest, manifest.splits["train"], crop_px))
    assert rows.ids_N.tolist() == [0, 1, 3, 4, 5, 6, 7, 8, 9, 10]
    assert rows.labels_N.tolist() == [id % 3 for id in rows.ids_N]
    first, side = (size_px - crop_px) // 2, min(crop_px, 32)
    by = crop_px // side
    for id, row_U in zip(rows.ids_N.tolist(), rows.pixels_NU, strict=True):
        crop_HWC = shard_builder.pixels(id, size_px)[first : first + crop_px, first : first + crop_px]
        means_HWC = crop_HWC.reshape(side, by, side, by, 3).mean(axis=(1, 3))
        np.testing.assert_allclose(row_U.reshape(3, side, side), means_HWC.transpose(2, 0, 1), atol=0.01)


def rows(ids: range) -> PixelRows:
    found = np.random.default_rng(1).uniform(0, 255, (60, 5)).astype(np.float32)
    return PixelRows(np.array(ids), np.array(ids) % 4, found[ids.start : ids.stop])


def test_neighbours_do_not_depend_on_the_parts():
    queries, others_QM = rows(range(50, 60)), np.random.default_rng(2).integers(0, 60, (10, 3))
    whole = compared(queries, [rows(range(60))], 4, others_QM, leave_out=True)
    parts = [
        compared(queries, [rows(range(start, start + 10)) for start in starts], 4, others_QM, leave_out=True)
        for starts in ((0, 30), (10, 40, 20), (50,))
    ]
    found = merged(parts, 4)
    for one, other in zip((*whole.nearest, *whole[1:]), (*found.nearest, *found[1:]), strict=True):
        np.testing.assert_array_equal(one, other)
    assert (found.labels_QK == found.nearest.ids_QK % 4).all()
    assert not (found.nearest.ids_QK == queries.ids_N[:, None]).any()
    every = rows(range(60)).pixels_NU
    expected = np.linalg.norm(queries.pixels_NU[:, None] - every[others_QM], axis=2)
    np.testing.assert_allclose(found.distances_QM, expected, rtol=1e-6)


def test_crops_up_to_32_px_are_compared_as_they_are():
    assert [pixels.side_px(px) for px in (24, 32, 224)] == [24, 32, 32]
