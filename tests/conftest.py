"""Shared sounds and processes for the tests."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import pytest
import soundfile as sf

SAMPLING_RATE = 16_000


def chirp(seconds: float, hertz: float, seed: int) -> np.ndarray:
    """A wavering harmonic tone in a little noise: enough like a voice to be told from others, (S,) float32."""
    generator = np.random.default_rng(seed)
    time = np.arange(round(seconds * SAMPLING_RATE)) / SAMPLING_RATE
    phase = 2 * np.pi * hertz * (time + 0.01 * np.sin(2 * np.pi * generator.uniform(2, 5) * time))
    harmonics = sum(np.sin(k * phase) / k for k in range(1, 6))
    return (0.1 * harmonics + 0.005 * generator.standard_normal(time.size)).astype(np.float32)


@pytest.fixture(scope="session")
def speech_folder(tmp_path_factory):
    """Two classes of recordings in sub-folders, of mixed formats, rates, channels and lengths."""
    folder = tmp_path_factory.mktemp("speech")
    for label, hertz in (("low", 120.0), ("high", 310.0)):
        (folder / label).mkdir()
        for number in range(12):
            waveform = chirp(0.6 + 0.1 * (number % 5), hertz + 3 * number, number)
            extension = ("wav", "flac", "mp3", "ogg")[number % 4]
            if number % 3 == 0:
                waveform = np.stack([waveform, waveform], axis=1)
            sf.write(folder / label / f"{number:02d}.{extension}", waveform, SAMPLING_RATE)
    return folder
