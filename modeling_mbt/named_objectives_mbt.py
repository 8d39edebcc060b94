"""The objectives by name, on latents normalized by name: what a config asks for.

Axes: N pairs in the batch of all processes together, n pairs of this process, D dimensions of a projection.
"""

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from .alternatives_mbt import hsic_loss, infonce_loss, mmcr_loss, sigreg_loss, tcr_loss, vicreg_loss, wmse_loss
from .cpc_mbt import cpc_loss
from .distributed_mbt import ObjectiveOutput, whole_batch
from .normalizations_mbt import normalized, refusal_of_normalization
from .objectives_mbt import barlow_twins_loss, correlation_loss, modified_barlow_twins_loss

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
# The least of hyper-parameters that divide, or of which there must be some; all others are at least 0.
LEAST = {
    "temperature": 1e-4,
    "distortion": 1e-4,
    "kernel_scale": 1e-4,
    "t_max": 1e-4,
    "num_knots": 2,
    "num_directions": 1,
}
WHOLE = ("num_knots", "num_directions", "seed")
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
    """Computes an objective by name, on latents normalized by name.

    Args:
        objective: A key of `OBJECTIVES`.
        z_a: Projections of the first views, (n, D), any floating dtype; of "cpc" as `cpc_loss` says.
        z_b: Projections of the second views.
        redundancy_loss_weight: lambda of "bt" and "mbt"; the other objectives' weights are in `objective_kwargs`.
        latent_normalization: "none"; "batch": each dimension to mean 0, biased deviation 1 along the whole batch; or
            before that "l2": each sample over its norm to the power alpha; "layer": each sample to mean 0 and
            deviation 1; "group": the same in `NUM_GROUPS` groups of dimensions; "whitening": ZCA of the correlation
            matrix, shrunk by `WHITENING_SHRINKAGE` towards I. None is "batch" for "bt", "l2" for "mbt", else "none".
        latent_normalization_strength: alpha of "l2", from 0 (as "batch") to 1.
        objective_kwargs: Hyper-parameters of the objective's function.

    Raises:
        ValueError: As `validate_objective`; or the shapes differ or are not (n, D); or the whole batch has fewer than
            two samples.
    """
    strength, objective_kwargs = latent_normalization_strength, objective_kwargs or {}
    num_dims = z_a.shape[-1] if z_a.ndim else None
    validate_objective(objective, latent_normalization, strength, objective_kwargs, num_dims=num_dims)
    function, own = OBJECTIVES[objective], OWN_NORMALIZATIONS.get(objective, "none")
    normalization = latent_normalization or own
    if objective in ("bt", "mbt"):
        objective_kwargs = {"redundancy_loss_weight": redundancy_loss_weight}
    if (normalization, strength) == (own, 1):
        return function(z_a, z_b, **objective_kwargs)
    with whole_batch(z_a, z_b) as (z_a, z_b, sizes):
        z_a, z_b = (normalized(z, normalization, strength, sizes) for z in (z_a, z_b))
        if objective in ("bt", "mbt"):  # which is its own normalization and Eq. (1)
            return correlation_loss(z_a, z_b, sizes, redundancy_loss_weight)
        return function(z_a, z_b, **objective_kwargs)


def validate_objective(
    objective: str,
    latent_normalization: str | None = None,
    latent_normalization_strength: float = 1.0,
    objective_kwargs: Mapping[str, Any] | None = None,
    num_dims: int | None = None,
) -> None:
    """Refuses, with the reason, what `compute_objective` cannot do or what would teach nothing.

    Raises:
        ValueError: A name is unknown, a setting has no effect, or the combination is degenerate.
    """
    if objective not in OBJECTIVES:
        raise ValueError(f"There is no objective {objective!r}: choose one of {', '.join(OBJECTIVES)}.")
    normalization = latent_normalization or OWN_NORMALIZATIONS.get(objective, "none")
    refusal = refusal_of_normalization(normalization, latent_normalization_strength, num_dims)
    refusal = _refusal_of_combination(objective, normalization) or refusal
    if refusal:
        raise ValueError(f"Objective {objective!r} with latent normalization {latent_normalization!r}: {refusal}.")
    known = [] if objective in ("bt", "mbt") else list(inspect.signature(OBJECTIVES[objective]).parameters)[2:]
    unknown = sorted(set(objective_kwargs or {}) - set(known))
    if unknown:
        raise ValueError(
            f"Objective {objective!r} takes no {', '.join(unknown)} in objective_kwargs, which may hold: "
            f"{', '.join(known) or 'nothing'}."
        )
    for name, value in (objective_kwargs or {}).items():
        least = LEAST.get(name, 0)
        if value is None and name == "seed":
            continue
        kinds, words = ((int,), "a whole number") if name in WHOLE else ((int, float), "a number")
        if isinstance(value, bool) or not isinstance(value, kinds) or not least <= value < math.inf:
            raise ValueError(f"{name!r} of objective {objective!r} is {words} of at least {least}, not {value!r}.")


def _refusal_of_combination(objective: str, normalization: str) -> str | None:
    if objective == "mbt" and normalization != "l2":
        return "'mbt' is Barlow Twins with 'l2' latents by definition; choose 'bt' to try another normalization"
    if objective == "cpc" and normalization != "none":
        return "predictive coding compares frames by their cosine, clip by clip; leave the normalization out"
    if objective == "wmse" and normalization in ("batch", "whitening"):
        return "W-MSE whitens the latents itself, which undoes what was done along the batch; choose 'none' or 'l2'"
    return None
