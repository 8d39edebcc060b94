"""Settings of the extractor, something to hear, and its features by their definition."""

from typing import Any

import numpy as np
import pytest
import torch

from feature_extraction import MBTFeatureExtractor

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
