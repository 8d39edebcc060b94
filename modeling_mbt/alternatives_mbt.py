"""Objectives beside Barlow Twins, each a function of the latents (N, D) of the whole batch.

Axes: N pairs in the batch of all processes together, n pairs of this process, D dimensions of a projection.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from .distributed_mbt import ObjectiveOutput, num_processes, rows_of_all_processes, whole_batch
from .normalizations_mbt import standardize, unit_norm
from .objectives_mbt import diagonal_and_redundancy


def _on_whole_batch(function: Callable[..., ObjectiveOutput]) -> Callable[..., ObjectiveOutput]:
    """Lets a function of the whole batch, (N, D), take this process's shard, (n, D), in any floating dtype."""

    @functools.wraps(function)
    def of_shard(z_a: Tensor, z_b: Tensor, *args: Any, **kwargs: Any) -> ObjectiveOutput:
        with whole_batch(z_a, z_b) as (z_a, z_b, sizes):
            return function(rows_of_all_processes(z_a, sizes), rows_of_all_processes(z_b, sizes), *args, **kwargs)

    return of_shard


@_on_whole_batch
def vicreg_loss(
    z_a: Tensor,
    z_b: Tensor,
    invariance_weight: float = 1.0,
    variance_weight: float = 1.0,
    covariance_weight: float = 0.1,
) -> ObjectiveOutput:
    """Computes VICReg (Bardes et al., 2022, eq. 1-6): squared distance; hinge on standard deviations; covariances.

    The variance term is the mean of both views, the covariance term their sum. Images use weights of 25, 25 and 1.
    """
    spread = z_a.new_zeros(())
    for z in (z_a, z_b):
        centered = z - z.mean(0)
        variance, covariance = diagonal_and_redundancy(centered, centered, [len(z)])
        unbiased = len(z) / (len(z) - 1)
        hinge = (1 - (unbiased * variance + 1e-4).sqrt()).relu().mean()
        covariance = unbiased**2 * covariance / z.shape[1]
        covariance = covariance.masked_fill(covariance.isnan(), math.inf)  # squares beyond float32: inf - inf
        spread = spread + variance_weight * hinge / 2 + covariance_weight * covariance
    attraction = invariance_weight * (z_a - z_b).square().mean()
    return ObjectiveOutput(attraction + spread, attraction, spread)


@_on_whole_batch
def infonce_loss(z_a: Tensor, z_b: Tensor, temperature: float = 0.1) -> ObjectiveOutput:
    """Computes NT-Xent of SimCLR (Chen et al., 2020, eq. 1): each of 2N views finds its other view by cosine."""
    z = unit_norm(torch.cat([z_a, z_b]))
    logits = z @ z.T / temperature
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    attraction = -logits.diagonal(len(z_a)).mean()
    spread = logits.masked_fill(itself, -math.inf).logsumexp(1).mean()
    return ObjectiveOutput(attraction + spread, attraction, spread)


@_on_whole_batch
def tcr_loss(z_a: Tensor, z_b: Tensor, distortion: float = 0.2, invariance_weight: float = 200.0) -> ObjectiveOutput:
    """Computes the total coding rate of unit-norm latents, as in EMP-SSL (Tong et al., 2023, arXiv 2304.03977).

    `distortion` is eps in 1/2 logdet(I + D / (N eps) Z^T Z), taken in the smaller of its two forms; the attraction is
    the cosine of each view to the mean view, which for unit vectors is the mean view's length.
    """
    z_a, z_b = unit_norm(z_a), unit_norm(z_b)
    num_samples, num_dims = z_a.shape
    spread = z_a.new_zeros(())
    for z in (z_a, z_b):
        gram = z @ z.T if num_samples < num_dims else z.T @ z
        identity = torch.eye(len(gram), dtype=z.dtype, device=z.device)
        spread = spread - torch.logdet(identity + num_dims / (num_samples * distortion) * gram) / 4
    attraction = -invariance_weight * torch.linalg.vector_norm((z_a + z_b) / 2, dim=1).mean()
    return ObjectiveOutput(attraction + spread, attraction, spread)


@_on_whole_batch
def hsic_loss(z_a: Tensor, z_b: Tensor, spread_weight: float = 3.0, kernel_scale: float = 1.0) -> ObjectiveOutput:
    """Computes SSL-HSIC (Li et al., 2021, 2106.08320): -HSIC(Z, Y) + gamma sqrt(HSIC(Z, Z)), Y the sample's identity.

    k(x, y) = c / sqrt(c^2 + |x - y|^2), the inverse multiquadric of unit-norm latents, with c = `kernel_scale`;
    HSIC(Z, Y) is, up to a constant factor, the mean kernel of the pairs less that of all 2N x 2N views. gamma =
    `spread_weight` takes some tens of samples: with about ten its penalty outweighs what spreading gains.
    """
    z = unit_norm(torch.cat([z_a, z_b]))
    kernel = kernel_scale * (kernel_scale**2 + (2 - 2 * z @ z.T).clamp(min=0)).rsqrt()
    centered = kernel - kernel.mean(0) - kernel.mean(1, keepdim=True) + kernel.mean()
    attraction = -kernel.diagonal(len(z_a)).mean()
    spread = kernel.mean() + spread_weight * torch.linalg.vector_norm(centered) / (len(z) - 1)
    return ObjectiveOutput(attraction + spread, attraction, spread)


