"""Optimizers and schedules."""

import pytest
import torch
from transformers import get_cosine_schedule_with_warmup

from mbt_speech.presets import PRESETS
from mbt_speech.training.optimization import Schedule, create_optimizer
from modeling_mbt import MBTForSequenceClassification


def test_biases_and_norms_do_not_decay_and_rates_rise_then_fall():
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2, bias=False))
    optimizer = create_optimizer(model, 0.5, 0.1)
    decayed, plain = optimizer.param_groups
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)
    assert [tuple(p.shape) for p in decayed["params"]] == [(4, 3), (2, 4)]
    assert [tuple(p.shape) for p in plain["params"]] == [(4,), (4,), (4,)]
    schedule = Schedule(optimizer, 5, 100)
    rates = [schedule.set_rates(step) for step in range(101)]
    assert rates[0] == 0
    assert max(rates) == rates[5] == 0.5
    assert rates[100] == pytest.approx(0, abs=1e-6)
    reference = torch.optim.AdamW(model.parameters(), lr=0.5)
    scheduler = get_cosine_schedule_with_warmup(reference, 5, 100)
    for rate in rates:
        assert rate == scheduler.get_last_lr()[0]
        reference.step()
        scheduler.step()
    schedule.set_rates(50)
    assert [group["lr"] for group in optimizer.param_groups] == [rates[50]] * 2


@pytest.mark.parametrize("decay", [1.0, 0.5])
def test_a_layer_learns_slower_than_the_layer_above_it(decay):
    model = MBTForSequenceClassification(PRESETS["tiny"].config())
    optimizer = create_optimizer(model, 1e-2, 0.1, layerwise_lr_decay=decay)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    layers = [*model.mbt.encoder.layers, *model.mbt.encoder.frame_layers, model.classifier]
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(model.parameters()))
    for distance, layer in enumerate(reversed(layers)):
        for parameter in layer.parameters():
            assert rates[id(parameter)] == pytest.approx(1e-2 * decay**distance)


def test_lars_scales_weights_by_their_norms_and_nothing_else():
    model = torch.nn.Linear(3, 2)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = create_optimizer(model, 0.2, 1e-6, optim="lars")
    model(torch.ones(4, 3)).square().sum().backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    optimizer.step()
    weight, gradient = before["weight"], gradients["weight"]
    trust = 1e-3 * weight.norm() / (gradient.norm() + 1e-6 * weight.norm())
    torch.testing.assert_close(model.weight.detach(), weight - 0.2 * trust * (gradient + 1e-6 * weight))
    torch.testing.assert_close(model.bias.detach(), before["bias"] - 0.0048 * gradients["bias"])


def test_layers_of_a_model_of_the_hub_end_with_one_classifier():
    hub = torch.nn.Module()
    hub.encoder = torch.nn.ModuleDict({"layers": torch.nn.ModuleList(torch.nn.Linear(2, 2) for _ in range(2))})
    hub.projector, hub.classifier = (
        torch.nn.Linear(2, 2),
        torch.nn.Sequential(torch.nn.LayerNorm(2), torch.nn.Linear(2, 2)),
    )
    model = torch.nn.ModuleDict({"hub": hub})
    optimizer = create_optimizer(model, 1.0, 0.1, layerwise_lr_decay=0.5)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    for distance, layer in enumerate((hub.classifier, hub.projector, *reversed(hub.encoder["layers"]))):
        assert {rates[id(parameter)] for parameter in layer.parameters()} == {0.5**distance}
