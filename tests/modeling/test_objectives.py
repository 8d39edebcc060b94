"""The objectives against independent float64 references, by their laws, at the edges of the numbers.

Axes: N samples, D dimensions.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from modeling_mbt import alternatives_mbt, normalizations_mbt
from modeling_mbt.named_objectives_mbt import OBJECTIVES, compute_objective, validate_objective
from modeling_mbt.normalizations_mbt import LATENT_NORMALIZATIONS, NUM_GROUPS, WHITENING_SHRINKAGE
from modeling_mbt.objectives_mbt import (
    barlow_twins_floor,
    barlow_twins_loss,
    cross_correlation,
    diagonal_and_redundancy,
    modified_barlow_twins_loss,
    squared_cross_gram,
)

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


# ---- Values and gradients ----


def test_every_objective_has_a_reference():
    assert REFERENCES.keys() == CLIP_OBJECTIVES.keys()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
@pytest.mark.parametrize(
    ("name", "shape"),
    [(name, shape) for name in CLIP_OBJECTIVES for shape in (WIDE, TALL, (20, 20)) if name != "wmse" or shape == TALL],
)
def test_value_and_gradient_equal_the_reference(name, shape, dtype, tolerance):
    z_a, z_b = latents(*shape)
    assert_same(run(by_name(name), z_a, z_b, dtype), run(REFERENCES[name], z_a, z_b), tolerance)


@pytest.mark.parametrize("shape", [WIDE, TALL])
@pytest.mark.parametrize("name", BARLOW_TWINS)
def test_the_named_functions_take_the_weight_and_report_both_terms(name, shape):
    z_a, z_b = latents(*shape)
    output = BARLOW_TWINS[name](z_a, z_b, 0.03)
    reference = REFERENCES[name]
    assert output.loss == pytest.approx(reference(z_a, z_b, 0.03).item())
    assert output.invariance_loss == pytest.approx(reference(z_a, z_b, 0.0).item())
    assert output.redundancy_loss == pytest.approx((reference(z_a, z_b, 1) - reference(z_a, z_b, 0)).item())
    assert CLIP_OBJECTIVES[name](z_a, z_b, 0.03).loss == output.loss


@pytest.mark.parametrize("name", CLIP_OBJECTIVES)
def test_the_loss_is_the_sum_of_its_two_terms(name):
    output = by_name(name, redundancy_loss_weight=0.25)(*latents(*TALL))
    weight = 0.25 if name in BARLOW_TWINS else 1
    assert output.loss == output.invariance_loss + weight * output.redundancy_loss
    assert all(term.ndim == 0 for term in output)


@pytest.mark.parametrize("shape", [WIDE, TALL])
def test_the_correlation_matrix_holds_the_correlation_coefficients(shape):
    z_a, z_b = latents(*shape)
    expected = torch.corrcoef(torch.cat([z_a, z_b], dim=1).T)[: shape[1], shape[1] :]
    torch.testing.assert_close(cross_correlation(z_a, z_b), expected)
    halfway_a, halfway_b = (z / z.norm(dim=1, keepdim=True) ** 0.5 for z in (z_a, z_b))
    torch.testing.assert_close(cross_correlation(z_a, z_b, "l2", 0.5), cross_correlation(halfway_a, halfway_b))


@pytest.mark.parametrize("shape", [WIDE, TALL])
def test_the_gram_form_and_the_matrix_form_are_equal(shape):
    def gram_form(a, b):
        squares = squared_cross_gram(a, b, [len(a)]) / len(a) ** 2
        return squares - ((a * b).mean(0) ** 2).sum()

    def matrix_form(a, b):
        correlation = a.T @ b / len(a)
        return (correlation**2).sum() - (correlation.diagonal() ** 2).sum()

    def chosen_form(a, b):
        return diagonal_and_redundancy(a, b, [len(a)])[1]

    z_a, z_b = latents(*shape)
    expected = run(matrix_form, z_a, z_b)
    assert_same(run(gram_form, z_a, z_b), expected, 1e-12)
    assert_same(run(chosen_form, z_a, z_b), expected, 1e-12)


class LargestTensor(TorchDispatchMode):
    """Remembers the size of the largest tensor that any operation makes."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        tensors = [t for t in (result if isinstance(result, (tuple, list)) else [result]) if isinstance(t, Tensor)]
        self.elements = max([self.elements, *(t.untyped_storage().nbytes() // t.element_size() for t in tensors)])
        return result


@pytest.mark.parametrize("normalization", LATENT_NORMALIZATIONS)
def test_no_tensor_of_d_squared_is_made_when_the_batch_is_smaller(normalization):
    z_a, z_b = latents(8, 512)
    with LargestTensor() as largest:
        run(by_name("bt", latent_normalization=normalization), z_a, z_b)
    assert largest.elements <= 2 * 8 * 512  # the gradients of both views, stacked by `run`


@pytest.mark.parametrize("name", ["vicreg", "tcr", "infonce", "hsic", "mmcr"])
def test_no_other_objective_but_sigreg_makes_one_either(name):
    z_a, z_b = latents(8, 512)
    with LargestTensor() as largest:
        run(by_name(name), z_a, z_b)
    assert largest.elements <= 2 * 8 * 512


# ---- Latent normalizations ----


def reference_layer(z: Tensor) -> Tensor:
    return (z - z.mean(1, keepdim=True)) / z.std(1, unbiased=False, keepdim=True)


def reference_group(z: Tensor) -> Tensor:
    return torch.cat([reference_layer(group) for group in z.chunk(NUM_GROUPS, dim=1)], dim=1)


def reference_whitening(z: Tensor) -> Tensor:
    z = standardized(z)
    shrunk = (1 - WHITENING_SHRINKAGE) * z.T @ z / len(z) + WHITENING_SHRINKAGE * torch.eye(z.shape[1], dtype=z.dtype)
    eigenvalues, vectors = torch.linalg.eigh(shrunk)
    return z @ vectors @ torch.diag(eigenvalues**-0.5) @ vectors.T


NORMALIZATION_REFERENCES = {
    "none": lambda z: z,
    "batch": standardized,
    "l2": lambda z: standardized(unit(z)),
    "layer": lambda z: standardized(reference_layer(z)),
    "group": lambda z: standardized(reference_group(z)),
    "whitening": lambda z: standardized(reference_whitening(z)),
}


@pytest.mark.parametrize("shape", [(40, 24), (60, 32)])
@pytest.mark.parametrize("normalization", LATENT_NORMALIZATIONS)
@pytest.mark.parametrize("name", ["bt", "vicreg", "hsic"])
def test_normalized_latents_equal_the_reference(name, normalization, shape):
    normalize = NORMALIZATION_REFERENCES[normalization]
    bare = reference_correlation_loss if name == "bt" else REFERENCES[name]
    z_a, z_b = latents(*shape)
    expected = run(lambda a, b: bare(normalize(a), normalize(b)), z_a, z_b)
    assert_same(run(by_name(name, latent_normalization=normalization), z_a, z_b), expected, 1e-10)
    assert_same(run(by_name(name, latent_normalization=normalization), z_a, z_b, torch.float32), expected, 1e-4)


def test_whitening_by_the_gram_matrix_equals_the_large_matrix():
    z, _ = latents(6, 10)
    torch.testing.assert_close(normalizations_mbt._zca_whitened(z, [6]), reference_whitening(z))
    # The large matrix has equal eigenvalues, which the gradient of `eigh` divides by: finite differences instead.
    assert torch.autograd.gradcheck(lambda z: normalizations_mbt._zca_whitened(z, [6]), z.requires_grad_())


@pytest.mark.parametrize("strength", [0.0, 0.4, 1.0])
def test_the_strength_leads_from_bt_to_mbt(strength):
    def reference(z_a, z_b):
        return reference_bt(*(z / (z**2).sum(1, keepdim=True) ** (strength / 2) for z in (z_a, z_b)))

    z_a, z_b = latents(*WIDE)
    settings = {"latent_normalization": "l2", "latent_normalization_strength": strength}
    expected = run(reference, z_a, z_b)
    assert_same(run(by_name("bt", **settings), z_a, z_b), expected, 1e-10)
    assert_same(run(by_name("mbt", **settings), z_a, z_b), expected, 1e-10)
    if strength in (0, 1):
        end = barlow_twins_loss if strength == 0 else modified_barlow_twins_loss
        assert_same(run(end, z_a, z_b), expected, 1e-10)


# ---- Laws ----


def positive(*shape: int) -> Tensor:
    return (2 * torch.randn(*shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)).exp()


@pytest.mark.parametrize("shape", [WIDE, TALL])
def test_bt_ignores_scale_and_shift_of_each_dimension(shape):
    z_a, z_b = latents(*shape)
    moved = (z_a * positive(shape[1]) - 3, z_b * 7 + positive(shape[1]))
    assert barlow_twins_loss(*moved).loss == pytest.approx(barlow_twins_loss(z_a, z_b).loss.item(), rel=1e-10)


@pytest.mark.parametrize("shape", [WIDE, TALL])
def test_mbt_ignores_the_scale_of_each_sample_and_bt_does_not(shape):
    z_a, z_b = latents(*shape)
    scaled = (z_a * positive(shape[0], 1), z_b * positive(shape[0], 1).flip(0))
    expected = modified_barlow_twins_loss(z_a, z_b).loss.item()
    assert modified_barlow_twins_loss(*scaled).loss == pytest.approx(expected, rel=1e-10)
    assert barlow_twins_loss(*scaled).loss != pytest.approx(barlow_twins_loss(z_a, z_b).loss.item(), rel=1e-2)


@pytest.mark.parametrize("shape", [WIDE, TALL])
def test_centred_l2_along_the_batch_is_bt(shape):
    def along_the_batch(z_a, z_b):
        a, b = ((z - z.mean(0)) / (z - z.mean(0)).norm(dim=0) for z in (z_a, z_b))
        return reference_correlation_loss(a * shape[0] ** 0.5, b * shape[0] ** 0.5)

    z_a, z_b = latents(*shape)
    assert_same(run(barlow_twins_loss, z_a, z_b), run(along_the_batch, z_a, z_b), 1e-10)


@pytest.mark.parametrize("name", CLIP_OBJECTIVES)
def test_every_objective_is_the_same_with_the_views_exchanged(name):
    z_a, z_b = latents(*TALL)
    forth, back = run(by_name(name), z_a, z_b), run(by_name(name), z_b, z_a)
    assert_same(Result(back.loss, back.gradients.flip(0)), forth, 1e-10)


@pytest.mark.parametrize(
    ("name", "num_dims"),
    [(name, dims) for name in CLIP_OBJECTIVES for dims in (12, 96) if name != "wmse" or dims == 12],
)
def test_spread_latents_score_better_than_collapsed_ones(name, num_dims):
    generator = torch.Generator().manual_seed(1)
    spread, noise_a, noise_b = (torch.randn(48, num_dims, generator=generator) for _ in range(3))
    point = torch.randn(1, num_dims, generator=generator)
    line = torch.randn(48, 1, generator=generator) @ point
    objective = by_name(name)
    best = objective(spread + 0.01 * noise_a, spread + 0.01 * noise_b)
    for collapsed in (point.expand(48, -1), line):
        worse = objective(collapsed + 0.01 * noise_a, collapsed + 0.01 * noise_b)
        assert best.loss < worse.loss
        if name != "wmse":  # which whitens instead of having a term for the spread
            assert best.redundancy_loss < worse.redundancy_loss


@pytest.mark.parametrize("name", CLIP_OBJECTIVES)
def test_views_that_agree_score_better_than_views_of_different_samples(name):
    z_a, z_b = (standardized(z) for z in latents(*TALL))
    objective = by_name(name)
    matched, mismatched = objective(z_a, z_b), objective(z_a, z_b.roll(1, 0))
    assert matched.loss < mismatched.loss
    if name != "mmcr":  # whose one term holds both
        assert matched.invariance_loss < mismatched.invariance_loss


# ---- The floor ----


def test_the_floor_of_a_small_batch_in_many_dimensions():
    floor = barlow_twins_floor(64, 2048, 0.0051)
    assert floor == pytest.approx(283.5, abs=0.05)
    assert 1 - floor / 2048 == pytest.approx(0.862, abs=5e-4)


@pytest.mark.parametrize(
    ("shape", "weight", "floor"), [((100, 8), 0.01, 0), ((9, 8), 0.01, 0), ((5, 16), 1, 12), ((5, 16), 50, 12)]
)
def test_the_floor_is_zero_with_enough_samples_and_else_counts_ranks(shape, weight, floor):
    num_samples, num_dims = shape
    assert barlow_twins_floor(num_samples, num_dims, weight) == pytest.approx(floor, abs=1e-12)


def test_some_latents_reach_the_floor_of_one_sample_fewer():
    num_samples, num_dims, weight = 10, 24, 0.1
    rank = num_samples - 2
    floor = barlow_twins_floor(num_samples - 1, num_dims, weight)
    agreement = 1 - floor / num_dims
    # Cosines and sines of rank / 2 frequencies give equal entries on the diagonal of a matrix of that rank; the views
    # disagree along one direction of samples that is orthogonal to all of it.
    angle = 2 * math.pi / num_dims * torch.outer(torch.arange(1, rank // 2 + 1), torch.arange(num_dims)).double()
    frame = torch.cat([angle.cos(), angle.sin()]) / math.sqrt(rank // 2)
    centered = torch.randn(num_samples, rank + 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    samples = torch.linalg.qr(centered - centered.mean(0)).Q * math.sqrt(num_samples)
    z_a = samples[:, :rank] @ frame
    z_b = agreement * z_a + math.sqrt(1 - agreement**2) * samples[:, rank:]
    assert barlow_twins_loss(z_a, z_b, weight).loss == pytest.approx(floor, rel=1e-10)


@pytest.mark.parametrize("weight", [0.02, 0.3])
def test_descent_on_free_latents_ends_above_the_floor_and_near_it(weight):
    z_a, z_b = (z.requires_grad_() for z in latents(8, 20))
    optimizer = torch.optim.Adam([z_a, z_b], lr=0.05)
    losses = []
    for _ in range(400):
        optimizer.zero_grad()
        loss = barlow_twins_loss(z_a, z_b, weight).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert barlow_twins_floor(8, 20, weight) <= min(losses) <= 1.02 * barlow_twins_floor(7, 20, weight)


# ---- Numbers at the edge ----


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [WIDE, TALL])
@pytest.mark.parametrize("name", BARLOW_TWINS)
def test_a_dimension_that_does_not_vary_is_uncorrelated(name, shape, dtype):
    z_a, z_b = (z.to(dtype) for z in latents(*shape))
    z_a[:, [3, 7]] = 0.1 if name == "bt" else 0  # of unit-norm latents only a zero is constant
    z_b[:, [5, 7]] = -12345.678 if name == "bt" else 0
    result = run(BARLOW_TWINS[name], z_a, z_b, dtype)
    a, b = (standardized(unit(z.double()) if name == "mbt" else z.double()) for z in (z_a, z_b))
    a[:, [3, 7]] = b[:, [5, 7]] = 0
    assert result.loss == pytest.approx(reference_correlation_loss(a, b).item(), rel=1e-4)
    assert result.gradients.isfinite().all()
    if name == "bt":
        assert not result.gradients[0][:, [3, 7]].any()
        assert not result.gradients[1][:, [5, 7]].any()


@pytest.mark.parametrize("name", CLIP_OBJECTIVES)
@pytest.mark.parametrize("value", [0.0, 0.1])
def test_a_batch_without_any_difference_has_a_finite_loss_and_gradient(name, value):
    same = torch.full((48, 12), value)
    result = run(by_name(name), same, same, torch.float32)
    assert math.isfinite(result.loss)
    assert result.gradients.isfinite().all()
    if name in BARLOW_TWINS:
        assert result.loss == 12
        assert not result.gradients.any()


@pytest.mark.parametrize("name", BARLOW_TWINS)
def test_two_samples_tell_only_signs_apart(name):
    z_a, z_b = latents(*LEAST)
    result = run(BARLOW_TWINS[name], z_a, z_b)
    assert result.loss == pytest.approx(REFERENCES[name](z_a, z_b).item())
    assert result.gradients.norm() < 1e-10


@pytest.mark.parametrize("shape", [WIDE, TALL])
@pytest.mark.parametrize("name", BARLOW_TWINS)
def test_identical_views_are_invariant(name, shape):
    z, _ = latents(*shape)
    output = BARLOW_TWINS[name](z.float(), z.float())
    assert output.invariance_loss < 1e-9
    assert output.redundancy_loss > 0


@pytest.mark.parametrize("scale", [1e30, 1e-30])
@pytest.mark.parametrize("name", BARLOW_TWINS)
def test_float32_latents_may_be_huge_or_tiny(name, scale):
    z_a, z_b = latents(*WIDE)
    expected = run(REFERENCES[name], z_a, z_b)
    result = run(BARLOW_TWINS[name], z_a * scale, z_b * scale, torch.float32)
    assert_same(Result(result.loss, result.gradients * scale), expected, 1e-4)


@pytest.mark.parametrize("shape", [WIDE, TALL])
def test_a_mean_of_ten_thousand_deviations_costs_float32_nothing(shape):
    z_a, z_b = ((standardized(z) + 1e4).float() for z in latents(*shape))
    assert_same(run(barlow_twins_loss, z_a, z_b, torch.float32), run(reference_bt, z_a.double(), z_b.double()), 1e-5)


def test_a_strength_between_stands_huge_and_tiny_samples():
    z_a, z_b = latents(*WIDE)
    settings = {"latent_normalization": "l2", "latent_normalization_strength": 0.5}
    expected = run(by_name("bt", **settings), z_a, z_b).loss
    for scale in (1e30, 1e-30):
        loss = run(by_name("bt", **settings), z_a * scale, z_b * scale, torch.float32).loss
        assert loss == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", CLIP_OBJECTIVES)
def test_half_precision_latents_are_computed_in_float32(name, dtype):
    z_a, z_b = (standardized(z).to(dtype) for z in latents(*TALL))
    expected = by_name(name)(z_a.double(), z_b.double()).loss.item()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = [by_name(name)(z_a, z_b), *([CLIP_OBJECTIVES[name](z_a, z_b)] if name != "sigreg" else [])]
        correlation = cross_correlation(z_a, z_b)
    for output in outputs:
        assert output.loss.dtype == torch.float32
        assert output.loss.item() == pytest.approx(expected, rel=1e-4)
    torch.testing.assert_close(correlation.double(), cross_correlation(z_a.double(), z_b.double()), rtol=0, atol=1e-5)


def test_nan_is_reported_and_not_repaired():
    z_a, z_b = latents(*WIDE)
    z_a[0, 0] = math.nan
    assert all(by_name(name)(z_a, z_b).loss.isnan() for name in BARLOW_TWINS)


def test_the_directions_of_sigreg_follow_the_seed_or_the_global_generator():
    z_a, z_b = latents(*WIDE)
    objective = CLIP_OBJECTIVES["sigreg"]
    assert objective(z_a, z_b, seed=1).loss == objective(z_a, z_b, seed=1).loss
    assert objective(z_a, z_b, seed=1).loss != objective(z_a, z_b, seed=2).loss
    with torch.random.fork_rng():
        torch.manual_seed(3)
        first, second = objective(z_a, z_b).loss, objective(z_a, z_b).loss
        torch.manual_seed(3)
        again = objective(z_a, z_b).loss
    assert first == again != second


# ---- Refusals ----


@pytest.mark.parametrize("name", CLIP_OBJECTIVES)
def test_a_batch_of_one_is_refused(name):
    one = torch.ones(1, 8)
    with pytest.raises(ValueError, match="needs at least 2"):
        compute_objective(name, one, one)
    with pytest.raises(ValueError, match="needs at least 2"):
        CLIP_OBJECTIVES[name](one, one)


@pytest.mark.parametrize(
    "shapes", [((4, 8), (4, 9)), ((4, 8), (5, 8)), ((8,), (8,)), ((2, 4, 8), (2, 4, 8)), ((4, 0), (4, 0))]
)
@pytest.mark.parametrize("name", CLIP_OBJECTIVES)
def test_views_of_different_or_other_shapes_are_refused(name, shapes):
    with pytest.raises(ValueError, match="same order"):
        CLIP_OBJECTIVES[name](*(torch.ones(shape) for shape in shapes))
    with pytest.raises(ValueError, match="same order"):
        compute_objective(name, *(torch.ones(shape) for shape in shapes))


def test_mbt_refuses_a_single_dimension_of_which_it_would_leave_signs():
    with pytest.raises(ValueError, match="only signs"):
        modified_barlow_twins_loss(torch.randn(8, 1), torch.randn(8, 1))


@pytest.mark.parametrize(
    ("settings", "reason"), [(("batchnorm",), "no such normalization"), (("batch", 0.5), "no eff")]
)
def test_a_correlation_of_latents_that_are_not_normalized_so_is_refused(settings, reason):
    with pytest.raises(ValueError, match=reason):
        cross_correlation(*latents(*WIDE), *settings)


def test_wmse_refuses_a_batch_that_it_would_overfit():
    with pytest.raises(ValueError, match="needs 32 samples"):
        CLIP_OBJECTIVES["wmse"](torch.randn(31, 16), torch.randn(31, 16))


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"objective": "simclr"}, "no objective 'simclr'"),
        ({"objective": "bt", "latent_normalization": "batchnorm"}, "no such normalization; choose one of none"),
        ({"objective": "mbt", "latent_normalization": "none"}, "by definition"),
        ({"objective": "wmse", "latent_normalization": "whitening"}, "whitens the latents itself"),
        ({"objective": "bt", "latent_normalization_strength": 0.5}, "no effect"),
        ({"objective": "mbt", "latent_normalization_strength": 1.5}, "between 0"),
        ({"objective": "mbt", "latent_normalization_strength": -0.1}, "between 0"),
        ({"objective": "mbt", "num_dims": 1}, "only signs"),
        ({"objective": "bt", "latent_normalization": "l2", "num_dims": 1}, "only signs"),
        ({"objective": "bt", "latent_normalization": "layer", "num_dims": 2}, "only signs"),
        ({"objective": "bt", "latent_normalization": "group", "num_dims": 16}, "only signs"),
        ({"objective": "bt", "latent_normalization": "group", "num_dims": 30}, "multiple of 8"),
        ({"objective": "bt", "objective_kwargs": {"weight": 1}}, "takes no weight .* may hold: nothing"),
        ({"objective": "infonce", "objective_kwargs": {"tau": 1}}, "takes no tau .* may hold: temperature"),
    ],
)
def test_an_unknown_or_degenerate_setting_is_refused_with_the_reason(settings, reason):
    with pytest.raises(ValueError, match=reason):
        validate_objective(**settings)


@pytest.mark.parametrize("name", CLIP_OBJECTIVES)
def test_the_settings_of_every_objective_are_accepted(name):
    validate_objective(name, num_dims=64)
    hyper_parameters = {"infonce": {"temperature": 0.03}, "vicreg": {"covariance_weight": 1.0}, "sigreg": {"seed": 0}}
    validate_objective(name, None, 1.0, hyper_parameters.get(name), num_dims=64)
    z_a, z_b = latents(*TALL)
    for changed in hyper_parameters.get(name, {}):
        kwargs = hyper_parameters[name]
        assert compute_objective(name, z_a, z_b, objective_kwargs=kwargs).loss != by_name(name)(z_a, z_b).loss, changed


@pytest.mark.parametrize("name", CLIP_OBJECTIVES)
@pytest.mark.parametrize("shape", [(8, 16), (64, 8)])
@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e10, 1e20, 1e30])
def test_a_loss_of_huge_latents_may_be_infinite_and_is_never_nan(name, shape, scale):
    if name == "wmse" and shape == (8, 16):
        shape = (32, 16)
    generator = torch.Generator().manual_seed(0)
    z_a, z_b = scale * torch.randn(2, *shape, generator=generator)
    assert not compute_objective(name, z_a, z_b).loss.isnan()
