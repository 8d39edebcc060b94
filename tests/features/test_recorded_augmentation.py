"""Noise and rooms from folders of recordings."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from feature_extraction import MBTAugmentation

RATE = 16000


def distort(
    name: str, waveforms: Tensor, folder: Path, seed: int = 0, lengths: Tensor | None = None, **strengths
) -> Tensor:
    pipeline = MBTAugmentation(waveform=[{"name": name, "folder": str(folder), **strengths}])
    return pipeline.distort_waveforms(waveforms, RATE, torch.Generator().manual_seed(seed), lengths)


def some_waveforms(num_clips: int = 4, num_samples: int = 8000) -> Tensor:
    return 0.1 * torch.randn(num_clips, num_samples, generator=torch.Generator().manual_seed(1))


def record(path: Path, samples: np.ndarray, rate: int = RATE):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, subtype="FLOAT")


def test_recorded_noise_has_the_signal_to_noise_ratio(tmp_path):
    ramp = np.linspace(0.1, 0.9, 30000)
    record(tmp_path / "a.wav", ramp[:10000])
    record(tmp_path / "deeper" / "b.WAV", ramp[10000:])
    waveforms = some_waveforms(32)
    added = distort("recorded_noise", waveforms, tmp_path, snr_db=[6, 6]) - waveforms
    ratios = 10 * (waveforms.square().mean(1) / added.square().mean(1)).log10()
    torch.testing.assert_close(ratios, torch.full((32,), 6.0), atol=1e-2, rtol=0)
    steps = added.diff(dim=1) / added.mean(1, keepdim=True)
    breaks = (steps < 0).sum(1)  # where the last recording is followed by the first one
    assert breaks.max() == 1
    assert (breaks == 0).any()
    assert len({round(float(piece[0] / piece[-1]), 4) for piece in added}) == 32


def test_recorded_noise_of_another_rate_is_resampled(tmp_path):
    record(tmp_path / "tone.wav", 0.5 * np.sin(2 * np.pi * 1000 * np.arange(44100) / 44100), rate=44100)
    waveforms = some_waveforms(2)
    added = distort("recorded_noise", waveforms, tmp_path) - waveforms
    assert (torch.fft.rfft(added).abs().argmax(1) == 500).all()


def test_recorded_rooms_convolve_from_their_loudest_sample_on(tmp_path):
    rng = np.random.default_rng(0)
    tails = [0.3 * rng.uniform(-1, 1, size) for size in (400, 9000)]
    for index, tail in enumerate(tails):
        record(tmp_path / f"{index}.wav", np.concatenate([np.zeros(77), [0.9], tail]))
    waveforms = some_waveforms(16)
    answers = [np.concatenate([[0.9], tail]) for tail in tails]
    expected = np.stack(
        [[np.convolve(clip, a / np.linalg.norm(a))[:8000] for clip in waveforms.double()] for a in answers]
    )
    distances = np.abs(distort("recorded_room", waveforms, tmp_path).numpy() - expected).max(2)
    assert (distances.min(0) < 1e-5).all()
    assert set(distances.argmin(0)) == {0, 1}


def test_a_room_that_answers_with_a_click_changes_nothing(tmp_path):
    record(tmp_path / "click.wav", np.eye(1, 500, 60)[0])
    waveforms = some_waveforms()
    torch.testing.assert_close(distort("recorded_room", waveforms, tmp_path), waveforms, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["recorded_noise", "recorded_room"])
def test_recorded_distortions_replay_and_are_finite_on_silence(name, tmp_path):
    for index in range(3):
        record(tmp_path / f"{index}.wav", np.random.default_rng(index).uniform(-0.5, 0.5, 3000))
    waveforms = some_waveforms()
    first = distort(name, waveforms, tmp_path)
    assert torch.equal(distort(name, waveforms, tmp_path), first)
    assert not torch.equal(distort(name, waveforms, tmp_path, seed=5), first)
    assert first.shape == waveforms.shape
    assert first.dtype == torch.float32
    assert (distort(name, torch.zeros_like(waveforms), tmp_path) == 0).all()


def test_a_folder_without_recordings_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no recording"):
        distort("recorded_noise", some_waveforms(), tmp_path)
    with pytest.raises(ValueError, match="'recorded_room' needs folder"):
        MBTAugmentation(waveform=[{"name": "recorded_room"}])
    with pytest.raises(ValueError, match="'folder' of 'recorded_room' is a text, not 3"):
        MBTAugmentation(waveform=[{"name": "recorded_room", "folder": 3}])


def test_a_silent_room_is_named(tmp_path):
    record(tmp_path / "silent.wav", np.zeros(100))
    with pytest.raises(ValueError, match=r"silent\.wav is silent"):
        distort("recorded_room", some_waveforms(), tmp_path)


def test_recorded_noise_goes_by_the_level_of_the_clip_without_its_padding(tmp_path):
    record(tmp_path / "a.wav", np.random.default_rng(0).uniform(-0.5, 0.5, 30_000))
    clips = some_waveforms(3, 4_000)
    padded = torch.nn.functional.pad(clips, (0, 4_000))
    added = distort("recorded_noise", padded, tmp_path, lengths=torch.tensor([4_000] * 3), snr_db=[7, 7]) - padded
    ratios = 10 * (clips.square().mean(1) / added.square().mean(1)).log10()
    torch.testing.assert_close(ratios, torch.full((3,), 7.0), atol=0.1, rtol=0)
