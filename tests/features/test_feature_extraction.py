"""MBTFeatureExtractor against independent references, by its laws, and as transformers' users call it."""

import json
import math
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import pytest
import torch
from transformers import AutoFeatureExtractor
from transformers.testing_utils import CaptureLogger

import modeling_mbt  # noqa: F401 - AutoFeatureExtractor opens the extractor as ours
from feature_extraction import MBTFeatureExtractor, feature_extraction_mbt
from feature_extraction.feature_extraction_mbt import mel_filterbank, power_spectrogram

ROOT = Path(__file__).resolve().parents[2]
SAMPLING_RATE = 16000
STRONG: dict[str, Any] = {}
FAITHFUL: dict[str, Any] = {
    "feature_size": 513,
    "hop_length": 512,
    "win_length": 1024,
    "n_fft": 1024,
    "frequency_scale": "linear",
    "min_frequency": 0.0,
    "max_frequency": 8000.0,
}
DATA_SET: dict[str, Any] = {"mean": -30.0, "std": 17.0}
BOTH = pytest.mark.parametrize("settings", [STRONG, FAITHFUL], ids=["strong", "faithful"])
ALL = pytest.mark.parametrize(
    "settings",
    [STRONG, FAITHFUL, DATA_SET, {"do_normalize": False}, {"padding_value": -7.0}],
    ids=["strong", "faithful", "data set", "not normalized", "padding value"],
)


def some_speech(num_samples: int, seed: int = 0) -> np.ndarray:
    """Returns noise with formants and syllables: broad-band, with quiet and loud moments."""
    rng = np.random.default_rng(seed)
    t = np.arange(num_samples) / SAMPLING_RATE
    voice = sum(np.sin(2 * np.pi * 120 * k * t + rng.uniform(0, 6)) / k for k in range(1, 40))
    envelope = 0.1 + np.sin(2 * np.pi * 3 * t + rng.uniform(0, 6)) ** 2
    return (0.05 * envelope * voice + 0.003 * rng.standard_normal(num_samples)).astype(np.float32)


def features_of(extractor: MBTFeatureExtractor, *clips, **kwargs) -> torch.Tensor:
    kwargs = {"sampling_rate": SAMPLING_RATE, "return_tensors": "pt", **kwargs}
    return extractor(list(clips), **kwargs)["input_features"]


