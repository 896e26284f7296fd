"""The views of an image that is tested: those of a slow reference, with the centre among them by its name."""

import numpy as np
import pytest
import torch
from pixel_reference import views_one_by_one

from pipelines.views import cut_views, place_of_centre, views_of


@pytest.mark.parametrize("kind", ["ten", "nine", "one"])
@pytest.mark.parametrize(("size_px", "crop_px"), [(32, 24), (13, 8), (9, 8)])
def test_views_are_those_of_a_slow_reference(kind, size_px, crop_px):
    images_BCHW = np.random.default_rng(0).uniform(0, 255, (2, 3, size_px, size_px)).astype(np.float32)
    cut_BVCHW = cut_views(torch.from_numpy(images_BCHW), crop_px, kind)
    np.testing.assert_array_equal(cut_BVCHW, [views_one_by_one(image, crop_px, kind) for image in images_BCHW])
    start = (size_px - crop_px) // 2
    middle_BCHW = images_BCHW[:, :, start : start + crop_px, start : start + crop_px]
    np.testing.assert_array_equal(cut_BVCHW[:, place_of_centre(kind, size_px - crop_px)], middle_BCHW)


def test_the_papers_offsets_and_those_of_cuda_convnet():
    ten = list(views_of("ten", 32).values())
    assert [view[:2] for view in ten[:5]] == [(0, 0), (0, 32), (16, 16), (32, 0), (32, 32)]
    assert [(view[:2], view.mirrored) for view in ten[5:]] == [(view[:2], True) for view in ten[:5]]
    assert [view[:2] for view in views_of("nine", 8).values()] == [(y, x) for y in (0, 4, 8) for x in (0, 4, 8)]


@pytest.mark.parametrize(("kind", "count"), [("ten", 2), ("nine", 1), ("one", 1)])
def test_where_nothing_is_cut_off_the_distinct_views_have_the_average_of_all(kind, count):
    image_CHW = np.random.default_rng(0).uniform(0, 255, (3, 8, 8))
    cut_VCHW = cut_views(torch.from_numpy(image_CHW)[None], 8, kind)[0]
    assert len(cut_VCHW) == count
    np.testing.assert_allclose(cut_VCHW.mean(0), views_one_by_one(image_CHW, 8, kind).mean(0))
    np.testing.assert_array_equal(cut_VCHW[place_of_centre(kind, 0)], image_CHW)
