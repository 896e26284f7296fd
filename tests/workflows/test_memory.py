"""A batch that does not fit: which one would, from what a few images take."""

import pytest
import torch

from workflows.training.memory import DoesNotFit, largest, told

GIB = 2**30


def test_the_largest_batch_is_that_at_which_memory_is_nearly_full():
    images = largest(lambda count: 2 * GIB + count * 10_000_000, 80 * GIB)
    assert 0.85 * 80 * GIB < 2 * GIB + images * 10_000_000 < 0.95 * 80 * GIB
    assert largest(lambda count: 90 * GIB + count * 10_000_000, 80 * GIB) == 0


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
