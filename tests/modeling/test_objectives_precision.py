"""The objectives at the edges of the numbers: latents that do not vary, are huge, tiny or of few bits."""

import math

import pytest
import torch

from modeling_mbt.named_objectives_mbt import compute_objective
from modeling_mbt.objectives_mbt import barlow_twins_loss, cross_correlation
from tests.support.objectives import (
    BARLOW_TWINS,
    CLIP_OBJECTIVES,
    LEAST,
    REFERENCES,
    TALL,
    WIDE,
    Result,
    assert_same,
    by_name,
    latents,
    reference_bt,
    reference_correlation_loss,
    run,
    standardized,
    unit,
)


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


@pytest.mark.parametrize("name", CLIP_OBJECTIVES)
@pytest.mark.parametrize("shape", [(8, 16), (64, 8)])
@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e10, 1e20, 1e30])
def test_a_loss_of_huge_latents_may_be_infinite_and_is_never_nan(name, shape, scale):
    if name == "wmse" and shape == (8, 16):
        shape = (32, 16)
    generator = torch.Generator().manual_seed(0)
    z_a, z_b = scale * torch.randn(2, *shape, generator=generator)
    assert not compute_objective(name, z_a, z_b).loss.isnan()
