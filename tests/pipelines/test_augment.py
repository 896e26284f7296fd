import numpy as np
import pytest

from pipelines.augment import Augmentation
from pipelines.specs import LoaderSpec

# Of the pixels 0..255 of ImageNet, as the 2012 code's successor ships them.
SIGMA = np.array([121.78006, 37.09389, 19.72083])
VECTORS = np.array([[-0.56351, -0.71258, 0.41796], [-0.57618, -0.02354, -0.81698], [-0.59200, 0.70120, 0.39731]])


def augmentation(size_px=256, crop_px=224, light=(), **fields) -> Augmentation:
    return Augmentation(LoaderSpec(**fields), size_px, crop_px, SIGMA**2, VECTORS, light)


def draw(ids, positions=None, epoch=0, **fields):
    return augmentation(**fields).draw(epoch, np.asarray(ids), np.asarray(ids if positions is None else positions))


def test_parameters_are_what_they_were_when_runs_were_recorded():
    drawn = draw([0, 1, 2**33], epoch=3, seed=7)
    assert drawn.y_B.tolist() == [17, 28, 26]
    assert drawn.x_B.tolist() == [0, 27, 0]
    assert drawn.mirror_B.tolist() == [1, 0, 0]
    shifts = [
        [5.5903788, 2.9449525, -4.5545921],
        [-2.8775532, 1.2871240, 4.1354785],
        [-4.509923, -1.3930999, 3.0214350],
    ]
    np.testing.assert_allclose(drawn.shift_B3, shifts, rtol=1e-6)


def test_a_sample_is_treated_alike_wherever_it_comes():
    ids = np.random.default_rng(0).permutation(1000)
    together = draw(ids, positions=np.arange(1000))
    for index in (0, 17, 999):
        alone = draw(ids[index : index + 1], positions=[123])
        assert all((one[0] == many[index]).all() for one, many in zip(alone, together, strict=True))


def test_every_epoch_and_seed_draws_anew():
    drawn = [draw(np.arange(100), epoch=epoch, seed=seed) for seed, epoch in [(0, 0), (0, 1), (1, 0)]]
    for one, other in [(0, 1), (0, 2), (1, 2)]:
        assert (drawn[one].y_B == drawn[other].y_B).mean() < 0.15
        assert (drawn[one].mirror_B == drawn[other].mirror_B).mean() < 0.75
        assert (drawn[one].shift_B3 != drawn[other].shift_B3).all()


def test_offsets_are_0_to_32_on_each_axis_and_half_is_mirrored():
    drawn = draw(np.arange(50_000))
    for offset_B in (drawn.y_B, drawn.x_B):
        assert (offset_B.min(), offset_B.max()) == (0, 32)
        assert abs(offset_B.mean() - 16) < 0.2
    assert abs(np.corrcoef([drawn.y_B, drawn.x_B, drawn.mirror_B]) - np.eye(3)).max() < 0.02
    assert abs(drawn.mirror_B.mean() - 0.5) < 0.01


def test_fewer_offsets_and_no_flip_on_request():
    drawn = draw(np.arange(5000), offsets=32, flip=False)
    assert (drawn.y_B.max(), drawn.x_B.max()) == (31, 31)
    assert not drawn.mirror_B.any()
    assert draw(np.arange(100), size_px=24, crop_px=24).y_B.max() == 0


def test_a_chunk_of_consecutive_positions_shares_crop_and_flip_but_not_lighting():
    ids = np.random.default_rng(0).permutation(3200)
    drawn = draw(ids, positions=np.arange(3200), crop_chunk=32)
    for column in drawn[:3]:
        chunks = column.reshape(100, 32)
        assert (chunks == chunks[:, :1]).all()
    assert len(np.unique(np.stack(drawn[:3])[:, ::32], axis=1).T) > 95  # of 100 chunks
    assert len(np.unique(drawn.shift_B3[:, 0])) > 3190
    part = draw(ids[40:80], positions=np.arange(40, 80), crop_chunk=32)
    assert all((one == all_[40:80]).all() for one, all_ in zip(part, drawn, strict=True))


def test_lighting_by_sigma_is_the_formula_of_the_2012_code():
    """0.1 * V (sigma * z) on 0..255: standard deviations along the components 12.18, 3.71, 1.97 grey levels."""
    shift_B3 = draw(np.arange(100_000)).shift_B3
    along = shift_B3 @ VECTORS
    np.testing.assert_allclose(along.std(axis=0), [12.18, 3.71, 1.97], rtol=0.01)
    np.testing.assert_allclose(shift_B3.std(axis=0), [7.40, 7.20, 7.70], rtol=0.01)
    assert abs(np.corrcoef(along.T) - np.eye(3)).max() < 0.02


def test_lighting_by_eigenvalue_is_the_formula_of_the_paper_on_0_to_1():
    along = draw(np.arange(100_000), lighting="eigenvalue").shift_B3 @ VECTORS
    np.testing.assert_allclose(along.std(axis=0), [5.82, 0.54, 0.15], rtol=0.02)


def test_lighting_goes_off_and_takes_the_scale_with_it():
    half = augmentation(light=((5, 0.0),))
    ids = np.arange(4)
    assert [bool(half.draw(epoch, ids, ids).shift_B3.any()) for epoch in (0, 4, 5, 9)] == [True, True, False, False]
    assert [half.input_scale(epoch) for epoch in (0, 4, 5, 9)] == [1 / 1.1, 1 / 1.1, 1, 1]
    twice = augmentation(light=((0, 0.2), (3, 0.1)))
    np.testing.assert_allclose(twice.draw(2, ids, ids).shift_B3, 2 * half.draw(2, ids, ids).shift_B3, rtol=1e-6)
    np.testing.assert_array_equal(twice.draw(3, ids, ids).shift_B3, half.draw(3, ids, ids).shift_B3)
    assert not draw(ids, lighting="off").shift_B3.any()
    assert augmentation(lighting="off").input_scale(0) == 1
    assert augmentation(lighting="eigenvalue").input_scale(0) == 1
    assert augmentation(lighting_coeff=0.2).input_scale(0) == pytest.approx(1 / 1.2)


@pytest.mark.parametrize(("size_px", "crop_px", "offset"), [(256, 224, 16), (32, 24, 4), (9, 4, 2), (24, 24, 0)])
def test_a_single_offset_is_the_centre(size_px, crop_px, offset):
    drawn = draw(np.arange(50), size_px=size_px, crop_px=crop_px, offsets=1)
    assert set(drawn.y_B.tolist()) == set(drawn.x_B.tolist()) == {offset}


def test_crops_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="crop of 300 px does not fit the stored 256 px"):
        augmentation(crop_px=300)
    with pytest.raises(ValueError, match=r"loader.offsets is 34; 224 px of 256 px have 33"):
        augmentation(offsets=34)