def reference_features(clip: np.ndarray, extractor: MBTFeatureExtractor) -> np.ndarray:
    """Frame by frame, by the sums that define the transform and the filters, in float64."""
    n_fft, win_length, hop_length = extractor.n_fft, extractor.win_length, extractor.hop_length
    n = np.arange(win_length)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * n / win_length)
    frequencies = np.arange(n_fft // 2 + 1) / n_fft
    fourier = np.exp(-2j * np.pi * n[:, None] * frequencies)
    padded = np.concatenate([np.zeros(win_length // 2), clip.astype(np.float64), np.zeros(win_length)])
    starts = range(0, len(clip) + 1, hop_length)
    power = np.array([np.abs((padded[s : s + win_length] * window) @ fourier) ** 2 for s in starts])
    if extractor.frequency_scale == "mel":
        low, high = (1127.01048 * np.log(1 + f / 700) for f in (extractor.min_frequency, extractor.max_frequency))
        corners = 700 * np.expm1(np.linspace(low, high, extractor.feature_size + 2) / 1127.01048)
        hz = frequencies * extractor.sampling_rate
        triangles = [np.interp(hz, corners[m : m + 3], [0, 1, 0], 0, 0) for m in range(extractor.feature_size)]
        power = power @ np.array(triangles).T
    return 10 * np.log10(np.maximum(power, extractor.power_floor))


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


def test_outputs_have_the_type_that_is_asked_for():
    extractor, clips = MBTFeatureExtractor(), [some_speech(n) for n in (16000, 8000)]
    outputs = {kind: extractor(clips, SAMPLING_RATE, return_tensors=kind) for kind in ("pt", "np", None)}
    assert isinstance(outputs["pt"]["input_features"], torch.Tensor)
    assert outputs["pt"]["attention_mask"].dtype == torch.int64
    assert isinstance(outputs["np"]["input_features"], np.ndarray)
    assert isinstance(outputs[None]["input_features"], list)
    for output in outputs.values():
        np.testing.assert_array_equal(np.stack(list(output["input_features"])), outputs["np"]["input_features"])
        np.testing.assert_array_equal(np.stack(list(output["attention_mask"])), outputs["np"]["attention_mask"])


def test_the_attention_mask_is_returned_unless_someone_says_no():
    clip = some_speech(8000)
    assert "attention_mask" in MBTFeatureExtractor()(clip, SAMPLING_RATE)
    assert "attention_mask" not in MBTFeatureExtractor()(clip, SAMPLING_RATE, return_attention_mask=False)
    without = MBTFeatureExtractor(return_attention_mask=False)
    assert "attention_mask" not in without(clip, SAMPLING_RATE)
    assert "attention_mask" in without(clip, SAMPLING_RATE, return_attention_mask=True)


def test_padding_truncation_and_multiples_count_samples():
    extractor, clips = MBTFeatureExtractor(), [some_speech(n) for n in (16000, 8000)]

    def frames(**kwargs) -> int:
        return features_of(extractor, *clips, **kwargs).shape[1]

    assert frames() == frames(padding="longest") == 101
    assert frames(padding="max_length", max_length=32000) == 201
    assert frames(padding="max_length", max_length=4000) == 101
    assert frames(padding="max_length", max_length=4000, truncation=True) == 26
    assert frames(max_length=12000, truncation=True) == 76
    assert frames(pad_to_multiple_of=6400) == 1 + 19200 // 160
    assert frames(padding="max_length", max_length=16001, pad_to_multiple_of=1600) == 1 + 17600 // 160
    torch.testing.assert_close(
        features_of(extractor, *clips, max_length=8000, truncation=True)[0], features_of(extractor, clips[0][:8000])[0]
    )


@pytest.mark.parametrize("padding", [False, "do_not_pad"])
def test_without_padding_each_clip_keeps_its_own_frames(padding):
    extractor, clips = MBTFeatureExtractor(padding_value=-3.0), [some_speech(n) for n in (16000, 8000)]
    unpadded = extractor(clips, SAMPLING_RATE, padding=padding)
    assert [len(features) for features in unpadded["input_features"]] == [101, 51]
    assert [len(mask) for mask in unpadded["attention_mask"]] == [101, 51]
    joined = extractor.pad(unpadded, padding=True, return_tensors="pt")
    padded = extractor(clips, SAMPLING_RATE, return_tensors="pt")
    torch.testing.assert_close(joined["input_features"], padded["input_features"])
    assert (joined["attention_mask"] == padded["attention_mask"]).all()


@pytest.mark.parametrize(
    ("clips", "kwargs", "complaint"),
    [
        (
            np.zeros(16000, np.float32),
            {"sampling_rate": 8000},
            "expects 16000 Hz and was given 8000 Hz: resample first",
        ),
        ([], {}, "no audio here"),
        (np.zeros(0, np.float32), {}, "no audio here"),
        ([np.zeros(16000, np.float32), np.zeros(0, np.float32)], {}, "Clip 1 has 0 samples"),
        (np.zeros(399, np.float32), {}, "Clip 0 has 399 samples: pass at least a window, 400"),
        ([np.zeros((2, 16000), np.float32)], {}, r"Clip 0 has the shape \(2, 16000\): pass one channel"),
        (np.zeros((1, 2, 16000), np.float32), {}, "pass one channel"),
        (np.zeros(16000, np.int16), {}, "int16: pass floats"),
        ([np.full(16000, np.nan, np.float32)], {}, "Clip 0 holds NaN or infinity"),
        ([np.zeros(900), np.full(900, np.inf)], {}, "Clip 1 holds NaN or infinity"),
        (np.zeros(16000, np.float32), {"truncation": True}, "need `max_length`"),
        (np.zeros(16000, np.float32), {"padding": "max_length"}, "need `max_length`"),
    ],
)
def test_bad_input_is_refused_with_the_reason(clips, kwargs, complaint):
    with pytest.raises(ValueError, match=complaint):
        MBTFeatureExtractor()(clips, **{"sampling_rate": SAMPLING_RATE, **kwargs})


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"frequency_scale": "bark"}, "'mel' or 'linear', not 'bark'"),
        ({"win_length": 600}, "at least `win_length` = 600"),
        ({"n_fft": 513}, "even"),
        ({"max_frequency": 9000.0}, "between 0 and 8000 Hz"),
        ({"min_frequency": 7900.0}, "between 0 and 8000 Hz"),
        ({"sampling_rate": 8000}, "between 0 and 4000 Hz"),
        ({"feature_size": 200}, "lower `feature_size` or raise `n_fft`"),
        ({"frequency_scale": "linear", "min_frequency": 0.0, "max_frequency": 8000.0}, "Set `feature_size` to 257"),
        ({"mean": 3.0}, "both `mean` and `std`"),
        ({"padding_side": "left"}, "'right'"),
        *(({"hop_length": value}, "`hop_length` must be a whole number") for value in (0, -5, 1.5, True, "160", None)),
        *(({"feature_size": value}, "`feature_size` must be a whole number") for value in (0, 10**8)),
        ({"win_length": 0}, "`win_length` must be a whole number"),
        ({"n_fft": 2**30}, "`n_fft` must be a whole number"),
        ({"sampling_rate": 0}, "`sampling_rate` must be a whole number"),
        ({"mean": 0.0, "std": 0.0}, "`std` must be above 0"),
        ({"mean": [0.0] * 64, "std": [1.0] * 63 + [0.0]}, "`std` must be above 0"),
        ({"mean": [0.0] * 3, "std": 1.0}, "one for each of 64 features"),
        *(({"mean": value, "std": 1.0}, "must be numbers") for value in (math.nan, "loud", [math.inf] * 64)),
        *(({"power_floor": value}, "must be numbers") for value in (0, math.nan, -1.0)),
        ({"max_frequency": math.nan}, "must be numbers"),
        ({"padding_value": math.nan}, "must be numbers"),
    ],
)
def test_settings_that_contradict_one_another_are_refused(settings, complaint):
    with pytest.raises(ValueError, match=complaint):
        MBTFeatureExtractor(**settings)


