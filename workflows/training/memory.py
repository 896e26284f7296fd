"""What to say where a GPU's memory does not hold a batch: which one it would hold, measured there and then."""

from collections.abc import Callable

import torch

from model.columns import OneColumn
from model.step import backward
from model.trainer import Trainer

_FEW = 4, 12  # images; what the second takes more than the first is what eight take
_SPARE = 0.9  # of the memory; the allocator does not fill it to the last block


class DoesNotFit(ValueError):
    """A batch is too large for the GPU."""


def largest(peak_bytes: Callable[[int], int], total_bytes: int) -> int:
    """How many images fit into so many bytes, by what a few take at most; 0 where not one does."""
    few, more = map(peak_bytes, _FEW)
    each = max(1, (more - few) // (_FEW[1] - _FEW[0]))
    return max(0, (int(_SPARE * total_bytes) - few) // each + _FEW[0])


def told(trainer: Trainer, images_BCHW: torch.Tensor, labels_B: torch.Tensor, batch_size: int) -> DoesNotFit:
    """The error that a training step on these images ends with, after it ran out of memory.

    To be called when torch's own error is gone, since that holds what the step had made. Where the columns live in two
    processes nothing is tried out: the other one may be elsewhere, and would be waited for.
    """

    def peak_bytes(count: int) -> int:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(trainer.device)
        backward(trainer.net, images_BCHW[:count], labels_B[:count], precision=trainer.precision)
        return torch.cuda.max_memory_allocated(trainer.device)

    what = f"train.batch_size={batch_size}: {len(labels_B):,} images do not fit the GPU's memory"
    if isinstance(trainer.net.columns, OneColumn):
        return DoesNotFit(f"{what}: lower train.batch_size, or raise train.replicas")
    try:
        fitting = largest(peak_bytes, torch.cuda.get_device_properties(trainer.device).total_memory)
    except torch.OutOfMemoryError:
        return DoesNotFit(f"{what}, nor do {_FEW[1]}: other work may hold it, see `nvidia-smi`")
    ways = f"train.batch_size={batch_size * fitting // len(labels_B)}, or more train.replicas"
    return DoesNotFit(f"{what}; about {fitting:,} do: set {ways}")
