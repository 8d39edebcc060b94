"""Sounds in the formats of files, and what is said of bad ones. Axes: T frames, C channels."""

import io
import types

import numpy as np
import pytest
import soundfile
import torch

from feature_extraction.speech import BadAudioError, to_waveform

RATE = 16_000
FORMATS = {  # name: (suffix, libsndfile's format, subtype, the largest error of the round trip)
    "int16": ("wav", "WAV", "PCM_16", 2**-15),
    "int24": ("wav", "WAV", "PCM_24", 2**-23),
    "uint8": ("wav", "WAV", "PCM_U8", 2**-6),
    "float32": ("wav", "WAV", "FLOAT", 0),
    "float64": ("wav", "WAV", "DOUBLE", 0),
    "flac": ("flac", "FLAC", "PCM_16", 2**-15),
    "mp3": ("mp3", "MP3", "MPEG_LAYER_III", 0.1),
    "vorbis": ("ogg", "OGG", "VORBIS", 0.1),
    "opus": ("opus", "OGG", "OPUS", 0.2),
    "aiff": ("aiff", "AIFF", "PCM_16", 2**-15),
    "au": ("au", "AU", "PCM_16", 2**-15),
}


def voice_like(seconds: float = 2.0, rate: int = RATE) -> np.ndarray:
    """Returns a harmonic tone whose pitch and loudness move, float32 (T,), below 0.6."""
    time = np.arange(round(seconds * rate)) / rate
    phase = 2 * np.pi * (140 * time + 3 * np.sin(2 * np.pi * time))
    tone = sum(np.sin(harmonic * phase) / harmonic for harmonic in range(1, 12))
    return (0.25 * tone * (0.6 + 0.4 * np.sin(5 * time))).astype(np.float32)


def encoded(samples: np.ndarray, rate: int = RATE, file_format: str = "WAV", subtype: str | None = None) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=file_format, subtype=subtype)
    return file.getvalue()


def encoded_as(name: str, samples: np.ndarray, rate: int = RATE) -> bytes:
    return encoded(samples, rate, FORMATS[name][1], FORMATS[name][2])


class FakeDecoder:
    """What torchcodec's AudioDecoder offers of its interface, over samples (C, T)."""

    def __init__(self, samples: np.ndarray, rate: int):
        self._samples, self._rate = torch.from_numpy(np.atleast_2d(samples)), rate
        self.metadata = types.SimpleNamespace(duration_seconds=self._samples.shape[1] / rate, sample_rate=rate)

    def get_samples_played_in_range(self, start_seconds: float, stop_seconds: float) -> types.SimpleNamespace:
        first, last = round(start_seconds * self._rate), round(stop_seconds * self._rate)
        return types.SimpleNamespace(data=self._samples[:, first:last], sample_rate=self._rate)


def bad(audio, *, of=to_waveform, **kwargs) -> BadAudioError:
    with pytest.raises(BadAudioError) as caught:
        of(audio, **kwargs)
    return caught.value
