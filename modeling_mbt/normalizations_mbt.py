"""Latent normalizations: what is done to projections along their dimensions and along the whole batch.

Axes: N rows in the batch of all processes together, n rows of this process, D dimensions of a projection.
"""

# `once_differentiable` hides the parameters' names from pyright.
# pyright: reportIncompatibleMethodOverride=false

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from .distributed_mbt import all_reduced, rows_of_all_processes

LATENT_NORMALIZATIONS = ("none", "batch", "l2", "layer", "group", "whitening")
NUM_GROUPS = 8
WHITENING_SHRINKAGE = 0.1


def normalized(z: Tensor, normalization: str, strength: float, sizes: list[int]) -> Tensor:
    """Normalizes (n, D); all but "none" end with mean 0 and biased standard deviation 1 along the whole batch."""
    if normalization == "none":
        return z
    if normalization == "l2":
        z = unit_norm(z, strength)
    elif normalization == "whitening":
        z = _zca_whitened(z, sizes)
    elif normalization in ("layer", "group"):
        group_size = z.shape[1] // (NUM_GROUPS if normalization == "group" else 1)
        groups = z.reshape(z.numel() // group_size, group_size)
        z = standardize(groups.T, [group_size]).T.reshape(z.shape)
    return standardize(z, sizes)


def validate_normalization(normalization: str, strength: float = 1.0, num_dims: int | None = None) -> None:
    """Refuses, with the reason, what `normalized` cannot do or what would have no effect.

    Raises:
        ValueError: The name is unknown, the strength has no effect, or the dimensions are too few.
    """
    refusal = refusal_of_normalization(normalization, strength, num_dims)
    if refusal:
        raise ValueError(f"Latent normalization {normalization!r}: {refusal}.")


def refusal_of_normalization(normalization: str, strength: float, num_dims: int | None) -> str | None:
    """Returns why latents of so many dimensions cannot be normalized so; None if they can."""
    if normalization not in LATENT_NORMALIZATIONS:
        return f"there is no such normalization; choose one of {', '.join(LATENT_NORMALIZATIONS)}"
    if not 0 <= strength <= 1:
        return f"the strength lies between 0 (no effect) and 1 (unit norm) and was {strength}"
    if strength != 1 and normalization != "l2":
        return f"only 'l2' has a strength, so that {strength} would have no effect; leave it at 1"
    groups = NUM_GROUPS if normalization == "group" else 1
    if num_dims and num_dims % groups:
        return f"{num_dims} dimensions do not divide into {groups} groups; choose a multiple of {groups}"
    if num_dims and num_dims < groups * {"l2": 2, "layer": 3, "group": 3}.get(normalization, 1):
        return f"with {num_dims} dimensions it leaves only signs, which have no gradient; choose more dimensions"
    return None


def unit_norm(z: Tensor, strength: float = 1.0) -> Tensor:
    """Divides each vector (..., D) by its L2 norm to the power `strength`; zeros stay so, with a finite gradient."""
    peak = z.detach().abs().amax(-1, keepdim=True)  # without it squares leave float32's range at 1e19 and 1e-19
    peak = torch.where(peak > 0, peak, 1)
    scaled = z / peak
    norm = scaled.square().sum(-1, keepdim=True).clamp(min=1).sqrt()  # at least 1 by its peak, unless all is zero
    return scaled * (peak ** (1 - strength) / norm**strength)


def _zca_whitened(z: Tensor, sizes: list[int]) -> Tensor:
    """Computes U ((1 - s) R + s I)^(-1/2) of standardized U with correlation matrix R = U^T U / N and shrinkage s.

    It equals ((1 - s) U U^T / N + s I)^(-1/2) U, the cheaper form when N < D.
    """
    whole = standardize(rows_of_all_processes(z, sizes), [sum(sizes)])
    wide = whole.shape[0] < whole.shape[1]
    gram = (whole @ whole.T if wide else whole.T @ whole) / len(whole)
    identity = torch.eye(len(gram), dtype=z.dtype, device=z.device)
    root = _InverseSquareRoot.apply((1 - WHITENING_SHRINKAGE) * gram + WHITENING_SHRINKAGE * identity)
    white = root @ whole if wide else whole @ root
    return white.split(sizes)[dist.get_rank() if len(sizes) > 1 else 0]


class _InverseSquareRoot(torch.autograd.Function):
    """M^(-1/2) of a symmetric positive definite M.

    Its gradient by divided differences stays finite for equal eigenvalues, where that of `eigh` does not.
    """

    @staticmethod
    def forward(ctx, matrix: Tensor) -> Tensor:
        eigenvalues, vectors = torch.linalg.eigh(matrix)
        ctx.save_for_backward(eigenvalues.sqrt(), vectors)
        return vectors / eigenvalues.sqrt() @ vectors.T

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> Tensor:
        roots, vectors = ctx.saved_tensors
        differences = -1 / (torch.outer(roots, roots) * (roots[:, None] + roots))
        return vectors @ (differences * (vectors.T @ gradient @ vectors)) @ vectors.T


def standardize(z: Tensor, sizes: list[int]) -> Tensor:
    """Standardizes each dimension over the rows of all processes, with the biased deviation; (n, D) to (n, D)."""
    return _Standardize.apply(z, sizes)


class _Standardize(torch.autograd.Function):
    """No epsilon: a dimension that is constant to the last bit becomes 0 with gradient 0; all others are exact.

    By hand, `backward` sends one pair of sums through the processes.
    """

    @staticmethod
    def forward(ctx, z: Tensor, sizes: list[int]) -> Tensor:
        mean = all_reduced(z.sum(0), sizes) / sum(sizes)
        centered = z - mean
        centered.sub_(all_reduced(centered.sum(0), sizes) / sum(sizes))  # what rounding a large mean has left
        largest = centered.abs().amax(0) if len(z) else mean.new_zeros(mean.shape)  # a process may have no rows
        peak = all_reduced(largest, sizes, "MAX")  # without it squares leave float32's range at 1e19 and 1e-19
        peak = torch.where(peak > 0, peak, 1)
        scaled = centered.div_(peak)
        deviation = (all_reduced(scaled.square().sum(0), sizes) / sum(sizes)).sqrt()
        varies = peak * deviation > torch.finfo(z.dtype).eps * mean.abs()
        inverse = torch.where(varies, 1 / deviation, 0)
        standardized = scaled.mul_(inverse)
        ctx.save_for_backward(standardized, inverse / peak)
        ctx.sizes = sizes
        return standardized

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor):
        standardized, scale = ctx.saved_tensors
        sums = torch.stack([gradient.sum(0), (gradient * standardized).sum(0)])
        mean, projection = all_reduced(sums, ctx.sizes) / sum(ctx.sizes)
        return (gradient - mean).addcmul_(standardized, projection, value=-1).mul_(scale), None
