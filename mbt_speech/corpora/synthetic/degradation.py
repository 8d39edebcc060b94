"""What stands between a speaker's mouth and the recording: room, microphone, noise or other voices, level.

Everything linear happens in one pass through the frequency domain, the change of sampling rate included: a spectrum
over P seconds has bins 1/P Hz apart at any rate, so that keeping the bins up to 8 kHz resamples to 16 kHz exactly.

Axes: samples of one clip; bins of its spectrum.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

SAMPLING_RATE = 16_000
SNR_DB = (3.0, 30.0)
LEVEL_DBFS = (-35.0, -18.0)
TAIL_SECONDS = 0.5


@dataclass(frozen=True)
class Room:
    """A place with its recording device: what every take made there has in common."""

    reverberation_seconds: float
    direct_to_reverberant_db: float
    first_reflection_seconds: float
    microphone_hz: np.ndarray
    microphone_db: np.ndarray
    noise_slope: float


def draw_room(rng: np.random.Generator) -> Room:
    """Draws a room (RT60 of 0.1-0.8 s) and a microphone (uneven, cut below 50-300 Hz and above 3-9 kHz)."""
    anchors_hz = np.geomspace(50, 8000, 16)
    response_db = np.cumsum(rng.normal(0, 2.5, anchors_hz.size))
    response_db -= response_db.mean()
    low_cut_hz, high_cut_hz = rng.uniform(50, 300), np.exp(rng.uniform(np.log(3000), np.log(9000)))
    low_cut_db = 10 * np.log10(1 + (low_cut_hz / anchors_hz) ** 4)
    high_cut_db = 10 * np.log10(1 + (anchors_hz / high_cut_hz) ** 12)
    response_db -= low_cut_db + high_cut_db
    return Room(
        reverberation_seconds=np.exp(rng.uniform(np.log(0.1), np.log(0.8))),
        direct_to_reverberant_db=rng.uniform(-2, 15),
        first_reflection_seconds=rng.uniform(0.002, 0.015),
        microphone_hz=anchors_hz,
        microphone_db=response_db,
        noise_slope=rng.uniform(0, 2),
    )


def record(
    speech: np.ndarray,
    speech_rate: int,
    num_samples: int,
    room: Room,
    crowd: np.ndarray,
    effort_db: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Records clean speech in a room.

    Args:
        speech: (samples,) float32, already at its place in the clip, zero where nobody speaks.
        speech_rate: its sampling rate in Hz; half a second must be a whole number of samples.
        num_samples: length of the recording, in samples at 16 kHz.
        room: where it is recorded.
        crowd: (voices, samples) int16 at 16 kHz, clean speech of the people who babble in the background.
        effort_db: how much louder than usual the speaker speaks.
        rng: draws what differs between takes: position in the room, noise, distance.

    Returns:
        (num_samples,) int16 at 16 kHz.
    """
    half_seconds = int(np.ceil((num_samples / SAMPLING_RATE + TAIL_SECONDS) * 2))
    period = half_seconds * (SAMPLING_RATE // 2)
    log_hz = _log_frequencies(period)
    voice = np.fft.rfft(speech, half_seconds * (speech_rate // 2))[: log_hz.size]
    voice *= np.fft.rfft(room_impulse_response(room, rng), period)
    noise = babble(crowd, period, rng) if rng.random() < 0.5 else colored_noise(room.noise_slope, log_hz, rng)
    microphone = microphone_response(room, log_hz)
    voice *= microphone
    noise *= microphone

    spoken_share = np.count_nonzero(speech) / speech_rate * SAMPLING_RATE / period
    snr_db = np.clip(rng.uniform(*SNR_DB) + effort_db, *SNR_DB)
    noise *= np.sqrt(_energy(voice) / spoken_share / _energy(noise) / 10 ** (snr_db / 10))
    mixture = np.fft.irfft(voice + noise, period)[:num_samples]
    return to_level(mixture, rng.uniform(*LEVEL_DBFS) + effort_db)


def resample(speech: np.ndarray, speech_rate: int, num_samples: int) -> np.ndarray:
    """Brings clean float speech to 16 kHz; returns (num_samples,) int16 with its peak at half of full scale."""
    half_seconds = int(np.ceil(speech.size / speech_rate * 2)) + 1
    period = half_seconds * (SAMPLING_RATE // 2)
    spectrum = np.fft.rfft(speech, half_seconds * (speech_rate // 2))[: period // 2 + 1]
    samples = np.fft.irfft(spectrum, period)[:num_samples]
    return np.round(samples * (0.5 * 32767 / np.max(np.abs(samples)))).astype(np.int16)


def microphone_response(room: Room, log_hz: np.ndarray) -> np.ndarray:
    """Interpolates the microphone's response over log frequency; returns (bins,) float32 gains."""
    response_db = np.interp(log_hz, np.log(room.microphone_hz), room.microphone_db).astype(np.float32)
    return 10 ** (response_db / 20)


def room_impulse_response(room: Room, rng: np.random.Generator) -> np.ndarray:
    """Draws an impulse response: the direct sound, six early reflections and an exponentially decaying tail.

    The tail is white noise under the envelope exp(-6.9 t / RT60) (Polack's model of diffuse reverberation); each draw
    is another position in the same room.

    Returns:
        (0.5 s * 16 kHz,) float32 with the direct sound, of amplitude 1, at sample 0.
    """
    seconds = np.arange(int(TAIL_SECONDS * SAMPLING_RATE), dtype=np.float32) / SAMPLING_RATE
    decay = np.exp(-6.9 * seconds / room.reverberation_seconds)
    response = rng.standard_normal(seconds.size, dtype=np.float32) * decay
    response[: int(room.first_reflection_seconds * SAMPLING_RATE)] = 0
    early_seconds = room.first_reflection_seconds + rng.exponential(0.012, 6)
    early = (early_seconds * SAMPLING_RATE).astype(int)
    response[early] += rng.normal(0, 4, 6) * decay[early]
    direct_to_reverberant_db = room.direct_to_reverberant_db + rng.normal(0, 2)
    response *= np.sqrt(10 ** (-direct_to_reverberant_db / 10) / np.sum(np.square(response)))
    response[0] = 1
    return response.astype(np.float32)


def colored_noise(slope: float, log_hz: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draws the spectrum of noise whose power falls as 1 / f^slope (0 white, 1 pink, 2 brown)."""
    white = rng.standard_normal((log_hz.size, 2), dtype=np.float32).view(np.complex64)[:, 0]
    return white * np.exp(np.float32(-slope / 2) * log_hz)


def babble(crowd: np.ndarray, num_samples: int, rng: np.random.Generator) -> np.ndarray:
    """Draws the spectrum of three to eight voices at once, each from a random moment of what the crowd says."""
    num_voices = rng.integers(3, 9)
    voices = rng.integers(len(crowd), size=num_voices)
    starts = rng.integers(crowd.shape[1] - num_samples, size=num_voices)
    gains = 10 ** (rng.uniform(-6, 0, num_voices) / 20)
    mixture = np.zeros(num_samples, dtype=np.float32)
    for voice, start, gain in zip(voices, starts, gains, strict=True):
        mixture += np.float32(gain) * crowd[voice, start : start + num_samples]
    return np.fft.rfft(mixture)


def to_level(waveform: np.ndarray, level_dbfs: float) -> np.ndarray:
    """Scales to a root mean square of `level_dbfs` below full scale, or less where that would clip; returns int16."""
    gain = 10 ** (level_dbfs / 20) / np.sqrt(np.mean(np.square(waveform)))
    gain = min(gain, 0.98 / np.max(np.abs(waveform)))
    return np.round(waveform * (gain * 32767)).astype(np.int16)


@lru_cache
def _log_frequencies(period: int) -> np.ndarray:
    """Returns the log of each bin's frequency in Hz, (period // 2 + 1,) float32, never below that of 50 Hz."""
    return np.log(np.maximum(np.fft.rfftfreq(period, 1 / SAMPLING_RATE), 50)).astype(np.float32)


def _energy(spectrum: np.ndarray) -> np.floating:
    return np.sum(np.square(np.abs(spectrum)))
