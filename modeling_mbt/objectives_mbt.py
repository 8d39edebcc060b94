"""Objectives on pairs of projections: what pulls two views of a crop together and keeps different crops apart.

Axes: N pairs in the batch of all processes together, n pairs of this process, D dimensions of a projection.

Everything is computed in float32 (float64 stays float64) outside autocast. Inside an initialised `torch.distributed`
group of W processes every function takes this process's shard (n, D), shards may differ in size, and returns the value
of the whole batch on every process; all processes must make the call. `backward` then yields W times the gradient with
respect to this process's projections, so that the mean over processes that `DistributedDataParallel` takes of the
parameters' gradients is the gradient of one process with the whole batch.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from .alternatives_mbt import hsic_loss, infonce_loss, mmcr_loss, sigreg_loss, tcr_loss, vicreg_loss, wmse_loss
from .correlation_mbt import diagonal_and_redundancy
from .cpc_mbt import cpc_loss
from .distributed_mbt import ObjectiveOutput, checked_views, shard_sizes, sum_over_processes
from .normalizations_mbt import LATENT_NORMALIZATIONS, NUM_GROUPS, normalized
from .normalizations_mbt import WHITENING_SHRINKAGE as WHITENING_SHRINKAGE  # the docstrings name it

OWN_NORMALIZATIONS = {"bt": "batch", "mbt": "l2"}  # of the others: "none"


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
        z_a: projections of the first views, (n, D), any floating dtype; of "cpc" as `cpc_loss` says.
        z_b: projections of the second views.
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
    if objective != "cpc":  # which looks at frames, and checks them itself
        z_a, z_b = checked_views(z_a, z_b)
    objective_kwargs = objective_kwargs or {}
    strength = latent_normalization_strength
    validate_objective(objective, latent_normalization, strength, objective_kwargs, num_dims=z_a.shape[-1])
    normalization = latent_normalization or OWN_NORMALIZATIONS.get(objective, "none")
    with torch.autocast(z_a.device.type, enabled=False):
        sizes = shard_sizes(z_a)
        z_a, z_b = (normalized(z, normalization, strength, sizes) for z in (z_a, z_b))
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
    if objective == "cpc" and normalization != "none":
        return "predictive coding compares frames by their cosine, clip by clip; leave the normalization out"
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
        return sum_over_processes(a.T @ b, sizes) / sum(sizes)


def correlation_statistics(
    z_a: Tensor, z_b: Tensor, latent_normalization: str = "batch", latent_normalization_strength: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Mean of C_ii and root mean square of C_ij over i != j, two 0-d tensors, of the matrix of `cross_correlation`.

    It is not built when N < D. Arguments and errors as for `cross_correlation`.
    """
    a, b, sizes = _correlated(z_a, z_b, latent_normalization, latent_normalization_strength)
    diagonal, redundancy = diagonal_and_redundancy(a, b, sizes)
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
    z_a, z_b = checked_views(z_a, z_b)
    with torch.autocast(z_a.device.type, enabled=False):
        sizes = shard_sizes(z_a)
        return (
            normalized(z_a, normalization, strength, sizes),
            normalized(z_b, normalization, strength, sizes),
            sizes,
        )


def _correlation_objective(a: Tensor, b: Tensor, sizes: list[int], redundancy_loss_weight: float) -> ObjectiveOutput:
    diagonal, redundancy = diagonal_and_redundancy(a, b, sizes)
    invariance = (1 - diagonal).square().sum()
    return ObjectiveOutput(invariance + redundancy_loss_weight * redundancy, invariance, redundancy)


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
    "cpc": cpc_loss,
}
