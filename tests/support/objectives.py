"""Objectives as their papers write them, and latents to try ours on.

Axes: N samples, D dimensions.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from modeling_mbt import alternatives_mbt
from modeling_mbt.named_objectives_mbt import OBJECTIVES, compute_objective
from modeling_mbt.objectives_mbt import barlow_twins_loss, modified_barlow_twins_loss

WIDE, TALL, LEAST = (12, 40), (48, 16), (2, 5)
CLIP_OBJECTIVES = {name: function for name, function in OBJECTIVES.items() if name != "cpc"}  # see test_cpc.py
BARLOW_TWINS = {"bt": barlow_twins_loss, "mbt": modified_barlow_twins_loss}


class Result(NamedTuple):
    loss: float
    gradients: Tensor


def latents(num_samples: int, num_dims: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Returns two float64 views that agree in part, whose dimensions and samples differ in scale and place."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    shared = normal(num_samples, num_dims) @ normal(num_dims, num_dims) / math.sqrt(num_dims)
    scale, shift = normal(num_dims).exp(), normal(num_dims)
    sample_scale = (0.3 * normal(num_samples, 1)).exp()
    view_a, view_b = (sample_scale * (shared + 0.5 * normal(num_samples, num_dims)) for _ in "ab")
    return view_a * scale + shift, view_b * scale - shift


def run(objective: Callable, z_a: Tensor, z_b: Tensor, dtype: torch.dtype = torch.float64) -> Result:
    """Returns the loss and its gradient for both views, (2, N, D), in float64 whatever it was computed in."""
    z_a, z_b = (z.detach().to(dtype).clone().requires_grad_() for z in (z_a, z_b))
    output = objective(z_a, z_b)
    loss = output.loss if hasattr(output, "loss") else output
    gradients = torch.autograd.grad(loss, (z_a, z_b))
    return Result(loss.item(), torch.stack(gradients).double())


def assert_same(result: Result, expected: Result, tolerance: float) -> None:
    assert result.loss == pytest.approx(expected.loss, rel=tolerance, abs=tolerance)
    error = (result.gradients - expected.gradients).norm()
    assert error <= tolerance * expected.gradients.norm() + 1e-12


# ---- References, written as their papers write them ----


def standardized(z: Tensor) -> Tensor:
    return (z - z.mean(0)) / z.std(0, unbiased=False)


def reference_correlation_loss(a: Tensor, b: Tensor, weight: float = 0.005) -> Tensor:
    loss = a.new_zeros(())
    for row, target in zip(a.T @ b / len(a), torch.eye(a.shape[1]), strict=True):
        loss = loss + torch.where(target == 1, (1 - row) ** 2, weight * row**2).sum()
    return loss


def reference_bt(z_a: Tensor, z_b: Tensor, weight: float = 0.005) -> Tensor:
    return reference_correlation_loss(standardized(z_a), standardized(z_b), weight)


def unit(z: Tensor) -> Tensor:
    return z / (z**2).sum(1, keepdim=True) ** 0.5


def reference_mbt(z_a: Tensor, z_b: Tensor, weight: float = 0.005) -> Tensor:
    return reference_bt(unit(z_a), unit(z_b), weight)


def reference_vicreg(z_a: Tensor, z_b: Tensor) -> Tensor:
    loss = ((z_a - z_b) ** 2).mean()
    for z in (z_a, z_b):
        covariance = torch.cov(z.T)
        loss = loss + 1.0 / 2 * torch.clamp(1 - torch.sqrt(covariance.diagonal() + 1e-4), min=0).mean()
        off_diagonal = covariance - torch.diag(covariance.diagonal())
        loss = loss + 0.1 * (off_diagonal**2).sum() / z.shape[1]
    return loss


def reference_infonce(z_a: Tensor, z_b: Tensor) -> Tensor:
    z = unit(torch.cat([z_a, z_b]))
    count = len(z_a)
    terms = []
    for i in range(2 * count):
        others = torch.stack([z[i] @ z[k] / 0.1 for k in range(2 * count) if k != i])
        terms.append(torch.log(torch.exp(others).sum()) - z[i] @ z[(i + count) % (2 * count)] / 0.1)
    return torch.stack(terms).mean()


def reference_tcr(z_a: Tensor, z_b: Tensor) -> Tensor:
    z_a, z_b = unit(z_a), unit(z_b)
    mean_view = (z_a + z_b) / 2
    rates, cosines = [], []
    for z in (z_a, z_b):
        num_samples, num_dims = z.shape
        covariance = torch.eye(num_dims, dtype=z.dtype) + num_dims / (num_samples * 0.2) * z.T @ z
        rates.append(torch.linalg.slogdet(covariance).logabsdet / 2)
        cosines.append(torch.nn.functional.cosine_similarity(z, mean_view).mean())
    return -torch.stack(rates).mean() - 200 * torch.stack(cosines).mean()


def reference_hsic(z_a: Tensor, z_b: Tensor) -> Tensor:
    count = len(z_a)
    z = unit(torch.cat([z_a, z_b]))
    kernel = 1 / (1 + ((z[:, None] - z[None]) ** 2).sum(-1)) ** 0.5
    pairs = torch.stack([kernel[i, i + count] for i in range(count)]).mean()
    centring = torch.eye(2 * count, dtype=z.dtype) - 1 / (2 * count)
    hsic_zz = torch.trace(kernel @ centring @ kernel @ centring) / (2 * count - 1) ** 2
    return -(pairs - kernel.mean()) + 3 * torch.sqrt(hsic_zz)


def reference_wmse(z_a: Tensor, z_b: Tensor) -> Tensor:
    whitened = []
    for z in (z_a, z_b):
        inverse_factor = torch.linalg.inv(torch.linalg.cholesky(torch.cov(z.T)))
        whitened.append((z - z.mean(0)) @ inverse_factor.T)
    return (2 - 2 * torch.nn.functional.cosine_similarity(*whitened)).mean()


def reference_mmcr(z_a: Tensor, z_b: Tensor) -> Tensor:
    return -torch.linalg.matrix_norm((unit(z_a) + unit(z_b)) / 2, "nuc")


def reference_sigreg(z_a: Tensor, z_b: Tensor) -> Tensor:
    mean_view = (z_a + z_b) / 2
    distance = torch.stack([((z - mean_view) ** 2).mean() for z in (z_a, z_b)]).mean()
    t = torch.linspace(-3, 3, 33, dtype=z_a.dtype)
    statistics = []
    for z in (z_a, z_b):
        for direction in alternatives_mbt._directions(z, 64, 5).T:
            empirical = torch.exp(1j * t[:, None] * (z @ direction)).mean(1)
            error = (empirical - torch.exp(-(t**2) / 2)).abs() ** 2
            statistics.append(len(z) * torch.trapezoid(error * torch.exp(-(t**2) / 2), t))
    return 0.95 * distance + 0.05 * torch.stack(statistics).mean()


REFERENCES = {
    "bt": reference_bt,
    "mbt": reference_mbt,
    "vicreg": reference_vicreg,
    "infonce": reference_infonce,
    "tcr": reference_tcr,
    "hsic": reference_hsic,
    "wmse": reference_wmse,
    "mmcr": reference_mmcr,
    "sigreg": reference_sigreg,
}


def by_name(name: str, **settings) -> Callable:
    kwargs = {"seed": 5, "num_directions": 64} if name == "sigreg" else {}
    return lambda z_a, z_b: compute_objective(name, z_a, z_b, objective_kwargs=kwargs, **settings)
