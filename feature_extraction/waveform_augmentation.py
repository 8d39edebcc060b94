"""Distortions of waveforms: level, noise, room, channel.

Every distortion takes a batch of waveforms (B, S), their sampling rate in Hz and the generator of all its randomness,
draws its parameters for each clip, and returns (B, S); noises also take the clips' lengths in samples, (B,). Bounds
are pairs [lowest, highest] of a uniform distribution.

Axes: B clips, S samples, F bins of a Fourier transform of the whole clip, K knots of a curve over frequency.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .draws import normal, other_clips, uniform

Bounds = Sequence[float]

FLAT_BELOW_HZ = 100.0  # colored noise would otherwise spend its power below the speech
NEPERS_PER_60_DB = 3 * math.log(10)
FILTER_ORDER = 8


def gain(waveforms: Tensor, sampling_rate: int, generator: torch.Generator, *, db: Bounds = (-10, 10)) -> Tensor:
    """Scales each clip to be louder or softer, by so many dB."""
    return waveforms * 10 ** (_per_clip(db, waveforms, generator) / 20)


def polarity(waveforms: Tensor, sampling_rate: int, generator: torch.Generator) -> Tensor:
    """Turns each clip upside down; the probability `p` decides which."""
    return -waveforms


def gaussian_noise(
    waveforms: Tensor, sampling_rate: int, generator: torch.Generator, *, amplitude: Bounds = (0.001, 0.015)
) -> Tensor:
    """Adds white noise of a standard deviation that does not depend on the clip's level."""
    return waveforms + _per_clip(amplitude, waveforms, generator) * normal(waveforms.shape, waveforms, generator)


def noise(
    waveforms: Tensor,
    sampling_rate: int,
    generator: torch.Generator,
    lengths: Tensor | None = None,
    *,
    snr_db: Bounds = (5, 30),
    exponent: Bounds = (0, 2),
) -> Tensor:
    """Adds noise with a power spectrum of 1 / f^exponent (0 white, 2 brown) at a signal-to-noise ratio in dB."""
    num_samples = waveforms.shape[1]
    frequencies = _frequencies(waveforms, sampling_rate).clamp(min=FLAT_BELOW_HZ)
    color = frequencies ** (-_per_clip(exponent, waveforms, generator) / 2)
    spectrum = torch.view_as_complex(normal((*color.shape, 2), waveforms, generator)).mul_(color)
    noises = torch.fft.irfft(spectrum, _fft_length(num_samples))[:, :num_samples]
    return add_at_snr(waveforms, noises, snr_db, generator, lengths)


def babble(
    waveforms: Tensor,
    sampling_rate: int,
    generator: torch.Generator,
    lengths: Tensor | None = None,
    *,
    snr_db: Bounds = (5, 20),
    num_voices: int = 3,
) -> Tensor:
    """Adds so many other clips of the batch at a signal-to-noise ratio in dB; a batch of one clip stays as it is."""
    if len(waveforms) == 1:
        return waveforms
    voices = torch.stack([other_clips(waveforms, generator) for _ in range(num_voices)])
    return add_at_snr(waveforms, _at_unit_power(waveforms)[voices].sum(0), snr_db, generator, lengths)


def reverberation(
    waveforms: Tensor,
    sampling_rate: int,
    generator: torch.Generator,
    *,
    rt60_seconds: Bounds = (0.1, 0.6),
    direct_to_reverberant_db: Bounds = (0, 15),
) -> Tensor:
    """Adds the sound of a room: exponentially decaying Gaussian noise as impulse response (Polack, 1988).

    `rt60_seconds` is the time after which the room is 60 dB softer; the direct sound stays in place.
    """
    num_samples = waveforms.shape[1]
    tail_length = min(math.ceil(max(rt60_seconds) * sampling_rate), num_samples)
    seconds = torch.arange(1, tail_length + 1, dtype=waveforms.dtype, device=waveforms.device) / sampling_rate
    decay = torch.exp(-NEPERS_PER_60_DB * seconds / _per_clip(rt60_seconds, waveforms, generator))
    tail = decay * normal(decay.shape, waveforms, generator)
    tail *= 10 ** (-_per_clip(direct_to_reverberant_db, waveforms, generator) / 20) / tail.norm(dim=1, keepdim=True)
    return convolve(waveforms, torch.nn.functional.pad(tail, (1, 0))) + waveforms


