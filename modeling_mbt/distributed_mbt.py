"""What every objective takes and returns: two views of a batch, of which each process may hold a shard.

Axes: N pairs in the batch of all processes together, n pairs of this process, D dimensions of a projection.

Inside an initialized `torch.distributed` group of W processes every objective takes this process's shard, (n, D),
shards may differ in size, and returns the value of the whole batch on every process; all processes must make the call.
`backward` then yields W times the gradient with respect to this process's projections, so that the mean over processes
that `DistributedDataParallel` takes of the parameters' gradients is the gradient of one process with the whole batch.
`sizes` are the rows of each process.
"""

# `once_differentiable` hides the parameters' names from pyright.
# pyright: reportIncompatibleMethodOverride=false

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable


class ObjectiveOutput(NamedTuple):
    """An objective over the whole batch, three 0-d tensors.

    Barlow Twins: `loss` = `invariance_loss` + lambda * `redundancy_loss`. All others, whose weights are inside the
    terms: `loss` = `invariance_loss` (attraction of two views, or of a frame and its predictions) + `redundancy_loss`
    (spread of different samples).
    """

    loss: Tensor
    invariance_loss: Tensor
    redundancy_loss: Tensor


@contextmanager
def whole_batch(
    z_a: Tensor, z_b: Tensor, axes: tuple[str, ...] = ("samples", "dimensions")
) -> Iterator[tuple[Tensor, Tensor, list[int]]]:
    """Yields both views in float32 (float64 stays) and the rows of each process; nothing inside is autocast.

    Raises:
        ValueError: The shapes differ or have other axes, or the whole batch holds fewer than two samples.
    """
    z_a, z_b = _checked_views(z_a, z_b, axes)
    with torch.autocast(z_a.device.type, enabled=False):
        yield z_a, z_b, _shard_sizes(z_a)


def _checked_views(z_a: Tensor, z_b: Tensor, axes: tuple[str, ...]) -> tuple[Tensor, Tensor]:
    """Returns the views in float32 or more; refuses what are not two views of the same samples with these axes."""
    if z_a.ndim != len(axes) or z_a.shape != z_b.shape or not z_a.shape[-1]:
        raise ValueError(
            f"An objective compares two views of the same samples, both ({', '.join(axes)}), and was given "
            f"{tuple(z_a.shape)} and {tuple(z_b.shape)}: pass the projections of both views in the same order."
        )
    dtype = torch.promote_types(torch.promote_types(z_a.dtype, z_b.dtype), torch.float32)
    return z_a.to(dtype), z_b.to(dtype)


def _shard_sizes(z: Tensor) -> list[int]:
    """Returns the numbers of rows of the processes; one number without a group."""
    sizes = [len(z)]
    if num_processes() > 1:
        of_each = [torch.empty(1, dtype=torch.int64, device=z.device) for _ in range(num_processes())]
        dist.all_gather(of_each, torch.tensor(sizes, device=z.device))
        sizes = torch.cat(of_each).tolist()
    if sum(sizes) < 2:
        raise ValueError(
            f"An objective tells samples of a batch apart and needs at least 2, over all processes, but was given "
            f"{sum(sizes)}: use a larger batch, and drop an incomplete last one."
        )
    return sizes


def num_processes() -> int:
    """Returns W; 1 without a group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def sum_over_processes(share: Tensor, sizes: list[int]) -> Tensor:
    """Returns the sum, which all processes continue with in the same way: the gradient needs no exchange."""
    return _AllSum.apply(share, sizes)


class _AllSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx, share: Tensor, sizes: list[int]) -> Tensor:
        ctx.processes = len(sizes)
        return all_reduced(share, sizes)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor):
        return gradient * ctx.processes, None


def rows_of_all_processes(shard: Tensor, sizes: list[int]) -> Tensor:
    """Returns the whole batch, (n, ...) to (N, ...); processes may go on in their own ways: gradients are summed."""
    return _Gather.apply(shard, sizes)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, shard: Tensor, sizes: list[int]) -> Tensor:
        ctx.sizes = sizes
        return gathered(shard, sizes)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor):
        own = dist.get_rank() if len(ctx.sizes) > 1 else 0
        return all_reduced(gradient, ctx.sizes).split(ctx.sizes)[own], None


def gathered(shard: Tensor, sizes: list[int]) -> Tensor:
    """Returns the rows of all processes in order of rank, without a gradient; (n, ...) to (N, ...).

    They are padded on the way because collectives take equal shapes.
    """
    if len(sizes) == 1:
        return shard
    padded = shard.new_zeros(max(sizes), *shard.shape[1:])
    padded[: len(shard)] = shard
    shards = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(shards, padded)
    return torch.cat([rows[:size] for rows, size in zip(shards, sizes, strict=True)])


def all_reduced(share: Tensor, sizes: list[int], operation: str = "SUM") -> Tensor:
    """Returns the sum, or another `ReduceOp`, over processes, without a gradient."""
    if len(sizes) == 1:
        return share
    total = share.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total, getattr(dist.ReduceOp, operation))
    return total
