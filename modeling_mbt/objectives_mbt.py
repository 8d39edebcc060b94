"""Barlow Twins and its modified form (Brima et al., 2023, arXiv 2309.03619), on the projections of two views.

Axes: N pairs in the batch of all processes together, n pairs of this process, D dimensions of a projection.
"""

# `once_differentiable` hides the parameters' names from pyright.
# pyright: reportIncompatibleMethodOverride=false

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .distributed_mbt import ObjectiveOutput, all_reduced, gathered, sum_over_processes, whole_batch
from .normalizations_mbt import normalized, standardize, unit_norm, validate_normalization


def barlow_twins_loss(z_a: Tensor, z_b: Tensor, redundancy_loss_weight: float = 0.005) -> ObjectiveOutput:
    """Computes Eq. (1), Barlow Twins: sum_i (1 - C_ii)^2 + lambda sum_i sum_{j != i} C_ij^2.

    C, (D, D), correlates the dimensions of the two views along the batch: C = A^T B / N.

    Args:
        z_a: Projections of the first views, (n, D), any floating dtype; computed in float32, float64 stays.
        z_b: Projections of the second views, (n, D).
        redundancy_loss_weight: lambda.

    Returns:
        The `loss`, its terms `invariance_loss` and, without lambda, `redundancy_loss`: 0-d tensors, in a group of
        processes those of the whole batch, as `distributed_mbt` says.

    Raises:
        ValueError: The shapes differ or are not (n, D), or the whole batch holds fewer than two pairs.
    """
    with whole_batch(z_a, z_b) as (z_a, z_b, sizes):
        a, b = (standardize(z, sizes) for z in (z_a, z_b))  # each dimension: mean 0, deviation 1 along the batch
        return correlation_loss(a, b, sizes, redundancy_loss_weight)


def modified_barlow_twins_loss(z_a: Tensor, z_b: Tensor, redundancy_loss_weight: float = 0.005) -> ObjectiveOutput:
    """Computes Eq. (3), Modified Barlow Twins: Eq. (1) of projections that are divided by their L2 norms first.

    Arguments, result and errors as for `barlow_twins_loss`; a single dimension, a sign by then, is refused as well.
    """
    with whole_batch(z_a, z_b) as (z_a, z_b, sizes):
        validate_normalization("l2", num_dims=z_a.shape[1])
        a, b = (standardize(unit_norm(z), sizes) for z in (z_a, z_b))  # z / ||z||_2
        return correlation_loss(a, b, sizes, redundancy_loss_weight)


def correlation_loss(a: Tensor, b: Tensor, sizes: list[int], redundancy_loss_weight: float) -> ObjectiveOutput:
    """Computes the sum of Eq. (1) over C = A^T B / N of standardized A and B, (n, D); `sizes` the processes' rows."""
    diagonal, redundancy = diagonal_and_redundancy(a, b, sizes)  # C_ii, and sum_i sum_{j != i} C_ij^2
    invariance = (1 - diagonal).square().sum()
    return ObjectiveOutput(invariance + redundancy_loss_weight * redundancy, invariance, redundancy)


def diagonal_and_redundancy(a: Tensor, b: Tensor, sizes: list[int]) -> tuple[Tensor, Tensor]:
    """Computes C_ii, (D,), and the sum of C_ij^2 over i != j of C = A^T B / N, which is not built where N < D."""
    num_samples, num_dims = sum(sizes), a.shape[1]
    if num_samples < num_dims:
        diagonal = sum_over_processes((a * b).sum(0), sizes) / num_samples
        return diagonal, squared_cross_gram(a, b, sizes) / num_samples**2 - diagonal.square().sum()
    correlation = sum_over_processes(a.T @ b, sizes) / num_samples
    diagonal = correlation.diagonal()
    return diagonal, (correlation - diagonal.diag()).square().sum()


def squared_cross_gram(a: Tensor, b: Tensor, sizes: list[int]) -> Tensor:
    """Computes ||A^T B||_F^2 = <A A^T, B B^T>, by Gram matrices of N x N; 0-d."""
    return _SquaredCrossGram.apply(a, b, sizes)


class _SquaredCrossGram(torch.autograd.Function):
    """Each process holds its own rows of both Gram matrices.

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


def cross_correlation(
    z_a: Tensor, z_b: Tensor, latent_normalization: str = "batch", latent_normalization_strength: float = 1.0
) -> Tensor:
    """Returns the matrix C of Eq. (1), (D, D); with "l2" that of Eq. (3).

    C_ij correlates dimension i of the first views with j of the second.

    Args:
        z_a: Projections of the first views, (n, D).
        z_b: Projections of the second views, (n, D).
        latent_normalization: One of `normalizations_mbt.LATENT_NORMALIZATIONS`.
        latent_normalization_strength: alpha of "l2".

    Raises:
        ValueError: As `barlow_twins_loss`, or the normalization is unknown or has no effect.
    """
    validate_normalization(latent_normalization, latent_normalization_strength, z_a.shape[-1])
    with whole_batch(z_a, z_b) as (z_a, z_b, sizes):
        a, b = (normalized(z, latent_normalization, latent_normalization_strength, sizes) for z in (z_a, z_b))
        return sum_over_processes(a.T @ b, sizes) / sum(sizes)


def correlation_statistics(
    z_a: Tensor, z_b: Tensor, latent_normalization: str = "batch", latent_normalization_strength: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Returns the mean of C_ii and the root mean square of C_ij over i != j, two 0-d tensors.

    C is that of `cross_correlation`, whose arguments and errors these are; it is not built where N < D.
    """
    validate_normalization(latent_normalization, latent_normalization_strength, z_a.shape[-1])
    with whole_batch(z_a, z_b) as (z_a, z_b, sizes):
        a, b = (normalized(z, latent_normalization, latent_normalization_strength, sizes) for z in (z_a, z_b))
        diagonal, redundancy = diagonal_and_redundancy(a, b, sizes)
    num_dims = len(diagonal)
    return diagonal.mean(), (redundancy.clamp(min=0) / max(1, num_dims * (num_dims - 1))).sqrt()


def barlow_twins_floor(num_samples: int, num_dims: int, redundancy_loss_weight: float = 0.005) -> float:
    """Returns a loss that no latents of Barlow Twins can go below; 1 - floor / D is the mean C_ii there.

    C is a product of centered matrices of N rows, so its rank is at most r = min(N - 1, D) and the sum of all C_ij^2
    is at least (tr C)^2 / r. With every C_ii equal to c the loss is then at least
    D (1 - c)^2 + lambda D c^2 (D / r - 1), least at c = 1 / (1 - lambda + lambda D / r), where it is D (1 - c).
    Unequal C_ii pay only for lambda > 1, where the least is D - r, as at lambda = 1. Some latents reach the floor of
    N - 1 samples: the bound is tight to that.

    Raises:
        ValueError: There are fewer than two samples or no dimension.
    """
    rank = min(num_samples - 1, num_dims)
    if rank < 1:
        raise ValueError(
            f"The floor takes 2 samples and 1 dimension at least; it was given {num_samples}, {num_dims}."
        )
    weight = min(redundancy_loss_weight, 1.0)
    return num_dims * (1 - 1 / (1 - weight + weight * num_dims / rank))
