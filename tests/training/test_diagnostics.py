"""What is said about the latents of a step."""

import math

import pytest
import torch
from accelerate import Accelerator

from mbt_speech.training.diagnostics import CollapseWatch, diagnose, effective_rank
from modeling_mbt import MBTConfig, MBTForPreTrainingOutput
from modeling_mbt.cpc_mbt import clip_latents
from modeling_mbt.objectives_mbt import barlow_twins_floor, cross_correlation


@pytest.fixture
def accelerator(fresh_accelerator):
    return Accelerator(cpu=True)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_effective_rank_of_equal_singular_values_is_their_number():
    orthogonal = torch.linalg.qr(random(20, 6) - random(20, 6).mean(0)).Q
    centered = torch.linalg.qr(orthogonal - orthogonal.mean(0)).Q
    assert float(effective_rank(7 * centered + 3)) == pytest.approx(6, abs=1e-3)
    assert float(effective_rank(random(20, 1) * random(1, 6, seed=1))) == pytest.approx(1, abs=1e-3)
    assert float(effective_rank(torch.full((20, 6), 0.3))) == 0
    values = torch.tensor([4.0, 2.0, 1.0])
    shares = values / values.sum()
    expected = math.exp(-sum(float(p) * math.log(float(p)) for p in shares))
    assert float(effective_rank(centered[:, :3] * values)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("objective", ["bt", "mbt", "vicreg"])
@pytest.mark.parametrize("num_dims", [6, 40])
def test_the_statistics_are_those_of_the_matrix_that_is_drawn(accelerator, objective, num_dims):
    z_a, noise = random(16, num_dims), random(16, num_dims, seed=1)
    output = MBTForPreTrainingOutput(projections=z_a, projections_b=z_a + noise, representations=random(16, 9, seed=2))
    config = MBTConfig(objective=objective, projector_sizes=[num_dims])
    values = diagnose(accelerator, config, output)
    matrix = cross_correlation(z_a, z_a + noise, "l2" if objective == "mbt" else "batch")
    off_diagonal = matrix[~torch.eye(num_dims, dtype=torch.bool)]
    assert float(values["mean_correlation"]) == pytest.approx(float(matrix.diagonal().mean()), rel=1e-5)
    assert float(values["off_diagonal_rms"]) == pytest.approx(float(off_diagonal.square().mean().sqrt()), rel=1e-4)
    assert float(values["representation_effective_rank"]) == pytest.approx(
        float(effective_rank(random(16, 9, seed=2)))
    )
    if objective == "vicreg":
        assert "loss_floor" not in values
    else:
        assert float(values["loss_floor"]) == pytest.approx(barlow_twins_floor(16, num_dims, 0.005))


def test_the_latents_of_predictive_coding_are_means_over_frames(accelerator):
    z_a, z_b = (torch.cat([random(16, 9, 3, 8, seed=seed), torch.ones(16, 9, 3, 1)], dim=-1) for seed in (0, 1))
    output = MBTForPreTrainingOutput(projections=z_a, projections_b=z_b, representations=random(16, 9, seed=2))
    values = diagnose(accelerator, MBTConfig(objective="cpc"), output)
    assert float(values["effective_rank"]) == pytest.approx(float(effective_rank(clip_latents(z_a))))
    matrix = cross_correlation(clip_latents(z_a), clip_latents(z_b))
    assert float(values["mean_correlation"]) == pytest.approx(float(matrix.diagonal().mean()), rel=1e-5)
    assert "loss_floor" not in values


def test_a_collapse_is_told_once_in_words_and_so_is_recovery():
    watch, healthy = CollapseWatch(), torch.tensor(12.0)
    good = {"effective_rank": healthy, "representation_effective_rank": healthy}
    bad = good | {"representation_effective_rank": torch.tensor(1.1)}
    assert watch.look(1, good, 64) is None
    words = watch.look(2, bad, 64)
    assert words is not None
    assert "Step 2: the representations have collapsed" in words
    assert watch.look(3, bad, 64) is None
    assert "recovered" in (watch.look(4, good, 64) or "")
    assert watch.look(5, bad, 2) is None  # two pairs have a rank of one at most
