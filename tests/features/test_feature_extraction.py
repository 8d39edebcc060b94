"""MBTFeatureExtractor against independent references and by its laws."""

from typing import Any

import librosa
import numpy as np
import pytest
import torch

from feature_extraction import MBTFeatureExtractor, feature_extraction_mbt
from feature_extraction.spectrogram_mbt import mel_filterbank, power_spectrogram
from tests.support.extractors import ALL, BOTH, FAITHFUL, SAMPLING_RATE, features_of, reference_features, some_speech


@BOTH
def test_features_agree_with_a_float64_reference(settings):
    extractor, clip = MBTFeatureExtractor(**settings), some_speech(7000)
    expected = reference_features(clip, extractor)
    decibels, _ = extractor.extract(torch.tensor(clip)[None])
    np.testing.assert_allclose(decibels[0], expected, atol=2e-3)
    normalized = (expected - expected.mean()) / expected.std()
    np.testing.assert_allclose(features_of(extractor, clip)[0], normalized, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("num_samples", [16000, 15999, 12345])
def test_log_mels_agree_with_librosa(num_samples):
    extractor, clip = MBTFeatureExtractor(), some_speech(num_samples)
    power = librosa.feature.melspectrogram(
        y=clip, sr=16000, n_fft=512, hop_length=160, win_length=400, pad_mode="constant",
        n_mels=64, fmin=60, fmax=7800, htk=True, norm=None,
    )  # fmt: skip
    expected = librosa.power_to_db(power, amin=1e-8, top_db=None).T
    expected = (expected - expected.mean()) / expected.std()
    np.testing.assert_allclose(features_of(extractor, clip)[0], expected, rtol=1e-4, atol=1e-4)


def test_linear_spectra_agree_with_librosa_and_have_the_papers_shape():
    extractor, clip = MBTFeatureExtractor(**FAITHFUL), some_speech(16000)
    power = np.abs(librosa.stft(clip, n_fft=1024, hop_length=512, pad_mode="constant")) ** 2
    assert power.shape == (513, 32)
    expected = librosa.power_to_db(power, amin=1e-8, top_db=None).T
    expected = (expected - expected.mean()) / expected.std()
    np.testing.assert_allclose(features_of(extractor, clip)[0], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("num_mels", "n_fft"), [(64, 512), (80, 1024), (10, 256)])
def test_the_filterbank_is_librosas(num_mels, n_fft):
    expected = librosa.filters.mel(
        sr=16000, n_fft=n_fft, n_mels=num_mels, fmin=60, fmax=7800, htk=True, norm=None, dtype=np.float64
    )
    np.testing.assert_allclose(mel_filterbank(num_mels, n_fft, 16000, 60, 7800), expected.T, atol=1e-9)


def test_linear_features_keep_the_bins_of_the_frequency_range():
    settings: dict[str, Any] = FAITHFUL | {"min_frequency": 300.0, "max_frequency": 3400.0}
    with pytest.raises(ValueError, match="Set `feature_size` to 198"):
        MBTFeatureExtractor(**settings)
    extractor = MBTFeatureExtractor(**{**settings, "feature_size": 198})
    clip = torch.tensor(some_speech(16000))[None]
    everything, _ = MBTFeatureExtractor(**FAITHFUL).extract(clip)
    bins = np.flatnonzero((np.fft.rfftfreq(1024, 1 / 16000) >= 300) & (np.fft.rfftfreq(1024, 1 / 16000) <= 3400))
    assert torch.equal(extractor.extract(clip)[0], everything[..., bins])


@ALL
def test_a_clip_has_the_same_features_alone_and_in_a_batch_of_longer_ones(settings):
    extractor = MBTFeatureExtractor(**settings)
    clips = [some_speech(n, seed=n) for n in (16000, 1024, 9999, 16159, 8000)]
    batch = extractor(clips, sampling_rate=SAMPLING_RATE, return_tensors="pt")
    for clip, features, mask in zip(clips, batch["input_features"], batch["attention_mask"], strict=True):
        alone = features_of(extractor, clip)[0]
        assert len(alone) == 1 + len(clip) // extractor.hop_length == mask.sum()
        assert (mask[: len(alone)] == 1).all()
        torch.testing.assert_close(features[: len(alone)], alone, atol=1e-5, rtol=1e-5)
        assert (features[len(alone) :] == extractor.padding_value).all()


@pytest.mark.parametrize("samples_per_chunk", [1, 10000])
def test_a_batch_is_the_same_in_one_piece_and_in_chunks(samples_per_chunk, monkeypatch):
    extractor, waveforms = MBTFeatureExtractor(), torch.tensor(np.stack([some_speech(4000, s) for s in range(7)]))
    expected, _ = extractor.extract(waveforms)
    monkeypatch.setattr(feature_extraction_mbt, "SAMPLES_PER_CHUNK", samples_per_chunk)
    torch.testing.assert_close(extractor.extract(waveforms)[0], expected, atol=1e-4, rtol=0)


def test_what_stands_past_a_clips_end_is_ignored():
    extractor, lengths = MBTFeatureExtractor(), torch.tensor([5000, 9000])
    waveforms = torch.tensor(np.stack([some_speech(9000, seed) for seed in (1, 2)]))
    clean = waveforms.clone()
    clean[0, 5000:] = 0
    for ours, expected in zip(extractor.extract(waveforms, lengths), extractor.extract(clean, lengths), strict=True):
        assert torch.equal(ours, expected)
    features, mask = extractor.extract(waveforms, lengths)
    assert (features[0, mask[0] == 0] == -80).all()


@ALL
def test_silence_gives_finite_constant_features(settings):
    extractor = MBTFeatureExtractor(**settings)
    features = features_of(extractor, np.zeros(16000, np.float32), some_speech(20000))
    assert features.isfinite().all()
    own_frames = features[0, : 1 + 16000 // extractor.hop_length]
    assert own_frames.max() - own_frames.min() < 1e-4


@pytest.mark.parametrize("frequency", [150, 440, 1000, 2500, 7000])
def test_a_tone_lands_in_its_mel_band(frequency):
    extractor = MBTFeatureExtractor()
    tone = 0.3 * np.sin(2 * np.pi * frequency * np.arange(16000) / SAMPLING_RATE)
    features = features_of(extractor, tone.astype(np.float32))[0, 5:-5].mean(0)
    low, high = 2595 * np.log10(1 + np.array([60, 7800]) / 700)
    mel = np.linspace(low, high, 66)[1:-1]
    nearest = np.abs(mel - 2595 * np.log10(1 + frequency / 700)).argsort()[:2]
    assert int(features.argmax()) in nearest


@BOTH
def test_ten_times_the_amplitude_adds_20_db_before_normalization(settings):
    extractor, clip = MBTFeatureExtractor(**settings), torch.tensor(some_speech(16000))[None]
    soft, mask = extractor.extract(clip)
    loud, _ = extractor.extract(10 * clip)
    above_floor = soft > -79
    assert above_floor.float().mean() > 0.95
    torch.testing.assert_close(loud[above_floor], soft[above_floor] + 20, atol=5e-3, rtol=0)
    far_above_floor = [extractor.normalize(extractor.extract(gain * clip)[0], mask) for gain in (100, 1000)]
    torch.testing.assert_close(*far_above_floor, atol=1e-2, rtol=0)


def test_a_shift_by_one_hop_shifts_the_frames_by_one():
    clip = torch.tensor(some_speech(8000))
    later = torch.cat([torch.zeros(160), clip])
    frames, frames_later = (power_spectrogram(x[None], 512, 400, 160)[0] for x in (clip, later))
    torch.testing.assert_close(frames_later[1:], frames, atol=1e-6, rtol=1e-4)


def test_the_power_of_white_noise_is_its_variance_times_the_windows():
    noise = 0.1 * torch.randn(8, 64000, generator=torch.Generator().manual_seed(0))
    power = power_spectrogram(noise, 512, 400, 160)[:, 5:-5, 1:-1].mean()
    assert float(power) == pytest.approx(0.01 * 400 * 3 / 8, rel=0.01)  # the mean square of a Hann window is 3/8


def test_every_form_of_the_same_clips_gives_the_same_features():
    extractor, clips = MBTFeatureExtractor(), np.stack([some_speech(8000, seed) for seed in (1, 2)])
    expected = features_of(extractor, *clips)
    forms = [
        clips, clips.astype(np.float64), list(clips), clips.tolist(), torch.tensor(clips), list(torch.tensor(clips)),
        tuple(torch.tensor(clips).double()), [clips[0].tolist(), torch.tensor(clips[1])],
    ]  # fmt: skip
    for form in forms:
        features = extractor(form, sampling_rate=SAMPLING_RATE, return_tensors="pt")["input_features"]
        assert features.dtype == torch.float32
        torch.testing.assert_close(features, expected, atol=0, rtol=0)
    for single in (clips[0], clips[0].tolist(), torch.tensor(clips[0])):
        features = extractor(single, sampling_rate=SAMPLING_RATE, return_tensors="pt")["input_features"]
        torch.testing.assert_close(features, expected[:1], atol=1e-6, rtol=0)


def test_clips_that_may_not_be_written_to_are_read_without_a_warning():
    clip = some_speech(8000)
    clip.flags.writeable = False
    assert features_of(MBTFeatureExtractor(), clip).shape == (1, 51, 64)


def test_half_precision_clips_are_computed_in_float32():
    clip = torch.tensor(some_speech(8000)).half()
    extractor = MBTFeatureExtractor()
    torch.testing.assert_close(features_of(extractor, clip), features_of(extractor, clip.float()))


def test_autocast_does_not_lower_the_precision():
    extractor, clip = MBTFeatureExtractor(), torch.tensor(some_speech(8000))[None]
    expected, _ = extractor.extract(clip)
    with torch.autocast("cpu", torch.bfloat16):
        features, _ = extractor.extract(clip)
    torch.testing.assert_close(features, expected)


def test_fit_finds_the_statistics_of_the_clips_own_frames():
    extractor, lengths = MBTFeatureExtractor(), torch.tensor([16000, 9000])
    batches = [(torch.tensor(np.stack([some_speech(16000, s) for s in seeds])), lengths) for seeds in ((1, 2), (3, 4))]
    clips = [
        clip[:length].numpy() for waveforms, _ in batches for clip, length in zip(waveforms, lengths, strict=True)
    ]
    expected = np.concatenate([reference_features(clip, extractor) for clip in clips])
    assert extractor.fit(batches) is extractor
    assert extractor.mean == pytest.approx(expected.mean(), abs=1e-3)
    assert extractor.std == pytest.approx(expected.std(), abs=1e-3)
    np.testing.assert_allclose(
        features_of(extractor, clips[1])[0],
        (reference_features(clips[1], extractor) - expected.mean()) / expected.std(),
        atol=1e-3,
    )


def test_statistics_may_be_given_for_each_band():
    clip, mean, std = some_speech(8000), np.linspace(-50, -10, 64), np.linspace(10, 20, 64)
    expected = (reference_features(clip, MBTFeatureExtractor()) - mean) / std
    features = features_of(MBTFeatureExtractor(mean=mean.tolist(), std=std.tolist()), clip)
    np.testing.assert_allclose(features[0], expected, atol=1e-3)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@BOTH
def test_cpu_and_gpu_agree(settings):
    extractor, clips = MBTFeatureExtractor(**settings), [some_speech(n) for n in (16000, 9000)]
    on_gpu = features_of(extractor, *clips, device="cuda")
    assert on_gpu.is_cuda
    torch.testing.assert_close(on_gpu.cpu(), features_of(extractor, *clips), atol=1e-3, rtol=0)


@pytest.mark.parametrize("batches", [[], [(torch.zeros(2, 16000), None)]], ids=["none", "silence"])
def test_statistics_of_nothing_are_refused_and_change_nothing(batches):
    extractor = MBTFeatureExtractor()
    with pytest.raises(ValueError, match="no recordings, or of silence alone"):
        extractor.fit(batches)
    assert extractor.mean is extractor.std is None


@BOTH
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_default_type_of_tensors_changes_nothing(settings, dtype):
    extractor, clips = MBTFeatureExtractor(**settings), torch.tensor(some_speech(4000))[None]
    expected = extractor.extract(clips)[0]
    torch.set_default_dtype(dtype)
    try:
        assert torch.equal(extractor.extract(clips)[0], expected)
    finally:
        torch.set_default_dtype(torch.float32)


def test_statistics_are_kept_as_plain_numbers(tmp_path):
    for mean, std in ((np.float32(1), np.float32(2)), (torch.zeros(64), torch.ones(64))):
        extractor = MBTFeatureExtractor(mean=mean, std=std)
        extractor.save_pretrained(tmp_path)
        again = MBTFeatureExtractor.from_pretrained(tmp_path)
        assert (again.mean, again.std) == (extractor.mean, extractor.std) == (mean.tolist(), std.tolist())
