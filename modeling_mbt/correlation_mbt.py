"""Diagonal and off-diagonal energy of a correlation matrix that is not built where the batch is the smaller one.

Axes: N rows in the batch of all processes together, n rows of this process, D dimensions of a projection.
"""

# `once_differentiable` hides the parameters' names from pyright.
# pyright: reportIncompatibleMethodOverride=false

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .distributed_mbt import all_reduced, gathered, sum_over_processes


def diagonal_and_redundancy(a: Tensor, b: Tensor, sizes: list[int]) -> tuple[Tensor, Tensor]:
    """C_ii, (D,), and the sum of C_ij^2 over i != j of C = A^T B / N, by N x N Gram matrices when N < D."""
    num_samples, num_dims = sum(sizes), a.shape[1]
    if num_samples < num_dims:
        diagonal = sum_over_processes((a * b).sum(0), sizes) / num_samples
        return diagonal, _SquaredCrossGram.apply(a, b, sizes) / num_samples**2 - diagonal.square().sum()
    correlation = sum_over_processes(a.T @ b, sizes) / num_samples
    diagonal = correlation.diagonal()
    return diagonal, (correlation - diagonal.diag()).square().sum()


class _SquaredCrossGram(torch.autograd.Function):
    """||A^T B||_F^2 = <A A^T, B B^T>, each process holding its own rows of both Gram matrices.

    By hand, `backward` takes two products; autograd, which cannot know that the matrices are symmetric, takes four.
    """

    @staticmethod
    def forward(ctx, a: Tensor, b: Tensor, sizes: list[int]) -> Tensor:
        all_a, all_b = gathered(a, sizes), gathered(b, sizes)
        gram_a, gram_b = a @ all_a.T, b @ all_b.T
        ctx.save_for_backward(all_a, all_b, gram_a, gram_b)
        ctx.sizes = sizes
        return all_reduced(torch.dot(gram_a.flatten(), gram_b.flatten()), sizes)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor):
        all_a, all_b, gram_a, gram_b = ctx.saved_tensors
        scale = 2 * len(ctx.sizes) * gradient
        return (gram_b @ all_a).mul_(scale), (gram_a @ all_b).mul_(scale), None
