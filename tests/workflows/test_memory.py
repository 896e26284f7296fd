"""A batch that does not fit: which one would, from what fewer images take."""

import math

import pytest
import torch

from workflows.training.memory import DoesNotFit, largest, told

GIB = 2**30


def peak_of_alexnet(count: int) -> int:
    """Of few images where fc6 goes back, of more where a normalisation does: in float32, traced without a GPU."""
    return max(884_000_000 + count * 12_600_000, 730_000_000 + count * 16_560_000)


@pytest.mark.parametrize("total", [1 * GIB, 2 * GIB, 24 * GIB, 80 * GIB, 139 * GIB])
@pytest.mark.parametrize("more", [1.01, 1.3, 2, 7.7, 100])
def test_the_largest_batch_is_that_at_which_memory_is_nearly_full(total, more):
    fits = next(count for count in range(10_000) if peak_of_alexnet(count + 1) > total)
    images = largest(lambda count: peak_of_alexnet(count) if count <= fits else math.inf, total, int(fits * more) + 1)
    assert images <= fits
    assert images == 1 or peak_of_alexnet(images + 2) > 0.85 * total


def test_where_not_one_image_fits_none_is_named():
    assert largest(lambda count: math.inf, 80 * GIB, 128) == 0
    assert largest(lambda count: math.inf, 80 * GIB, 1) == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_batch_that_is_told_fits_and_one_half_as_large_again_does_not():
    import numpy as np

    from model.specs import AlexNetSpec, TrainSpec
    from model.trainer import Trainer

    trainer = Trainer(AlexNetSpec(), TrainSpec(), np.full((224, 224, 3), 120.0), 10, device="cuda")

    def step(count: int) -> None:
        images = torch.zeros(count, 3, 224, 224, dtype=torch.uint8, device="cuda")
        labels = torch.zeros(count, dtype=torch.int64, device="cuda")
        fits = True
        try:
            trainer.train_step(images, labels)
        except torch.OutOfMemoryError:
            fits = False
        if not fits:
            raise told(trainer, images, labels, count)

    too_many = torch.cuda.get_device_properties(0).total_memory // 1_000_000
    with pytest.raises(DoesNotFit, match="set train.batch_size=") as caught:
        step(too_many)
    fitting = int(str(caught.value).partition("about ")[2].partition(" do")[0].replace(",", ""))
    step(fitting)
    with pytest.raises(DoesNotFit):
        step(fitting * 3 // 2)
