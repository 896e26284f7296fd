"""Where the columns and the replicas of the network live, and what they say to each other.

The network calls `exchange` before the layers that read both columns, and `gather_logits` at its end; it knows nothing
else of ranks. With both columns in one process these do nothing. With one column a rank, the two differ in their
backward: each column uses the other's maps in its own way, so `exchange` sums the two gradients, while the logits feed
one loss that both ranks repeat, so theirs is only cut.

Ranks are numbered replica by replica: rank 2r and 2r + 1 hold the two columns of replica r.
"""

from collections import Counter
from dataclasses import dataclass
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor

# torch 2.13 has these under new names; one collective each way, which a CUDA graph can hold.
_ALL_GATHER = getattr(dist, "all_gather_single", dist.all_gather_into_tensor)
_REDUCE_SCATTER = getattr(dist, "reduce_scatter_single", dist.reduce_scatter_tensor)


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
        return self.join(tensor, total, "state")

    def share_batch(
        self, images: Tensor, labels: Tensor, shift: Tensor | None, batch_size: int
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """The whole batch on both ranks: the first brings its first rows, however many, and the second the others.

        Images travel channels last, as they lie in memory.
        """
        join = partial(self.join, total=batch_size, purpose="batches")
        return _maps_first(join(_maps_last(images))), join(labels), None if shift is None else join(shift)

    def join(self, mine: Tensor, total: int, purpose: str = "layers") -> Tensor:
        """The first column's rows, then the second's; what is smaller travels with zeros up to the other's size."""
        sizes = (len(mine), total - len(mine)) if self.column == 0 else (total - len(mine), len(mine))
        if missing := max(sizes) - len(mine):
            mine = torch.cat([mine, mine.new_zeros((missing, *mine.shape[1:]))])
        both = [rows[:size] for rows, size in zip(self.gather(mine), sizes, strict=True)]
        self.bytes_for[purpose] += sum(rows.nbytes for rows in both)
        return torch.cat(both)

    def gather(self, mine: Tensor) -> Tensor:
        """[2, ...]: both columns' tensors, which have one shape; the first column's first."""
        mine = mine.detach()
        sent = mine.to("cpu" if self.staged else mine.device).contiguous()
        both = sent.new_empty((2, *sent.shape))
        if sent.numel():
            _ALL_GATHER(both.view(-1), sent.view(-1), group=self.group)
        return both.to(mine.device)

    def scatter_sum(self, for_each: Tensor) -> Tensor:
        """Of [2, ...], what is for each column, this column's, summed over both ranks."""
        sent = for_each.detach().to("cpu" if self.staged else for_each.device).contiguous()
        mine = sent.new_empty(sent.shape[1:])
        if sent.numel():
            _REDUCE_SCATTER(mine.view(-1), sent.view(-1), group=self.group)
        return mine.to(for_each.device)


class _Exchange(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, place: OneColumn) -> Tensor:
        ctx.place = place
        place.bytes_for["layers"] += 2 * x.nbytes
        return torch.cat([_maps_first(part) for part in place.gather(_maps_last(x))], dim=1)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        ctx.place.bytes_for["layers"] += grad.nbytes
        for_each = torch.stack([_maps_last(part) for part in grad.chunk(2, dim=1)])
        return _maps_first(ctx.place.scatter_sum(for_each)), None


def _maps_last(x: Tensor) -> Tensor:
    """As maps lie in memory: the convolutions keep them channels last."""
    return x.permute(0, 2, 3, 1) if x.dim() == 4 else x


def _maps_first(x: Tensor) -> Tensor:
    return x.permute(0, 3, 1, 2) if x.dim() == 4 else x


class _GatherLogits(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits: Tensor, place: OneColumn, num_classes: int) -> Tensor:
        ctx.mine = place.slice(num_classes)
        return place.join(logits.T, num_classes).T.contiguous()

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
