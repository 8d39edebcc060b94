"""Objectives by their names: which settings and latents are accepted, and which are refused."""

import pytest
import torch

from modeling_mbt.named_objectives_mbt import compute_objective, validate_objective
from modeling_mbt.objectives_mbt import cross_correlation, modified_barlow_twins_loss
from tests.support.objectives import CLIP_OBJECTIVES, TALL, WIDE, latents


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


@pytest.mark.parametrize(
    ("objective", "name", "value"),
    [
        ("infonce", "temperature", 0),
        ("infonce", "temperature", "0.1"),
        ("cpc", "temperature", -1.0),
        ("tcr", "distortion", 0.0),
        ("sigreg", "num_knots", 1),
        ("vicreg", "variance_weight", float("nan")),
        ("hsic", "spread_weight", True),
        ("sigreg", "num_knots", 17.0),
        ("sigreg", "num_directions", 2.5),
        ("sigreg", "seed", 1.5),
    ],
)
def test_a_hyper_parameter_that_cannot_be_is_refused(objective, name, value):
    with pytest.raises(ValueError, match=f"'{name}' of objective '{objective}' is a (whole )?number of at least"):
        validate_objective(objective, objective_kwargs={name: value})


def test_a_correlation_of_groups_that_do_not_divide_the_dimensions_is_refused():
    with pytest.raises(ValueError, match="group"):
        cross_correlation(torch.randn(4, 17), torch.randn(4, 17), "group")


@pytest.mark.parametrize("name", CLIP_OBJECTIVES)
def test_every_objective_is_accepted_as_it_is(name):
    validate_objective(name, num_dims=64)


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("infonce", {"temperature": 0.03}, {"temperature": 0.3}),
        ("vicreg", {"covariance_weight": 1.0}, {"covariance_weight": 2.0}),
        ("hsic", {"kernel_scale": 1e-4}, {"kernel_scale": 1.0}),
        ("sigreg", {"seed": 0}, {"seed": 1}),
    ],
)
def test_a_hyper_parameter_changes_the_loss_and_nothing_else_does(name, least, most):
    z_a, z_b = latents(*TALL)
    first, again, other = (
        compute_objective(name, z_a, z_b, objective_kwargs=kwargs).loss for kwargs in (least, least, most)
    )
    assert first.isfinite()
    assert first == again != other
