"""Masks: how many weights they leave, which ones come and go, and that the others are zero to the last bit."""

import math
from itertools import pairwise

import pytest
import torch

from mbt_speech.training.optimization import create_optimizer
from mbt_speech.training.sparsity import (
    SPARSITY_METHODS,
    SparseTraining,
    encoder_cost,
    erdos_renyi_densities,
    prunable_weights,
)
from modeling_mbt import MBTConfig, MBTForPreTraining, MBTForSequenceClassification, MBTModel

MAX_STEPS = 40


def build(seed=0) -> MBTForPreTraining:
    torch.manual_seed(seed)
    config = MBTConfig(
        num_mel_bins=16,
        hidden_sizes=[8, 12],
        depths=[1, 1],
        time_strides=[2, 1],
        frequency_strides=[2, 2],
        frame_hidden_sizes=[24],
        projector_sizes=[16, 16],
    )
    return MBTForPreTraining(config).train()


def density_of(model) -> float:
    weights = prunable_weights(model.mbt).values()
    return sum(int((w != 0).sum()) for w in weights) / sum(w.numel() for w in weights)


def run(method, density=0.2, steps=MAX_STEPS, seed=0, weight_decay=0.1, watch=lambda model, sparse: None):
    model = build()
    sparse = SparseTraining(model, method, density, max_steps=MAX_STEPS, seed=seed)
    optimizer = create_optimizer(model, 1e-2, weight_decay=weight_decay)
    generator = torch.Generator().manual_seed(0)
    for step in range(steps):
        model(*torch.randn(2, 16, 8, 16, generator=generator)).loss.backward()
        sparse.before_step(step, optimizer)
        optimizer.step()
        sparse.mask_weights()
        optimizer.zero_grad()
        watch(model, sparse)
    return model, sparse, optimizer


def test_densities_of_the_layers_add_up_and_favour_small_layers():
    shapes = {"small": torch.Size([4, 4, 3, 3]), "large": torch.Size([64, 64, 3, 3]), "linear": torch.Size([512, 512])}
    for density in (0.01, 0.1, 0.5, 0.9, 1.0):
        densities = erdos_renyi_densities(shapes, density)
        kept = sum(densities[name] * math.prod(shape) for name, shape in shapes.items())
        assert kept == pytest.approx(density * sum(math.prod(shape) for shape in shapes.values()))
        assert max(densities.values()) <= 1
        assert densities["small"] >= densities["large"]
    densities = erdos_renyi_densities(shapes, 0.05)
    sums = {"large": (64 + 64 + 3 + 3) / (64 * 64 * 9), "linear": 1024 / 512**2}
    assert densities["large"] / densities["linear"] == pytest.approx(sums["large"] / sums["linear"])


@pytest.mark.slow
@pytest.mark.parametrize("method", SPARSITY_METHODS)
def test_a_run_ends_with_its_density_in_zeros_that_stay_zeros(method):
    counts = []
    model, sparse, _ = run(method, watch=lambda model, _: counts.append(density_of(model)))
    assert counts[-1] == pytest.approx(0.2, abs=0.005)
    for name, weight in sparse.weights.items():
        assert bool((weight[~sparse.masks[name]] == 0).all())
    first, *_ = [module for module in model.modules() if isinstance(module, torch.nn.Conv2d)]
    assert bool((first.weight != 0).all())
    assert bool((model.projector.layers[0].weight != 0).all())
    if method == "magnitude":  # the cubic schedule, from dense to the end of three quarters of the run
        assert counts[0] == 1.0
        halfway = 1 - 0.8 * (1 - 0.5**3)
        assert counts[15] == pytest.approx(halfway, abs=0.01)
        assert counts[30:] == counts[30:31] * 10
        assert counts == sorted(counts, reverse=True)
    else:
        assert max(counts) <= 0.205


@pytest.mark.slow
def test_a_static_mask_never_moves_and_follows_from_its_seed():
    _, before, _ = run("static", steps=0)
    _, after, _ = run("static")
    _, other, _ = run("static", steps=0, seed=1)
    for name, mask in before.masks.items():
        assert torch.equal(mask, after.masks[name])
    assert any(not torch.equal(mask, other.masks[name]) for name, mask in before.masks.items())


def test_pruning_takes_the_smallest_weights():
    model = build()
    sparse = SparseTraining(model, "magnitude", 0.3, max_steps=1, seed=0)
    weights = {name: weight.detach().clone() for name, weight in sparse.weights.items()}
    sparse.before_step(0, create_optimizer(model, 1e-3, 0.0))
    for name, mask in sparse.masks.items():
        assert weights[name][mask].abs().min() >= weights[name][~mask].abs().max()


