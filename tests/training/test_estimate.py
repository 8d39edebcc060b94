"""What a run says of its length before it starts."""

import time

import torch

from mbt_speech.training.estimate import cpu_multiplies_bfloat16, describe_duration, seconds_of_crop
from modeling_mbt import MBTConfig, MBTForPreTraining
from tests.support.models import SMALL_MAX_POOL


def test_timing_leaves_the_model_and_the_global_generator_as_they_were():
    model = MBTForPreTraining(MBTConfig(**SMALL_MAX_POOL)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    start = time.perf_counter()
    seconds = seconds_of_crop(model, 50)
    assert 0 < seconds < time.perf_counter() - start
    assert model.training
    assert torch.equal(state, torch.get_rng_state())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_durations_are_said_in_the_unit_that_people_use():
    assert [describe_duration(s) for s in (0.123, 25.4, 600, 90_000)] == ["0.12 s", "25 s", "10 min", "25 h"]


def test_the_instructions_for_bfloat16_are_those_that_torch_finds(monkeypatch):
    for has_them in (True, False):
        monkeypatch.setattr(
            torch.cpu, "get_capabilities", lambda has_them=has_them: {"amx_bf16": has_them}, raising=False
        )
        assert cpu_multiplies_bfloat16() is has_them
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert cpu_multiplies_bfloat16() is False
