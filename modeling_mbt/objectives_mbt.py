"""Objectives on pairs of projections: what pulls two views of a crop together and keeps different crops apart.

Axes: N pairs in the batch of all processes together, n pairs of this process, D dimensions of a projection.

Everything is computed in float32 (float64 stays float64) outside autocast. Inside an initialised `torch.distributed`
group of W processes every function takes this process's shard (n, D), shards may differ in size, and returns the value
of the whole batch on every process; all processes must make the call. `backward` then yields W times the gradient with
respect to this process's projections, so that the mean over processes that `DistributedDataParallel` takes of the
parameters' gradients is the gradient of one process with the whole batch.
"""

# `once_differentiable` hides the parameters' names from pyright.
# pyright: reportIncompatibleMethodOverride=false

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

LATENT_NORMALIZATIONS = ("none", "batch", "l2", "layer", "group", "whitening")
OWN_NORMALIZATIONS = {"bt": "batch", "mbt": "l2"}  # of the others: "none"
NUM_GROUPS = 8
WHITENING_SHRINKAGE = 0.1


class ObjectiveOutput(NamedTuple):
    """An objective over the whole batch, three 0-d tensors.

    Barlow Twins: `loss` = `invariance_loss` + lambda * `redundancy_loss`. All others, whose weights are inside the
    terms: `loss` = `invariance_loss` (attraction of two views) + `redundancy_loss` (spread of different samples).
    """

    loss: Tensor
    invariance_loss: Tensor
    redundancy_loss: Tensor


def compute_objective(
    objective: str,
    z_a: Tensor,
    z_b: Tensor,
    *,
    redundancy_loss_weight: float = 0.005,
    latent_normalization: str | None = None,
    latent_normalization_strength: float = 1.0,
    objective_kwargs: Mapping[str, Any] | None = None,
) -> ObjectiveOutput:
    """An objective by name, on latents normalised by name.

    Args:
        objective: a key of `OBJECTIVES`.
        z_a: projections of the first views, (n, D), any floating dtype.
        z_b: projections of the second views, (n, D).
        redundancy_loss_weight: lambda of "bt" and "mbt"; the other objectives' weights are in `objective_kwargs`.
        latent_normalization: "none"; "batch": each dimension to mean 0, biased deviation 1 along the whole batch; or
            before that "l2": each sample over its norm to the power alpha; "layer": each sample to mean 0 and
            deviation 1; "group": the same in NUM_GROUPS groups of dimensions; "whitening": ZCA of the correlation
            matrix, shrunk by WHITENING_SHRINKAGE towards I. None is "batch" for "bt", "l2" for "mbt", else "none".
        latent_normalization_strength: alpha of "l2", from 0 (as "batch") to 1.
        objective_kwargs: hyper-parameters of the objective's function.

    Raises:
        ValueError: as `validate_objective`; if the shapes differ or are not (n, D); if the whole batch has fewer than
            two samples.
    """
    z_a, z_b = _checked(z_a, z_b)
    objective_kwargs = objective_kwargs or {}
    strength = latent_normalization_strength
    validate_objective(objective, latent_normalization, strength, objective_kwargs, num_dims=z_a.shape[1])
    normalization = latent_normalization or OWN_NORMALIZATIONS.get(objective, "none")
    with torch.autocast(z_a.device.type, enabled=False):
        sizes = _shard_sizes(z_a)
        z_a, z_b = (_normalized(z, normalization, strength, sizes) for z in (z_a, z_b))
        if objective in ("bt", "mbt"):
            return _correlation_objective(z_a, z_b, sizes, redundancy_loss_weight)
        return OBJECTIVES[objective](z_a, z_b, **objective_kwargs)


