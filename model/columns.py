"""Where the columns and the replicas of the network live, and what they say to each other.

The network calls `exchange` before the layers that read both columns, and `gather_logits` at its end; it knows nothing
else of ranks. With both columns in one process these do nothing. With one column a rank, the two differ in their
backward: each column uses the other's maps in its own way, so `exchange` sums the two gradients, while the logits feed
one loss that both ranks repeat, so theirs is only cut.

Ranks are numbered replica by replica: rank 2r and 2r + 1 hold the two columns of replica r.
"""

from collections import Counter
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


def share(total: int, column: int, columns: int) -> slice:
    """The outputs of a layer that a column holds; the first column takes the odd one."""
    return slice(-(-total * column // columns), -(-total * (column + 1) // columns))


class OneProcess:
    """All columns of the network in this process, side by side in each tensor's channels."""

    def __init__(self, columns: int):
        self.held = columns
        self.bytes_for = Counter[str]()  # nothing moves

    def slice(self, total: int) -> slice:
        """The outputs of a layer that live here."""
        return slice(0, total)

    def exchange(self, x: Tensor) -> Tensor:
        return x

    def gather_logits(self, logits: Tensor, num_classes: int) -> Tensor:
        return logits

    def merge(self, tensor: Tensor, total: int) -> Tensor:
        return tensor.clone(memory_format=torch.contiguous_format)


class OneColumn:
    """One of the two columns, its sister in the other rank of `group` (gloo, or NCCL for tensors on the GPU)."""

    held = 1

    def __init__(self, column: int, group: dist.ProcessGroup):
        self.column, self.group = column, group
        self.sister = dist.get_global_rank(group, 1 - column)
        self.staged = dist.get_backend(group) == "gloo"  # gloo moves host memory only
        self.bytes_for = Counter[str]()  # bytes sent by both columns together, for "layers", "batches" or "state"

    def slice(self, total: int) -> slice:
        return share(total, self.column, 2)

    def exchange(self, x: Tensor) -> Tensor:
        """Both columns' maps (units), the first column's first; its backward sums what the columns ask of each."""
        return _Exchange.apply(x, self)

    def gather_logits(self, logits: Tensor, num_classes: int) -> Tensor:
        """All classes' logits; its backward cuts out this column's."""
        return _GatherLogits.apply(logits, self, num_classes)

    def merge(self, tensor: Tensor, total: int) -> Tensor:
        """Both columns' parts of a parameter, along its first dimension; both ranks must call it."""
        return self._join(tensor, total, "state")

    def share_batch(self, images: Tensor, labels: Tensor, batch_size: int) -> tuple[Tensor, Tensor]:
        """The whole batch on both ranks: the first brings its first rows, however many, and the second the others."""
        return self._join(images, batch_size, "batches"), self._join(labels, batch_size, "batches")

    def _join(self, mine: Tensor, total: int, purpose: str) -> Tensor:
        theirs = self.swap(mine, (total - len(mine), *mine.shape[1:]), purpose)
        return torch.cat(self.ordered(mine.contiguous(), theirs))

    def ordered(self, mine: Tensor, theirs: Tensor) -> tuple[Tensor, Tensor]:
        return (mine, theirs) if self.column == 0 else (theirs, mine)

    def swap(self, mine: Tensor, theirs_shape: tuple[int, ...], purpose: str = "layers") -> Tensor:
        """Sends a tensor to the other column and returns what it sends at the same time."""
        device = mine.device
        mine = mine.detach().to("cpu" if self.staged else device).contiguous()
        theirs = torch.empty(theirs_shape, dtype=mine.dtype, device=mine.device)
        self.bytes_for[purpose] += (mine.numel() + theirs.numel()) * mine.element_size()
        ops = [dist.P2POp(dist.isend, mine, self.sister, self.group)] if mine.numel() else []
        ops += [dist.P2POp(dist.irecv, theirs, self.sister, self.group)] if theirs.numel() else []
        for work in dist.batch_isend_irecv(ops) if ops else []:
            work.wait()
        return theirs.to(device)


class _Exchange(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, place: OneColumn) -> Tensor:
        ctx.place, ctx.size = place, x.shape[1]
        return torch.cat(place.ordered(x, _swap_maps(place, x)), dim=1)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        first, second = grad.split(ctx.size, dim=1)
        mine, theirs = (first, second) if ctx.place.column == 0 else (second, first)
        return mine + _swap_maps(ctx.place, theirs), None


def _swap_maps(place: OneColumn, x: Tensor) -> Tensor:
    """Swaps tensors of one shape; maps travel channels last, as the convolutions keep them, and are not copied."""
    if x.dim() != 4:
        return place.swap(x, x.shape)
    x_BHWC = x.permute(0, 2, 3, 1)
    return place.swap(x_BHWC, x_BHWC.shape).permute(0, 3, 1, 2)


class _GatherLogits(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits: Tensor, place: OneColumn, num_classes: int) -> Tensor:
        ctx.mine = place.slice(num_classes)
        other = place.swap(logits, (len(logits), num_classes - logits.shape[1]))
        return torch.cat(place.ordered(logits, other), dim=1)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:
        return grad[:, ctx.mine], None, None


@dataclass(frozen=True)
class Replicas:
    """The replica that this rank belongs to, and the ranks that hold the same column of the others."""

    index: int = 0
    count: int = 1
    group: dist.ProcessGroup | None = None

    def sum(self, flat: Tensor) -> Tensor:
        """Becomes its sum over the replicas: one tensor of fixed layout, so that the order of addition never changes.

        Returns the tensor itself.
        """
        if self.count == 1:
            return flat
        if flat.device.type == "cpu" or dist.get_backend(self.group) != "gloo":
            dist.all_reduce(flat, group=self.group)
            return flat
        host = flat.to("cpu")
        dist.all_reduce(host, group=self.group)
        return flat.copy_(host)

    def take_first(self, tensor: Tensor) -> None:
        """Becomes the first replica's."""
        if self.count == 1:
            return
        host = tensor if dist.get_backend(self.group) != "gloo" else tensor.to("cpu")
        dist.broadcast(host, group=self.group, group_src=0)
        tensor.copy_(host)


def place_ranks(columns: int, columns_per_rank: int, rank: int, world: int) -> tuple[OneProcess | OneColumn, Replicas]:
    """This rank's columns and replica among `world` ranks of torch.distributed; every rank must call it."""
    ranks_per_replica = columns // columns_per_rank
    assert world % ranks_per_replica == 0, f"{world} ranks cannot hold replicas of {ranks_per_replica} ranks"
    count = world // ranks_per_replica
    place: OneProcess | OneColumn = OneProcess(columns)
    if ranks_per_replica == 2:
        pairs = [dist.new_group([2 * replica, 2 * replica + 1]) for replica in range(count)]
        place = OneColumn(rank % 2, pairs[rank // 2])
    group = None
    if count > 1:
        peers = [dist.new_group(range(column, world, ranks_per_replica)) for column in range(ranks_per_replica)]
        group = peers[rank % ranks_per_replica]
    return place, Replicas(rank // ranks_per_replica, count, group)