def equalizer(
    waveforms: Tensor, sampling_rate: int, generator: torch.Generator, *, db: float = 10.0, num_knots: int = 8
) -> Tensor:
    """Filters with a random smooth curve within +-db: straight lines between knots evenly spaced on the mel scale."""
    curve_db = uniform((-db, db), (len(waveforms), num_knots), waveforms, generator)
    mel = torch.log1p(_frequencies(waveforms, sampling_rate) / 700)
    knots = torch.arange(num_knots, dtype=mel.dtype, device=mel.device)
    nearness = (1 - (mel / mel[-1] * (num_knots - 1) - knots[:, None]).abs()).clamp(min=0)  # (K, F)
    return _filter(waveforms, 10 ** (curve_db @ nearness / 20))


def band_limit(
    waveforms: Tensor,
    sampling_rate: int,
    generator: torch.Generator,
    *,
    low_hz: Bounds = (0, 300),
    high_hz: Bounds = (3000, 8000),
) -> Tensor:
    """Passes what lies between two frequencies, each drawn from its bounds; Butterworth edges, zero phase."""
    frequencies = _frequencies(waveforms, sampling_rate)
    below = _per_clip(low_hz, waveforms, generator) / frequencies.clamp(min=1e-3)
    above = frequencies / _per_clip(high_hz, waveforms, generator)
    return _filter(waveforms, ((1 + below ** (2 * FILTER_ORDER)) * (1 + above ** (2 * FILTER_ORDER))).rsqrt())


def add_at_snr(
    waveforms: Tensor, noises: Tensor, snr_db: Bounds, generator: torch.Generator, lengths: Tensor | None = None
) -> Tensor:
    """Adds noises (B, S) of any level at signal-to-noise ratios in dB; to silence they add nothing.

    The level of a clip is that of its own samples, `lengths` (B,) of them, behind which there are zeros.
    """
    power = waveforms.square().mean(1, keepdim=True)
    if lengths is not None:
        power = power * (waveforms.shape[1] / lengths[:, None])
    return waveforms + power.sqrt() * 10 ** (-_per_clip(snr_db, waveforms, generator) / 20) * _at_unit_power(noises)


def convolve(waveforms: Tensor, impulse_responses: Tensor) -> Tensor:
    """Returns the first S samples of each clip's convolution with its own impulse response."""
    num_samples = waveforms.shape[1]
    length = _fft_length(num_samples + impulse_responses.shape[1] - 1)
    spectrum = torch.fft.rfft(waveforms, length).mul_(torch.fft.rfft(impulse_responses, length))
    return torch.fft.irfft(spectrum, length)[:, :num_samples]


def _per_clip(bounds: Bounds, waveforms: Tensor, generator: torch.Generator) -> Tensor:
    return uniform(bounds, (len(waveforms), 1), waveforms, generator)


def _fft_length(num_samples: int) -> int:
    """Returns the next product of small primes, for which the transform is fast."""
    return min(odd * 2 ** math.ceil(math.log2(num_samples / odd)) for odd in (1, 3, 5, 9, 15, 25, 27))


def _frequencies(waveforms: Tensor, sampling_rate: int) -> Tensor:
    """Returns (F,) in Hz."""
    return torch.fft.rfftfreq(
        _fft_length(waveforms.shape[1]), 1 / sampling_rate, dtype=waveforms.dtype, device=waveforms.device
    )


def _filter(waveforms: Tensor, response: Tensor) -> Tensor:
    """Multiplies the spectra by real responses (B, F)."""
    num_samples = waveforms.shape[1]
    length = _fft_length(num_samples)
    return torch.fft.irfft(torch.fft.rfft(waveforms, length).mul_(response), length)[:, :num_samples]


def _at_unit_power(waveforms: Tensor) -> Tensor:
    """Scales each clip to a mean square of 1; silence stays silent."""
    return waveforms * waveforms.square().mean(1, keepdim=True).clamp(min=1e-20).rsqrt()