def validate_objective(
    objective: str,
    latent_normalization: str | None = None,
    latent_normalization_strength: float = 1.0,
    objective_kwargs: Mapping[str, Any] | None = None,
    num_dims: int | None = None,
) -> None:
    """Refuses, with the reason, what `compute_objective` cannot do or what would teach nothing.

    Raises:
        ValueError: if a name is unknown, a setting has no effect, or the combination is degenerate.
    """
    if objective not in OBJECTIVES:
        raise ValueError(f"There is no objective {objective!r}: choose one of {', '.join(OBJECTIVES)}.")
    if latent_normalization not in (None, *LATENT_NORMALIZATIONS):
        raise ValueError(
            f"There is no latent normalization {latent_normalization!r}: choose one of "
            f"{', '.join(LATENT_NORMALIZATIONS)}, or None for the objective's own."
        )
    refusal = _refusal(objective, latent_normalization, latent_normalization_strength, num_dims)
    if refusal:
        raise ValueError(f"Objective {objective!r} with latent normalization {latent_normalization!r}: {refusal}.")
    known = [] if objective in ("bt", "mbt") else list(inspect.signature(OBJECTIVES[objective]).parameters)[2:]
    unknown = sorted(set(objective_kwargs or {}) - set(known))
    if unknown:
        raise ValueError(
            f"Objective {objective!r} takes no {', '.join(unknown)} in objective_kwargs, which may hold: "
            f"{', '.join(known) or 'nothing'}."
        )


def _refusal(objective: str, normalization: str | None, strength: float, num_dims: int | None) -> str | None:
    normalization = normalization or OWN_NORMALIZATIONS.get(objective, "none")
    if objective == "mbt" and normalization != "l2":
        return "'mbt' is Barlow Twins with 'l2' latents by definition; choose 'bt' to try another normalization"
    if objective == "wmse" and normalization in ("batch", "whitening"):
        return "W-MSE whitens the latents itself, which undoes what was done along the batch; choose 'none' or 'l2'"
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


def barlow_twins_loss(z_a: Tensor, z_b: Tensor, redundancy_loss_weight: float = 0.005) -> ObjectiveOutput:
    """Barlow Twins (Zbontar et al., 2021, eq. 1), unchanged by any scale and shift of a dimension.

    Args:
        z_a: projections of the first views, (n, D), any floating dtype.
        z_b: projections of the second views, (n, D).
        redundancy_loss_weight: lambda.

    Returns:
        `invariance_loss` = sum_i (1 - C_ii)^2, `redundancy_loss` = sum_{i != j} C_ij^2 and their weighted sum.

    Raises:
        ValueError: if the shapes differ, are not (n, D), or the whole batch holds fewer than two pairs.
    """
    return compute_objective("bt", z_a, z_b, redundancy_loss_weight=redundancy_loss_weight)


def modified_barlow_twins_loss(z_a: Tensor, z_b: Tensor, redundancy_loss_weight: float = 0.005) -> ObjectiveOutput:
    """Modified Barlow Twins (Brima et al., 2023, arXiv 2309.03619): each projection is divided by its L2 norm first.

    Also unchanged by any positive scale of a sample. Arguments, result and errors as for `barlow_twins_loss`.
    """
    return compute_objective("mbt", z_a, z_b, redundancy_loss_weight=redundancy_loss_weight)


def cross_correlation(
    z_a: Tensor, z_b: Tensor, latent_normalization: str = "batch", latent_normalization_strength: float = 1.0
) -> Tensor:
    """The matrix C of Barlow Twins, (D, D): C_ij correlates dimension i of the first views with j of the second.

    With "l2" it is that of the modified objective. Arguments and errors as for `compute_objective`, which itself never
    builds this matrix when N < D.
    """
    a, b, sizes = _correlated(z_a, z_b, latent_normalization, latent_normalization_strength)
    with torch.autocast(a.device.type, enabled=False):
        return _AllSum.apply(a.T @ b, sizes) / sum(sizes)