@pytest.mark.parametrize("method", ["rigl", "set"])
def test_small_weights_make_room_for_others_whose_averages_start_anew(method):
    model, sparse, optimizer = run(method, steps=1)
    model(*torch.randn(2, 16, 8, 16, generator=torch.Generator().manual_seed(3))).loss.backward()
    before = {name: mask.clone() for name, mask in sparse.masks.items()}
    weights = {name: weight.detach().clone() for name, weight in sparse.weights.items()}
    gradients = {name: weight.grad.clone() for name, weight in sparse.weights.items()}
    sparse.before_step(1, optimizer)
    share = 0.15 * (1 + math.cos(math.pi / 30))
    for name, mask in sparse.masks.items():
        dropped, grown = before[name] & ~mask, mask & ~before[name]
        kept = before[name] & mask
        assert int(dropped.sum()) == int(grown.sum())
        assert int(dropped.sum()) == min(int(share * int(before[name].sum())), int((~before[name]).sum()))
        assert weights[name][kept].abs().min() >= weights[name][dropped].abs().max()
        weight = sparse.weights[name]
        assert bool((weight[dropped | grown] == 0).all())
        for average in ("exp_avg", "exp_avg_sq"):
            assert bool((optimizer.state[weight][average][dropped | grown] == 0).all())
        assert bool((weight.grad[~mask] == 0).all())
        if method == "rigl":
            absent = ~before[name] & ~mask
            assert gradients[name][grown].abs().min() >= gradients[name][absent].abs().max()
            assert torch.equal(weight.grad[grown], gradients[name][grown])


@pytest.mark.slow
@pytest.mark.parametrize("method", ["rigl", "set"])
def test_moving_masks_explore_and_come_to_rest_after_three_quarters(method):
    masks = []
    run(
        method,
        weight_decay=0.0,
        watch=lambda _, sparse: masks.append(torch.cat([mask.flatten() for mask in sparse.masks.values()])),
    )
    moved = [bool((a != b).any()) for a, b in pairwise(masks)]
    assert all(moved[:20])
    assert not any(moved[30:])
    assert torch.stack(masks).any(0).float().mean() > 1.5 * masks[0].float().mean()


@pytest.mark.slow
def test_fine_tuning_keeps_the_zeros_of_a_sparse_encoder(tmp_path):
    model, _, _ = run("static")
    model.config.encoder_density = 0.2
    model.save_pretrained(tmp_path)
    classifier = MBTForSequenceClassification.from_pretrained(tmp_path)
    assert classifier.config.encoder_density == 0.2
    sparse = SparseTraining.keep_zeros(classifier)
    optimizer = create_optimizer(classifier, 1e-2, weight_decay=0.1)
    for step in range(3):
        classifier(torch.randn(4, 8, 16), labels=torch.tensor([0, 1, 0, 1])).loss.backward()
        sparse.before_step(step, optimizer)
        optimizer.step()
        sparse.mask_weights()
        optimizer.zero_grad()
    assert density_of(classifier) == pytest.approx(0.2, abs=0.005)


def test_the_cost_counts_what_zeros_spare():
    config = MBTConfig(
        num_mel_bins=8, hidden_sizes=[4, 6], depths=[1, 1], time_strides=[1, 2], frequency_strides=[2, 2],
        frame_hidden_sizes=[5],
    )  # fmt: skip
    first_alone = {"hidden_sizes": [4], "depths": [1], "time_strides": [1], "frequency_strides": [2]}
    assert encoder_cost(MBTModel(MBTConfig(num_mel_bins=8, frame_hidden_sizes=[], **first_alone)), 10).density == 1
    model = MBTModel(config)
    # Twice the multiplications: (frames x frequencies) x (outputs x inputs x kernel), by hand.
    first, second, linear = 10 * 4 * 4 * 9, 5 * 2 * 6 * 4 * 9, 5 * 5 * 12
    cost = encoder_cost(model, num_frames=10)
    assert cost.dense_flops == cost.flops == 2 * (first + second + linear)
    assert cost.num_weights == cost.num_dense_weights == 4 * 9 + 6 * 4 * 9 + 5 * 12
    with torch.no_grad():
        prunable_weights(model)["encoder.frame_layers.0"].view(-1)[::2] = 0
    cost = encoder_cost(model, num_frames=10)
    assert cost.flops == 2 * (first + second) + linear
    assert cost.dense_flops == 2 * (first + second + linear)
    assert cost.density == pytest.approx((6 * 4 * 9 + 30) / (6 * 4 * 9 + 60))


@pytest.mark.parametrize(("method", "density"), [("dense", 0.5), ("rigl", 0.0), ("rigl", 1.5)])
def test_an_unknown_method_or_density_is_refused(method, density):
    with pytest.raises(ValueError, match=r"sparsity method|--density"):
        SparseTraining(build(), method, density, max_steps=10, seed=0)


@pytest.mark.parametrize("method", ["rigl", "set", "magnitude"])
def test_gradients_that_overflowed_move_no_masks(method):
    _, sparse, optimizer = run(method, steps=10)
    before = {name: mask.clone() for name, mask in sparse.masks.items()}
    step = sparse.interval * (10 // sparse.interval + 1)
    for weight in sparse.weights.values():
        weight.grad = torch.full_like(weight, math.inf)
    sparse.before_step(step, optimizer)
    assert all(torch.equal(sparse.masks[name], mask) for name, mask in before.items())
    for weight in sparse.weights.values():
        weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    sparse.before_step(step, optimizer)
    assert any(not torch.equal(sparse.masks[name], mask) for name, mask in before.items())
