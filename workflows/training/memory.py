"""What to say where a GPU's memory does not hold a batch: which one it would hold, measured there and then.

Near the largest batch that fits, since the peak of a few images lies elsewhere in the step and grows more slowly.
"""

import math
from collections.abc import Callable

import torch

from model.columns import OneColumn
from model.step import backward
from model.trainer import Trainer

_SPARE = 0.9  # of the memory; the allocator does not fill it to the last block


class DoesNotFit(ValueError):
    """A batch is too large for the GPU."""


def largest(peak_bytes: Callable[[int], float], total_bytes: int, too_many: int) -> int:
    """How many images fit into so many bytes; 0 where not one does.

    Args:
        peak_bytes: What so many images take at most; infinity where they do not fit.
    """
    fitting = too_many // 2
    while fitting and (taken := peak_bytes(fitting)) == math.inf:
        fitting //= 2
    if fitting < 2:
        return fitting
    fewer = fitting // 2
    each = max(1.0, (taken - peak_bytes(fewer)) / (fitting - fewer))
    more = math.floor((_SPARE * total_bytes - taken) / each)
    return min(max(1, fitting + more), too_many - 1)


def told(trainer: Trainer, images_BCHW: torch.Tensor, labels_B: torch.Tensor, batch_size: int) -> DoesNotFit:
    """The error that a training step on these images ends with, after it ran out of memory.

    To be called when torch's own error is gone, since that holds what the step had made. Where the columns live in two
    processes nothing is tried out: the other one may be elsewhere, and would be waited for.
    """

    def peak_bytes(count: int) -> float:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(trainer.device)
        try:
            backward(trainer.net, images_BCHW[:count], labels_B[:count], precision=trainer.precision)
        except torch.OutOfMemoryError:
            return math.inf
        return torch.cuda.max_memory_allocated(trainer.device)

    what = f"train.batch_size={batch_size}: {len(labels_B):,} images do not fit the GPU's memory"
    if isinstance(trainer.net.columns, OneColumn):
        return DoesNotFit(f"{what}: lower train.batch_size, or raise train.replicas")
    total_bytes = torch.cuda.get_device_properties(trainer.device).total_memory
    fitting = largest(peak_bytes, total_bytes, len(labels_B))
    if not fitting:
        return DoesNotFit(f"{what}, nor do fewer: other work may hold it, see `nvidia-smi`")
    ways = f"train.batch_size={batch_size * fitting // len(labels_B)}, or more train.replicas"
    return DoesNotFit(f"{what}; about {fitting:,} do: set {ways}")
