"""What a clip's frames become, whatever its length.

Axes: B clips, T frames, H hidden size.
"""

import math

import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError

from modeling_mbt import MBTConfig, MBTModel
from modeling_mbt.encoder_mbt import frame_center, time_stride
from modeling_mbt.pooling_mbt import (
    input_statistics,
    ordered_features,
    pool_frames,
    speech_weights,
    temporal_cosines,
)
from tests.support.models import SMALL_MAX_POOL, TINY, stir

EVEN = torch.full((1, 50), 1 / 50)


def test_statistics_of_a_constant_clip_are_those_of_its_frames_side_by_side():
    config = MBTConfig(**TINY, pooling_mode="statistics")
    model = stir(MBTModel(config))
    output = model(torch.zeros(1, 40, 16))  # constant: every frame weighs the same
    frames = output.last_hidden_state
    variance = frames.var(dim=1, correction=0).clamp(min=1e-5)
    expected = torch.cat([frames.mean(1), variance.sqrt(), frames.amax(1)], dim=1)
    torch.testing.assert_close(output.pooler_output, expected)
    assert output.pooler_output.shape[1] == config.pooled_size == 3 * config.hidden_size


def test_silence_before_and_after_a_word_hardly_changes_its_statistics():
    config = MBTConfig(**SMALL_MAX_POOL)
    model = stir(MBTModel(config))
    word = torch.rand(1, 40, 16) + 1.0
    silence = torch.full((1, 24, 16), -2.0)
    pooled, framed, late = (
        model(clip).pooler_output
        for clip in (
            torch.cat([silence, word, silence], dim=1),
            torch.cat([silence, silence, word, silence], dim=1),
            torch.cat([silence, silence, word, silence, silence], dim=1),
        )
    )
    spread = (pooled - model(silence).pooler_output).abs().mean()
    assert (framed - pooled).abs().mean() < 0.25 * spread
    assert (late - pooled).abs().mean() < 0.25 * spread


def test_weights_sum_to_one_and_give_silence_little_and_padding_nothing():
    features = torch.cat([torch.ones(1, 20, 4), -torch.ones(1, 20, 4), torch.randn(1, 8, 4)], dim=1)
    mask = (torch.arange(48) < 40).long()[None]
    weights = speech_weights(features, mask, stride=4)
    torch.testing.assert_close(weights.sum(), torch.tensor(1.0))
    assert weights[0, 0] > 1.5 * weights[0, 9]
    assert not weights[0, 10:].any()


def test_weights_do_not_depend_on_the_level_and_contrast_of_the_features():
    features, mask = torch.randn(2, 40, 8), torch.ones(2, 40)
    torch.testing.assert_close(
        speech_weights(features, mask, stride=4), speech_weights(3 * features + 5, mask, stride=4)
    )


def test_cosines_are_orthogonal_tell_order_and_forget_the_mean():
    time = (torch.arange(50) + 0.5) / 50
    frames = torch.stack([torch.cos(math.pi * time), torch.cos(2 * math.pi * time), torch.ones(50)], dim=-1)[None]
    coefficients = temporal_cosines(frames, EVEN, 2).view(2, 3)
    torch.testing.assert_close(
        coefficients, torch.tensor([[0.5**0.5, 0.0, 0.0], [0.0, 0.5**0.5, 0.0]]), atol=1e-5, rtol=1e-5
    )
    backwards = temporal_cosines(frames.flip(1), EVEN, 2).view(2, 3)
    torch.testing.assert_close(backwards[0], -coefficients[0], atol=1e-5, rtol=1e-5)


def test_cosines_of_local_features_are_of_bands_of_neighboring_frequencies():
    config = MBTConfig(**SMALL_MAX_POOL)
    frames = torch.rand(2, 7, config.hidden_size)
    bands = ordered_features(frames, config)
    local = frames[..., : config.local_size].reshape(2, 7, 2, 2, 6)  # bands, frequencies of a band, channels
    torch.testing.assert_close(bands, local.mean(3).flatten(2))
    assert bands.shape[2] == config.ordered_size


def test_pooling_has_a_finite_gradient_where_frames_do_not_vary():
    model = MBTModel(MBTConfig(**SMALL_MAX_POOL)).train()
    features = torch.zeros(2, 24, 16, requires_grad=True)
    model(features).pooler_output.sum().backward()
    assert features.grad is not None
    assert features.grad.isfinite().all()


@pytest.mark.parametrize(
    "settings",
    [TINY, SMALL_MAX_POOL, {**SMALL_MAX_POOL, "embedding_size": 4}],
    ids=["plain", "max_pool", "stem"],
)
def test_an_output_frame_is_centered_on_what_it_reads(settings):
    config = MBTConfig(**settings)
    features = torch.rand(1, 192, 16, requires_grad=True)
    model = MBTModel(config).eval()
    for parameter in model.parameters():
        parameter.data = parameter.data.abs() + 0.01
    frame = 5
    (gradient,) = torch.autograd.grad(model(features).last_hidden_state[:, frame].sum(), features)
    # Through a maximum only the winner has a gradient: the reach is that of many clips.
    seen = gradient.any(-1)[0]
    for _ in range(30):
        features = torch.rand(1, 192, 16, requires_grad=True)
        (gradient,) = torch.autograd.grad(model(features).last_hidden_state[:, frame].sum(), features)
        seen |= gradient.any(-1)[0]
    first, last = int(seen.nonzero()[0]), int(seen.nonzero()[-1])
    assert (first + last) / 2 == frame * time_stride(config) + frame_center(config)