@_on_whole_batch
def wmse_loss(z_a: Tensor, z_b: Tensor) -> ObjectiveOutput:
    """Computes W-MSE (Ermolov et al., 2021, arXiv 2007.06346): 2 - 2 cos of latents whitened view by view.

    Whitening keeps them spread.

    Raises:
        ValueError: if N < 2 D, where whitening fits noise: at N = D + 1 any batch becomes the same simplex.
    """
    num_samples, num_dims = z_a.shape
    if num_samples < 2 * num_dims:
        raise ValueError(
            f"W-MSE whitens {num_dims} dimensions, for which a batch needs {2 * num_dims} samples, and was given "
            f"{num_samples}: use a larger batch, or projections of at most {num_samples // 2} dimensions."
        )
    white_a, white_b = (unit_norm(_cholesky_whitened(z)) for z in (z_a, z_b))
    attraction = 2 - 2 * (white_a * white_b).sum(1).mean()
    return ObjectiveOutput(attraction, attraction, torch.zeros_like(attraction))


def _cholesky_whitened(z: Tensor) -> Tensor:
    standardized = standardize(z, [len(z)])  # whitening undoes it, and it brings the covariance to a unit diagonal
    correlation = standardized.T @ standardized / len(z)
    rounding = z.shape[1] * torch.finfo(z.dtype).eps * torch.eye(z.shape[1], dtype=z.dtype, device=z.device)
    factor = torch.linalg.cholesky(correlation + rounding)  # which a collapsed batch needs to be positive definite
    return torch.linalg.solve_triangular(factor, standardized.T, upper=False).T


@_on_whole_batch
def mmcr_loss(z_a: Tensor, z_b: Tensor) -> ObjectiveOutput:
    """Computes MMCR (Yerxa et al., 2023, arXiv 2303.03307): minus the nuclear norm of (N, D) means of unit-norm views.

    Views that agree have long means and samples that differ many directions: one term, reported as the spread.
    """
    centroids = (unit_norm(z_a) + unit_norm(z_b)) / 2
    spread = -torch.linalg.svdvals(centroids).sum()
    return ObjectiveOutput(spread, torch.zeros_like(spread), spread)


@_on_whole_batch
def sigreg_loss(
    z_a: Tensor,
    z_b: Tensor,
    spread_weight: float = 0.05,
    num_directions: int = 1024,
    num_knots: int = 17,
    t_max: float = 3.0,
    seed: int | None = None,
) -> ObjectiveOutput:
    """Computes SIGReg of LeJEPA (Balestriero and LeCun, 2025, arXiv 2511.08544): latents become a standard normal.

    Both views come to their mean (squared distance to it, averaged over views, samples and dimensions), weighted
    1 - `spread_weight`; the Epps-Pulley statistic N int |phi_N(t) - phi(t)|^2 phi(t) dt over [-t_max, t_max], averaged
    over views and over random directions, is weighted `spread_weight`. The characteristic function phi(t) is
    exp(-t^2 / 2), phi_N that of the N projections; the integral is a trapezoid with `num_knots` knots on [0, t_max].

    `seed` fixes the directions; None draws new ones by torch's global generator, that of process 0 for all processes.
    """
    knots = torch.linspace(0, t_max, num_knots, dtype=z_a.dtype, device=z_a.device)
    normal = (-knots.square() / 2).exp()
    weights = torch.full_like(knots, 2 * t_max / (num_knots - 1))
    weights[[0, -1]] /= 2
    directions = _directions(z_a, num_directions, seed)
    statistic = z_a.new_zeros(())
    for z in (z_a, z_b):
        angles = (z @ directions).unsqueeze(-1) * knots
        distance = (angles.cos().mean(0) - normal).square() + angles.sin().mean(0).square()
        statistic = statistic + len(z) * (distance @ (weights * normal)).mean() / 2
    attraction = (1 - spread_weight) * ((z_a - z_b) / 2).square().mean()
    spread = spread_weight * statistic
    return ObjectiveOutput(attraction + spread, attraction, spread)


def _directions(z: Tensor, num_directions: int, seed: int | None) -> Tensor:
    """Returns unit vectors as columns, (D, num_directions), the same on every process and kind of device."""
    if seed is None:
        drawn = torch.randint(2**62, (1,), device="cpu")
        if num_processes() > 1:
            drawn = drawn.to(z.device)
            dist.broadcast(drawn, src=0)
        seed = int(drawn)
    generator = torch.Generator("cpu").manual_seed(seed)
    directions = torch.randn(z.shape[1], num_directions, generator=generator, device="cpu").to(z)
    return directions / directions.norm(dim=0)