def test_a_missing_sampling_rate_is_warned_of():
    with CaptureLogger(feature_extraction_mbt.logger) as captured:
        MBTFeatureExtractor()(some_speech(8000))
    assert "Pass `sampling_rate`" in captured.out


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


@ALL
def test_a_saved_extractor_comes_back_with_every_setting(settings, tmp_path):
    extractor, clip = MBTFeatureExtractor(**settings), some_speech(8000)
    before = features_of(extractor, clip)
    extractor.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert saved["auto_map"] == {"AutoFeatureExtractor": "feature_extraction_mbt.MBTFeatureExtractor"}
    assert not any(isinstance(value, list) for value in saved.values())
    loaded = AutoFeatureExtractor.from_pretrained(tmp_path)
    assert type(loaded) is MBTFeatureExtractor
    assert loaded.to_dict() == extractor.to_dict()
    assert torch.equal(features_of(loaded, clip), before)


def run_python(code: str, directory: Path, **environment: str) -> str:
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(directory / "cache"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=directory, env=clean | offline | environment, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_checkpoint_carries_its_code_where_our_packages_are_not(tmp_path):
    extractor, clip = MBTFeatureExtractor(mean=-31.0, std=16.0), some_speech(8000)
    extractor.save_pretrained(tmp_path / "checkpoint")
    np.save(tmp_path / "clip.npy", clip)
    run_python(
        """
        import sys
        import numpy as np
        from transformers import AutoFeatureExtractor
        sys.modules["feature_extraction"] = sys.modules["modeling_mbt"] = None  # whoever imports them fails
        extractor = AutoFeatureExtractor.from_pretrained("checkpoint", trust_remote_code=True)
        assert type(extractor).__module__.startswith("transformers_modules."), type(extractor).__module__
        outputs = extractor(np.load("clip.npy"), sampling_rate=16000, return_tensors="np")
        np.save("features.npy", outputs["input_features"])
        extractor.save_pretrained("again")
        """,
        tmp_path,
    )
    np.testing.assert_array_equal(np.load(tmp_path / "features.npy"), features_of(extractor, clip).numpy())
    assert (tmp_path / "again" / "feature_extraction_mbt.py").exists()


@pytest.mark.slow
def test_importing_the_models_lets_auto_classes_open_the_extractor(tmp_path):
    MBTFeatureExtractor().save_pretrained(tmp_path / "checkpoint")
    printed = run_python(
        """
        import modeling_mbt
        from transformers import AutoFeatureExtractor
        print(type(AutoFeatureExtractor.from_pretrained("checkpoint")).__module__)
        """,
        tmp_path,
        PYTHONPATH=str(ROOT),
    )
    assert printed.strip() == "feature_extraction.feature_extraction_mbt"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@BOTH
def test_cpu_and_gpu_agree(settings):
    extractor, clips = MBTFeatureExtractor(**settings), [some_speech(n) for n in (16000, 9000)]
    on_gpu = features_of(extractor, *clips, device="cuda")
    assert on_gpu.is_cuda
    torch.testing.assert_close(on_gpu.cpu(), features_of(extractor, *clips), atol=1e-3, rtol=0)
