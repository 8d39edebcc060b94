"""Each distortion of waveforms by the laws of its physics."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from feature_extraction import MBTAugmentation, MBTFeatureExtractor

RATE = 16000


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def distort(name: str, waveforms: Tensor, seed: int = 0, **strengths) -> Tensor:
    return MBTAugmentation(waveform=[{"name": name, **strengths}]).distort_waveforms(waveforms, RATE, seeded(seed))


def some_waveforms(num_clips: int = 6, num_samples: int = 15360, seed: int = 1) -> Tensor:
    noise = torch.randn(num_clips, num_samples, generator=seeded(seed))
    loudness = 1.5 + torch.linspace(0, 20, num_samples).sin()
    return 0.05 * loudness * noise * torch.linspace(0.5, 2, num_clips)[:, None]


def tones(frequency: float, num_clips: int = 4, seconds: float = 2.0) -> Tensor:
    t = torch.arange(int(seconds * RATE), dtype=torch.float64) / RATE
    return (0.2 * torch.sin(2 * math.pi * frequency * t)).float().expand(num_clips, -1).contiguous()


def strongest_frequencies(waveforms: Tensor) -> Tensor:
    """Returns (B,) in Hz, to a fraction of a bin."""
    length = 1 << 18
    window = torch.hann_window(waveforms.shape[1])
    return torch.fft.rfft(waveforms * window, length).abs().argmax(1) * RATE / length


def power_db(waveforms: Tensor) -> Tensor:
    return 10 * waveforms.square().mean(1).log10()


def test_gain_changes_the_level_by_decibels_within_the_bounds():
    waveforms = some_waveforms(64)
    change = power_db(distort("gain", waveforms, db=[-12, 6])) - power_db(waveforms)
    assert -12 <= change.min() < -9
    assert 3 < change.max() <= 6


def test_polarity_turns_clips_upside_down():
    waveforms = some_waveforms()
    assert torch.equal(distort("polarity", waveforms), -waveforms)


def test_gaussian_noise_has_the_amplitude_drawn_whatever_the_level():
    waveforms = some_waveforms()
    added = [distort("gaussian_noise", gain * waveforms) - gain * waveforms for gain in (0, 1)]
    torch.testing.assert_close(*added, atol=1e-6, rtol=0)
    assert 0.001 * 0.95 < added[0].std(dim=1).min() < added[0].std(dim=1).max() < 0.015 * 1.05


@pytest.mark.parametrize("name", ["noise", "babble"])
def test_added_sound_stands_at_the_signal_to_noise_ratio(name):
    waveforms = some_waveforms()
    added = distort(name, waveforms, snr_db=[7, 7]) - waveforms
    torch.testing.assert_close(power_db(waveforms) - power_db(added), torch.full((6,), 7.0), atol=1e-2, rtol=0)


@pytest.mark.parametrize("exponent", [0, 1, 2])
def test_noise_falls_with_the_exponent_of_frequency(exponent):
    waveforms = some_waveforms(16, 16384)
    added = distort("noise", waveforms, exponent=[exponent, exponent]) - waveforms
    power = (torch.fft.rfft(added).abs().square() / added.square().sum(1, keepdim=True)).mean(0)
    low, high = power[500:600].mean(), power[4000:4800].mean()  # eightfold frequency
    assert float((low / high).log2()) == pytest.approx(3 * exponent, abs=0.3)


def test_babble_is_made_of_the_other_clips_alone():
    waveforms = torch.zeros(3, 900)
    for clip, samples in enumerate(waveforms):
        samples[300 * clip : 300 * (clip + 1)] = torch.randn(300, generator=seeded(clip))
    added = distort("babble", waveforms, num_voices=2) - waveforms
    for clip, samples in enumerate(added):
        assert (samples[300 * clip : 300 * (clip + 1)] == 0).all()
        assert (samples != 0).any()


def test_a_room_answers_a_click_with_a_tail_that_falls_by_60_db_in_rt60():
    clicks = torch.zeros(64, 16000)
    clicks[:, 100] = 1
    answer = distort("reverberation", clicks, rt60_seconds=[0.3, 0.3], direct_to_reverberant_db=[5, 5])
    torch.testing.assert_close(answer[:, :100], clicks[:, :100], atol=1e-6, rtol=0)
    torch.testing.assert_close(answer[:, 100], torch.ones(64), atol=1e-5, rtol=0)
    energy = answer[:, 101:].square().mean(0)
    torch.testing.assert_close(answer[:, 101:].square().sum(1), torch.full((64,), 10**-0.5), atol=1e-3, rtol=0)
    early, late = energy[:160].mean().log10(), energy[2400:2560].mean().log10()
    assert float(10 * (early - late)) == pytest.approx(60 * 0.15 / 0.3, abs=1.5)


def test_reverberation_is_a_convolution_with_one_answer_per_clip():
    x, y = some_waveforms(3, 8000, seed=1), some_waveforms(3, 8000, seed=2)
    together = distort("reverberation", x + y)
    apart = distort("reverberation", x) + distort("reverberation", y)
    torch.testing.assert_close(together, apart, atol=1e-5, rtol=1e-4)
    click = torch.zeros(3, 8000)
    click[:, 0] = 1
    answers = distort("reverberation", click)
    expected = np.stack([np.convolve(a, b)[:8000] for a, b in zip(x.double(), answers.double(), strict=True)])
    np.testing.assert_allclose(distort("reverberation", x), expected, atol=1e-5)


def response_db(name: str, num_clips: int = 8, **strengths) -> Tensor:
    """Returns (B, F) of a filter, by its answer to a click in the middle, at bins of 1 Hz."""
    clicks = torch.zeros(num_clips, RATE)
    clicks[:, RATE // 2] = 1
    return 20 * torch.fft.rfft(distort(name, clicks, **strengths)).abs().clamp(min=1e-6).log10()


def test_the_equalizer_is_a_smooth_curve_within_its_bounds_in_every_clip():
    response = response_db("equalizer", db=9)
    assert response.abs().max() < 9.5
    assert response.std(dim=1).min() > 1
    assert response.diff(dim=1).abs().max() < 0.2


def test_a_band_limit_lets_its_band_through_and_stops_the_rest():
    response = response_db("band_limit", low_hz=[300, 300], high_hz=[3400, 3400])
    assert response[:, 400:2700].abs().max() < 0.5
    assert response[:, 300].mean() == pytest.approx(-3, abs=0.3)
    assert response[:, 3400].mean() == pytest.approx(-3, abs=0.3)
    assert response[:, :120].max() < -40
    assert response[:, 6800:].max() < -40


def test_a_shift_turns_the_clip_round():
    waveforms = torch.arange(1000.0).expand(32, -1).contiguous()
    shifted = distort("shift", waveforms, fraction=[-0.5, 0.5])
    steps = []
    for clip in shifted:
        steps.append(int((clip == 0).nonzero()))
        assert torch.equal(clip, waveforms[0].roll(steps[-1]))
    distances = [min(step, 1000 - step) for step in steps]
    assert max(distances) > 300
    assert len(set(steps)) > 25


@pytest.mark.parametrize("rate", [0.8, 1.0, 1.1, 1.25])
def test_speed_moves_a_tone_by_its_rate_and_reads_between_samples(rate):
    faster = distort("speed", tones(1000), rate=[rate, rate])
    t = torch.arange(faster.shape[1], dtype=torch.float64) / RATE
    expected = 0.2 * torch.sin(2 * math.pi * 1000 * rate * t).float()
    sounding = slice(200, int(min(2, 2 / rate) * RATE) - 200)
    torch.testing.assert_close(faster[0, sounding], expected[sounding], atol=1e-3, rtol=0)
    assert (faster[0, int(2 / rate * RATE) + 4 :] == 0).all()


def test_speed_removes_what_would_fold_back():
    spoiled = distort("speed", tones(7500), rate=[1.25, 1.25])
    assert power_db(spoiled[:, 1000:20000]).max() < power_db(tones(7500)).max() - 30


@pytest.mark.parametrize("rate", [0.8, 1.25])
def test_time_stretch_keeps_the_pitch_and_moves_the_time(rate):
    waveforms = tones(1000)
    waveforms[:, RATE:] *= 0.1
    stretched = distort("time_stretch", waveforms, rate=[rate, rate])
    assert float(strongest_frequencies(stretched)[0]) == pytest.approx(1000, abs=2)
    level = power_db(stretched[0].unfold(0, 400, 400))
    drop = int((level[5 : int(1.9 * RATE / rate / 400)] < level[20] - 10).nonzero()[0]) + 5
    assert drop * 400 == pytest.approx(RATE / rate, abs=800)


@pytest.mark.parametrize("semitones", [-4, -1, 3])
def test_pitch_shift_moves_a_tone_by_semitones_and_keeps_the_time(semitones):
    waveforms = tones(1000)
    waveforms[:, RATE:] *= 0.1
    shifted = distort("pitch_shift", waveforms, semitones=[semitones, semitones])
    assert float(strongest_frequencies(shifted)[0]) == pytest.approx(1000 * 2 ** (semitones / 12), abs=3)
    level = power_db(shifted[0].unfold(0, 400, 400))
    drop = int((level[5:75] < level[20] - 10).nonzero()[0]) + 5
    assert drop * 400 == pytest.approx(RATE, abs=800)


def test_clips_that_are_chosen_are_distorted_by_their_own_lengths():
    waveforms = 0.1 * torch.randn(6, 8_000, generator=torch.Generator().manual_seed(1))
    lengths = torch.tensor([4_000, 5_000, 6_000, 7_000, 8_000, 8_000])
    waveforms = waveforms.masked_fill(torch.arange(8_000) >= lengths[:, None], 0)
    half = MBTAugmentation(waveform=[{"name": "shift", "fraction": [0.5, 0.5], "p": 0.5}])
    shifted = half.distort_waveforms(waveforms, RATE, seeded(), lengths)
    moved = 0
    for clip, found, length in zip(waveforms, shifted, lengths.tolist(), strict=True):
        turned = clip[:length].roll(length // 2)
        assert torch.equal(found[:length], clip[:length]) or torch.equal(found[:length], turned)
        moved += torch.equal(found[:length], turned)
    assert 0 < moved < 6


def test_what_follows_a_clip_plays_no_part_in_its_view():
    pipeline = MBTAugmentation(features=[{"name": "frequency_mask", "width": 0.9}])
    clips = 0.1 * torch.randn(3, 8_000, generator=torch.Generator().manual_seed(1))
    views = [
        pipeline(one, MBTFeatureExtractor(), seeded(), torch.tensor([8_000] * 3))[0]
        for one in (clips, torch.nn.functional.pad(clips, (0, 8_000)))
    ]
    torch.testing.assert_close(views[1][:, : views[0].shape[1]], views[0])
