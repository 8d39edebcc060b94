"""The objectives against independent float64 references, by their laws and by their floor.

Axes: N samples, D dimensions.
"""

import math

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from modeling_mbt.alternatives_mbt import _directions
from modeling_mbt.normalizations_mbt import LATENT_NORMALIZATIONS
from modeling_mbt.objectives_mbt import (
    barlow_twins_floor,
    barlow_twins_loss,
    cross_correlation,
    diagonal_and_redundancy,
    modified_barlow_twins_loss,
    squared_cross_gram,
)
from tests.support.objectives import (
    BARLOW_TWINS,
    CLIP_OBJECTIVES,
    REFERENCES,
    TALL,
    WIDE,
    Result,
    assert_same,
    by_name,
    latents,
    reference_correlation_loss,
    run,
    standardized,
)

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


def test_the_directions_of_sigreg_have_length_1_and_point_everywhere():
    directions = _directions(torch.zeros(2, 16, dtype=torch.float64), 4000, seed=0)
    torch.testing.assert_close(directions.norm(dim=0), torch.ones(4000, dtype=torch.float64), rtol=1e-6, atol=0)
    covariance = directions @ directions.T / 4000
    torch.testing.assert_close(16 * covariance, torch.eye(16, dtype=torch.float64), rtol=0, atol=0.15)


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