def correlation_statistics(
    z_a: Tensor, z_b: Tensor, latent_normalization: str = "batch", latent_normalization_strength: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Mean of C_ii and root mean square of C_ij over i != j, two 0-d tensors, of the matrix of `cross_correlation`.

    It is not built when N < D. Arguments and errors as for `cross_correlation`.
    """
    a, b, sizes = _correlated(z_a, z_b, latent_normalization, latent_normalization_strength)
    diagonal, redundancy = _diagonal_and_redundancy(a, b, sizes)
    num_dims = len(diagonal)
    return diagonal.mean(), (redundancy.clamp(min=0) / max(1, num_dims * (num_dims - 1))).sqrt()


def barlow_twins_floor(num_samples: int, num_dims: int, redundancy_loss_weight: float = 0.005) -> float:
    """A loss that no latents of Barlow Twins can go below, however good; 1 - floor / D is the mean C_ii there.

    C is a product of centred matrices of N rows, so its rank is at most r = min(N - 1, D) and the sum of all C_ij^2 is
    at least (tr C)^2 / r. With every C_ii equal to c the loss is then at least D (1 - c)^2 + lambda D c^2 (D / r - 1),
    least at c = 1 / (1 - lambda + lambda D / r), where it is D (1 - c). Unequal C_ii pay only for lambda > 1, where
    the least is D - r, as at lambda = 1. Some latents reach the floor of N - 1 samples: the bound is tight to that.

    Raises:
        ValueError: if there are fewer than two samples or no dimension.
    """
    rank = min(num_samples - 1, num_dims)
    if rank < 1:
        raise ValueError(
            f"The floor takes 2 samples and 1 dimension at least; it was given {num_samples}, {num_dims}."
        )
    weight = min(redundancy_loss_weight, 1.0)
    return num_dims * (1 - 1 / (1 - weight + weight * num_dims / rank))


def _correlated(z_a: Tensor, z_b: Tensor, normalization: str, strength: float) -> tuple[Tensor, Tensor, list[int]]:
    """The factors A and B of C = A^T B / N, and the rows of each process."""
    validate_objective("bt", normalization, strength)
    z_a, z_b = _checked(z_a, z_b)
    with torch.autocast(z_a.device.type, enabled=False):
        sizes = _shard_sizes(z_a)
        return (
            _normalized(z_a, normalization, strength, sizes),
            _normalized(z_b, normalization, strength, sizes),
            sizes,
        )


def _correlation_objective(a: Tensor, b: Tensor, sizes: list[int], redundancy_loss_weight: float) -> ObjectiveOutput:
    diagonal, redundancy = _diagonal_and_redundancy(a, b, sizes)
    invariance = (1 - diagonal).square().sum()
    return ObjectiveOutput(invariance + redundancy_loss_weight * redundancy, invariance, redundancy)


def _diagonal_and_redundancy(a: Tensor, b: Tensor, sizes: list[int]) -> tuple[Tensor, Tensor]:
    """C_ii, (D,), and the sum of C_ij^2 over i != j of C = A^T B / N, by N x N Gram matrices when N < D."""
    num_samples, num_dims = sum(sizes), a.shape[1]
    if num_samples < num_dims:
        diagonal = _AllSum.apply((a * b).sum(0), sizes) / num_samples
        return diagonal, _SquaredCrossGram.apply(a, b, sizes) / num_samples**2 - diagonal.square().sum()
    correlation = _AllSum.apply(a.T @ b, sizes) / num_samples
    diagonal = correlation.diagonal()
    return diagonal, (correlation - diagonal.diag()).square().sum()


# ---- Objectives beside Barlow Twins ----


def _on_whole_batch(function: Callable[..., ObjectiveOutput]) -> Callable[..., ObjectiveOutput]:
    """Lets a function of the whole batch, (N, D), take this process's shard, (n, D), in any floating dtype."""

    @functools.wraps(function)
    def of_shard(z_a: Tensor, z_b: Tensor, *args: Any, **kwargs: Any) -> ObjectiveOutput:
        z_a, z_b = _checked(z_a, z_b)
        sizes = _shard_sizes(z_a)
        with torch.autocast(z_a.device.type, enabled=False):
            return function(_Gather.apply(z_a, sizes), _Gather.apply(z_b, sizes), *args, **kwargs)

    return of_shard


@_on_whole_batch
def vicreg_loss(
    z_a: Tensor,
    z_b: Tensor,
    invariance_weight: float = 1.0,
    variance_weight: float = 1.0,
    covariance_weight: float = 0.1,
) -> ObjectiveOutput:
    """VICReg (Bardes et al., 2022, eq. 1-6): mean squared distance; hinge on each standard deviation; covariances.

    The variance term is the mean of both views, the covariance term their sum. Images use weights of 25, 25 and 1.
    """
    spread = z_a.new_zeros(())
    for z in (z_a, z_b):
        centred = z - z.mean(0)
        variance, covariance = _diagonal_and_redundancy(centred, centred, [len(z)])
        unbiased = len(z) / (len(z) - 1)
        hinge = (1 - (unbiased * variance + 1e-4).sqrt()).relu().mean()
        covariance = unbiased**2 * covariance / z.shape[1]
        spread = spread + variance_weight * hinge / 2 + covariance_weight * covariance
    attraction = invariance_weight * (z_a - z_b).square().mean()
    return ObjectiveOutput(attraction + spread, attraction, spread)


@_on_whole_batch
def infonce_loss(z_a: Tensor, z_b: Tensor, temperature: float = 0.1) -> ObjectiveOutput:
    """NT-Xent of SimCLR (Chen et al., 2020, eq. 1): each of the 2N views finds its other view by cosine similarity."""
    z = _unit_norm(torch.cat([z_a, z_b]))
    logits = z @ z.T / temperature
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    attraction = -logits.diagonal(len(z_a)).mean()
    spread = logits.masked_fill(itself, -math.inf).logsumexp(1).mean()
    return ObjectiveOutput(attraction + spread, attraction, spread)


@_on_whole_batch
def tcr_loss(z_a: Tensor, z_b: Tensor, distortion: float = 0.2, invariance_weight: float = 200.0) -> ObjectiveOutput:
    """Total coding rate of unit-norm latents, as in EMP-SSL (Tong et al., 2023, arXiv 2304.03977).

    `distortion` is eps in 1/2 logdet(I + D / (N eps) Z^T Z), taken in the smaller of its two forms; the attraction is
    the cosine of each view to the mean view, which for unit vectors is the mean view's length.
    """
    z_a, z_b = _unit_norm(z_a), _unit_norm(z_b)
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
    """SSL-HSIC (Li et al., 2021, arXiv 2106.08320): -HSIC(Z, Y) + gamma sqrt(HSIC(Z, Z)), Y the sample's identity.

    k(x, y) = c / sqrt(c^2 + |x - y|^2), the inverse multiquadric of unit-norm latents, with c = `kernel_scale`;
    HSIC(Z, Y) is, up to a constant factor, the mean kernel of the pairs less that of all 2N x 2N views. gamma =
    `spread_weight` takes some tens of samples: with about ten its penalty outweighs what spreading gains.
    """
    z = _unit_norm(torch.cat([z_a, z_b]))
    kernel = kernel_scale * (kernel_scale**2 + 2 - 2 * z @ z.T).rsqrt()
    centred = kernel - kernel.mean(0) - kernel.mean(1, keepdim=True) + kernel.mean()
    attraction = -kernel.diagonal(len(z_a)).mean()
    spread = kernel.mean() + spread_weight * torch.linalg.vector_norm(centred) / (len(z) - 1)
    return ObjectiveOutput(attraction + spread, attraction, spread)


@_on_whole_batch
def wmse_loss(z_a: Tensor, z_b: Tensor) -> ObjectiveOutput:
    """W-MSE (Ermolov et al., 2021, arXiv 2007.06346): 2 - 2 cos of latents whitened view by view, which spreads them.

    Raises:
        ValueError: if N < 2 D, where whitening fits noise: at N = D + 1 any batch becomes the same simplex.
    """
    num_samples, num_dims = z_a.shape
    if num_samples < 2 * num_dims:
        raise ValueError(
            f"W-MSE whitens {num_dims} dimensions, for which a batch needs {2 * num_dims} samples, and was given "
            f"{num_samples}: use a larger batch, or projections of at most {num_samples // 2} dimensions."
        )
    white_a, white_b = (_unit_norm(_cholesky_whitened(z)) for z in (z_a, z_b))
    attraction = 2 - 2 * (white_a * white_b).sum(1).mean()
    return ObjectiveOutput(attraction, attraction, torch.zeros_like(attraction))


def _cholesky_whitened(z: Tensor) -> Tensor:
    standardized = _standardize(z, [len(z)])  # whitening undoes it, and it brings the covariance to a unit diagonal
    correlation = standardized.T @ standardized / len(z)
    rounding = z.shape[1] * torch.finfo(z.dtype).eps * torch.eye(z.shape[1], dtype=z.dtype, device=z.device)
    factor = torch.linalg.cholesky(correlation + rounding)  # which a collapsed batch needs to be positive definite
    return torch.linalg.solve_triangular(factor, standardized.T, upper=False).T


@_on_whole_batch
def mmcr_loss(z_a: Tensor, z_b: Tensor) -> ObjectiveOutput:
    """MMCR (Yerxa et al., 2023, arXiv 2303.03307): minus the nuclear norm of the (N, D) means of unit-norm views.

    Views that agree have long means and samples that differ many directions: one term, reported as the spread.
    """
    centroids = (_unit_norm(z_a) + _unit_norm(z_b)) / 2
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
    """SIGReg of LeJEPA (Balestriero and LeCun, 2025, arXiv 2511.08544): latents become a standard normal.

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
    """Unit vectors as columns, (D, num_directions), the same on every process and kind of device."""
    if seed is None:
        drawn = torch.randint(2**62, (1,))
        if _num_processes() > 1:
            drawn = drawn.to(z.device)
            dist.broadcast(drawn, src=0)
        seed = int(drawn)
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(z.shape[1], num_directions, generator=generator).to(z)
    return directions / directions.norm(dim=0)


OBJECTIVES: dict[str, Callable[..., ObjectiveOutput]] = {
    "bt": barlow_twins_loss,
    "mbt": modified_barlow_twins_loss,
    "vicreg": vicreg_loss,
    "infonce": infonce_loss,
    "tcr": tcr_loss,
    "hsic": hsic_loss,
    "wmse": wmse_loss,
    "mmcr": mmcr_loss,
    "sigreg": sigreg_loss,
}


# ---- Latent normalizations ----


def _normalized(z: Tensor, normalization: str, strength: float, sizes: list[int]) -> Tensor:
    """All but "none" end with mean 0 and biased standard deviation 1 along the whole batch; (n, D) to (n, D)."""
    if normalization == "none":
        return z
    if normalization == "l2":
        z = _unit_norm(z, strength)
    elif normalization == "whitening":
        z = _zca_whitened(z, sizes)
    elif normalization in ("layer", "group"):
        group_size = z.shape[1] // (NUM_GROUPS if normalization == "group" else 1)
        groups = z.reshape(z.numel() // group_size, group_size)
        z = _standardize(groups.T, [group_size]).T.reshape(z.shape)
    return _standardize(z, sizes)


def _unit_norm(z: Tensor, strength: float = 1.0) -> Tensor:
    """Each sample over its L2 norm to the power `strength`; a sample of zeros stays so, with a finite gradient."""
    peak = z.detach().abs().amax(1, keepdim=True)  # without it squares leave float32's range at 1e19 and 1e-19
    peak = torch.where(peak > 0, peak, 1)
    scaled = z / peak
    norm = scaled.square().sum(1, keepdim=True).clamp(min=1).sqrt()  # at least 1 by its peak, unless all is zero
    return scaled * (peak ** (1 - strength) / norm**strength)


def _zca_whitened(z: Tensor, sizes: list[int]) -> Tensor:
    """U ((1 - s) R + s I)^(-1/2) for standardised latents U with correlation matrix R = U^T U / N and shrinkage s.

    It equals ((1 - s) U U^T / N + s I)^(-1/2) U, the cheaper form when N < D.
    """
    whole = _standardize(_Gather.apply(z, sizes), [sum(sizes)])
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


def _standardize(z: Tensor, sizes: list[int]) -> Tensor:
    """Mean 0 and biased standard deviation 1 of each dimension over the rows of all processes; (n, D) to (n, D)."""
    return _Standardize.apply(z, sizes)


class _Standardize(torch.autograd.Function):
    """No epsilon: a dimension that is constant to the last bit becomes 0 with gradient 0; all others are exact.

    By hand, `backward` sends one pair of sums through the processes.
    """

    @staticmethod
    def forward(ctx, z: Tensor, sizes: list[int]) -> Tensor:
        mean = _all_reduced(z.sum(0), sizes) / sum(sizes)
        centred = z - mean
        centred.sub_(_all_reduced(centred.sum(0), sizes) / sum(sizes))  # what rounding a large mean has left
        largest = centred.abs().amax(0) if len(z) else mean.new_zeros(mean.shape)  # a process may have no rows
        peak = _all_reduced(largest, sizes, "MAX")  # without it squares leave float32's range at 1e19 and 1e-19
        peak = torch.where(peak > 0, peak, 1)
        scaled = centred.div_(peak)
        deviation = (_all_reduced(scaled.square().sum(0), sizes) / sum(sizes)).sqrt()
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
        mean, projection = _all_reduced(sums, ctx.sizes) / sum(ctx.sizes)
        return (gradient - mean).addcmul_(standardized, projection, value=-1).mul_(scale), None


class _SquaredCrossGram(torch.autograd.Function):
    """||A^T B||_F^2 = <A A^T, B B^T>, each process holding its own rows of both Gram matrices.

    By hand, `backward` takes two products; autograd, which cannot know that the matrices are symmetric, takes four.
    """

    @staticmethod
    def forward(ctx, a: Tensor, b: Tensor, sizes: list[int]) -> Tensor:
        all_a, all_b = _gathered(a, sizes), _gathered(b, sizes)
        gram_a, gram_b = a @ all_a.T, b @ all_b.T
        ctx.save_for_backward(all_a, all_b, gram_a, gram_b)
        ctx.sizes = sizes
        return _all_reduced(torch.dot(gram_a.flatten(), gram_b.flatten()), sizes)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor):
        all_a, all_b, gram_a, gram_b = ctx.saved_tensors
        scale = 2 * len(ctx.sizes) * gradient
        return (gram_b @ all_a).mul_(scale), (gram_a @ all_b).mul_(scale), None


# ---- Across processes ----


class _AllSum(torch.autograd.Function):
    """The sum over processes, which all continue with it in the same way: the gradient needs no exchange."""

    @staticmethod
    def forward(ctx, share: Tensor, sizes: list[int]) -> Tensor:
        ctx.processes = len(sizes)
        return _all_reduced(share, sizes)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor):
        return gradient * ctx.processes, None


class _Gather(torch.autograd.Function):
    """The rows of all processes; each process may continue with them in its own way: gradients are summed."""

    @staticmethod
    def forward(ctx, shard: Tensor, sizes: list[int]) -> Tensor:
        ctx.sizes = sizes
        return _gathered(shard, sizes)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor):
        own = dist.get_rank() if len(ctx.sizes) > 1 else 0
        return _all_reduced(gradient, ctx.sizes).split(ctx.sizes)[own], None


def _checked(z_a: Tensor, z_b: Tensor) -> tuple[Tensor, Tensor]:
    if z_a.ndim != 2 or z_a.shape != z_b.shape or not z_a.shape[1]:
        raise ValueError(
            f"An objective compares two views of the same samples, both (samples, dimensions), and was given "
            f"{tuple(z_a.shape)} and {tuple(z_b.shape)}: pass the projections of both views in the same order."
        )
    dtype = torch.promote_types(torch.promote_types(z_a.dtype, z_b.dtype), torch.float32)
    return z_a.to(dtype), z_b.to(dtype)


def _num_processes() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _shard_sizes(z: Tensor) -> list[int]:
    """The rows of each process; one number without a group."""
    sizes = [len(z)]
    if _num_processes() > 1:
        gathered = [torch.empty(1, dtype=torch.int64, device=z.device) for _ in range(_num_processes())]
        dist.all_gather(gathered, torch.tensor(sizes, device=z.device))
        sizes = torch.cat(gathered).tolist()
    if sum(sizes) < 2:
        raise ValueError(
            f"An objective tells samples of a batch apart and needs at least 2, over all processes, but was given "
            f"{sum(sizes)}: use a larger batch, and drop an incomplete last one."
        )
    return sizes


def _gathered(shard: Tensor, sizes: list[int]) -> Tensor:
    """The rows of all processes in order of rank, padded on the way because collectives take equal shapes."""
    if len(sizes) == 1:
        return shard
    padded = shard.new_zeros(max(sizes), shard.shape[1])
    padded[: len(shard)] = shard
    shards = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(shards, padded)
    return torch.cat([rows[:size] for rows, size in zip(shards, sizes, strict=True)])


def _all_reduced(share: Tensor, sizes: list[int], operation: str = "SUM") -> Tensor:
    if len(sizes) == 1:
        return share
    total = share.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total, getattr(dist.ReduceOp, operation))
    return total