def test_statistics_of_the_input_stand_at_the_end_and_padding_changes_nothing():
    config = MBTConfig(**{**SMALL_MAX_POOL, "pool_input_features": True})
    model = stir(MBTModel(config)).eval()
    clip = torch.randn(1, 37, 16)
    padded = torch.cat([clip, torch.full((1, 11, 16), 7.0)], dim=1)
    mask = (torch.arange(48) < 37).long()[None]
    alone, in_batch = model(clip).pooler_output, model(padded, mask).pooler_output
    assert alone.shape[1] == config.pooled_size
    torch.testing.assert_close(alone, in_batch, rtol=1e-4, atol=1e-5)
    slopes = torch.stack([clip[0, (index + torch.arange(-2, 3)).clamp(0, 36)] for index in range(37)])
    slopes = torch.einsum("k,tkm->tm", torch.arange(-2.0, 3.0), slopes) / 10
    expected = [clip[0].mean(0), clip[0].std(0, correction=0), clip[0].amax(0)]
    expected += [slopes.std(0, correction=0), slopes.amax(0)]
    torch.testing.assert_close(alone[0, -80:], torch.cat(expected), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(alone[:, -80:], input_statistics(clip, torch.ones(1, 37)))


def test_a_clip_without_a_real_frame_has_finite_statistics_and_changes_no_other():
    model = stir(MBTModel(MBTConfig(**{**SMALL_MAX_POOL, "pool_input_features": True}))).eval()
    clips, mask = torch.randn(2, 40, 16), torch.ones(2, 40, dtype=torch.long)
    mask[1] = 0
    pooled = model(clips, mask).pooler_output
    assert pooled[1].abs().max() < 10
    torch.testing.assert_close(pooled[:1], model(clips[:1]).pooler_output, rtol=1e-4, atol=1e-5)


def test_statistics_of_a_long_clip_fit_into_half_precision():
    features = 1.5 * torch.randn(1, 70_000, 4)
    found = input_statistics(features.half(), torch.ones(1, 70_000))
    assert found.dtype == torch.float16
    torch.testing.assert_close(found.float(), input_statistics(features, torch.ones(1, 70_000)), rtol=5e-3, atol=5e-3)


def test_statistics_in_double_precision_are_computed_in_it():
    features = torch.randn(1, 50, 4, dtype=torch.float64)
    found = input_statistics(features, torch.ones(1, 50))
    torch.testing.assert_close(found[0, :4], features[0].mean(0), rtol=1e-12, atol=1e-12)


def test_the_projector_does_not_read_the_statistics_of_the_input():
    config = MBTConfig(**{**SMALL_MAX_POOL, "pool_input_features": True})
    assert config.projected_size == MBTConfig(**SMALL_MAX_POOL).projected_size < config.pooled_size
    with pytest.raises(StrictDataclassClassValidationError, match="pool_input_features"):
        MBTConfig(**TINY, pool_input_features=True)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("num_frames", [257, 303, 2051])
def test_a_model_in_half_precision_reads_clips_of_every_length_to_their_ends(dtype, num_frames):
    config = MBTConfig(**{**SMALL_MAX_POOL, "pool_input_features": True})
    model = stir(MBTModel(config)).to(dtype)
    features = torch.randn(1, num_frames, 16).to(dtype)
    features[:, -1] += 50
    mask = torch.ones(1, num_frames, dtype=torch.long)
    pooled = model(features).pooler_output
    assert torch.equal(pooled, model(features, mask).pooler_output)
    assert torch.equal(pooled, model(features, mask.to(dtype)).pooler_output)
    assert pooled.dtype == dtype
    assert pooled[0, -16:].min() > 10  # the steepest slopes, up to the last frame


@pytest.mark.parametrize("mode", ["mean", "statistics"])
def test_frames_of_a_long_clip_are_pooled_in_single_precision(mode):
    config = MBTConfig(**{**TINY, "pooling_mode": mode})
    frames = torch.tensor([0.0, 600.0]).repeat(10_000)[None, :, None].expand(1, 20_000, config.hidden_size)
    features = torch.zeros(1, 20_000 * time_stride(config), config.num_mel_bins)
    pooled = pool_frames(frames.half(), features.half(), None, config)
    assert pooled.dtype == torch.float16
    torch.testing.assert_close(pooled.float(), pool_frames(frames, features, None, config), rtol=5e-3, atol=1.0)


def test_pooling_is_in_single_precision_under_autocast():
    config = MBTConfig(**{**TINY, "pooling_mode": "statistics"})
    generator = torch.Generator().manual_seed(0)
    frames = torch.rand(2, 500, config.hidden_size, generator=generator)
    features = torch.randn(2, 500 * time_stride(config), config.num_mel_bins, generator=generator)
    with torch.autocast("cpu", torch.bfloat16):
        pooled = pool_frames(frames, features, None, config)
    assert torch.equal(pooled, pool_frames(frames, features, None, config))
