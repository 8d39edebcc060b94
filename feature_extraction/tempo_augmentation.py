"""Distortions of a waveform's time axis: shift, speed, tempo, pitch.

Every distortion takes a batch of waveforms (B, S), their sampling rate in Hz and the generator of all its randomness,
draws its parameters for each clip, and returns (B, S); `shift` also takes the clips' lengths in samples, (B,). Bounds
are pairs [lowest, highest] of a uniform distribution.

Axes: B clips, S samples, T frames, F bins of the short-time Fourier transform.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .draws import uniform

Bounds = Sequence[float]

FRAME_SECONDS = 0.032
FRAMES_PER_WINDOW = 4
OVERSAMPLING = 2


def shift(
    waveforms: Tensor,
    sampling_rate: int,
    generator: torch.Generator,
    lengths: Tensor | None = None,
    *,
    fraction: Bounds = (-0.5, 0.5),
) -> Tensor:
    """Turns each clip round in time by a fraction of its length: what leaves at one end returns at the other."""
    num_clips, num_samples = waveforms.shape
    lengths = torch.full((num_clips,), num_samples, device=waveforms.device) if lengths is None else lengths
    steps = (uniform(fraction, (num_clips, 1), waveforms, generator) * lengths[:, None]).long()
    places = torch.arange(num_samples, device=waveforms.device)
    return waveforms.gather(1, torch.where(places < lengths[:, None], (places - steps) % lengths[:, None], places))


def speed(waveforms: Tensor, sampling_rate: int, generator: torch.Generator, *, rate: Bounds = (0.9, 1.1)) -> Tensor:
    """Plays each clip faster or slower, which shifts its pitch and formants too; silence follows a clip that ends."""
    rates = uniform(rate, (len(waveforms), 1), waveforms, generator)
    return _resample(waveforms, rates, waveforms.shape[1])


def time_stretch(
    waveforms: Tensor, sampling_rate: int, generator: torch.Generator, *, rate: Bounds = (0.8, 1.25)
) -> Tensor:
    """Plays each clip faster or slower at its own pitch; silence follows a clip that ends."""
    rates = uniform(rate, (len(waveforms), 1), waveforms, generator)
    return _phase_vocoder(waveforms, rates, sampling_rate, waveforms.shape[1])


def pitch_shift(
    waveforms: Tensor, sampling_rate: int, generator: torch.Generator, *, semitones: Bounds = (-4, 4)
) -> Tensor:
    """Raises or lowers each clip by so many semitones at its own tempo: stretched in time, then played faster."""
    num_samples = waveforms.shape[1]
    ratios = 2 ** (uniform(semitones, (len(waveforms), 1), waveforms, generator) / 12)
    longest = math.ceil(num_samples * 2 ** (max(semitones) / 12))
    return _resample(_phase_vocoder(waveforms, 1 / ratios, sampling_rate, longest), ratios, num_samples)


def _resample(waveforms: Tensor, rates: Tensor, num_samples: int) -> Tensor:
    """Reads each clip at the positions n * rate, n = 0 ... num_samples - 1, and zeros past its end.

    A Fourier transform removes what would alias and doubles the sampling rate; the cubic of Catmull and Rom (1974) is
    close to exact between samples that dense.
    """
    length = 2 ** math.ceil(math.log2(waveforms.shape[1] + 1))  # at least one zero, so that the end does not wrap
    spectrum = torch.fft.rfft(waveforms, length)
    bins = torch.arange(spectrum.shape[1], device=waveforms.device)
    spectrum *= bins * rates.clamp(min=1) <= length / 2
    spectrum[:, -1] /= 2  # the last bin stands once in a real spectrum, but twice once the spectrum goes on
    dense = torch.fft.irfft(spectrum, OVERSAMPLING * length) * OVERSAMPLING
    dense[:, OVERSAMPLING * waveforms.shape[1] :] = 0

    positions = torch.arange(num_samples, dtype=torch.float64, device=waveforms.device) * rates.double() * OVERSAMPLING
    left = positions.floor()
    offset = (positions - left).to(waveforms.dtype)
    before, here, after, beyond = (
        dense.gather(1, (left.long() + step).clamp(0, dense.shape[1] - 1)) for step in (-1, 0, 1, 2)
    )
    slope_here, slope_after = (after - before) / 2, (beyond - here) / 2
    curve = 3 * (after - here) - 2 * slope_here - slope_after
    bend = 2 * (here - after) + slope_here + slope_after
    return here + offset * (slope_here + offset * (curve + offset * bend))


def _phase_vocoder(waveforms: Tensor, rates: Tensor, sampling_rate: int, num_samples: int) -> Tensor:
    """Clips of num_samples that run `rates` (B, 1) times as fast at their own pitch (Flanagan and Golden, 1966).

    Magnitudes are read between frames; phases advance from frame to frame as they do in the clip.
    """
    n_fft = 2 ** round(math.log2(FRAME_SECONDS * sampling_rate))
    hop_length = n_fft // FRAMES_PER_WINDOW
    window = torch.hann_window(n_fft, dtype=waveforms.dtype, device=waveforms.device)
    spectrum = torch.stft(waveforms, n_fft, hop_length, window=window, pad_mode="constant", return_complex=True).mT
    last = spectrum.shape[1] - 1

    positions = torch.arange(num_samples // hop_length + 1, device=waveforms.device) * rates  # (B, T)
    left = positions.long()
    clips = torch.arange(len(waveforms), device=waveforms.device)[:, None]
    here, after = (clips, left.clamp(max=last)), (clips, (left + 1).clamp(max=last))
    magnitude, phase = spectrum.abs(), spectrum.angle()
    magnitude = torch.lerp(magnitude[here], magnitude[after], (positions - left)[..., None])
    magnitude = magnitude * (positions <= last)[..., None]
    advance = phase[after] - phase[here]
    phase = torch.cat([phase[:, :1], advance[:, :-1]], dim=1).cumsum(1)
    return torch.istft(torch.polar(magnitude, phase).mT, n_fft, hop_length, window=window, length=num_samples)
