"""From waveforms to power spectra, from bins to mel bands: the signal's mathematics, without settings of their own.

Axes: B clips, S samples, T frames, F bins of the Fourier transform, M features (mel bands, or the bins that are kept).
Frame t is centered on sample t * hop_length.
"""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from transformers.audio_utils import mel_filter_bank

BANDS_PER_BLOCK = 16
SILENT_STD_DB = 1e-3  # a clip that varies less than this is silent


def power_spectrogram(waveforms: Tensor, n_fft: int, win_length: int, hop_length: int) -> Tensor:
    """Computes the squared magnitude of the centered short-time Fourier transform under a periodic Hann window.

    Waveforms (B, S) become (B, T, F), with T = 1 + S // hop_length and F = n_fft // 2 + 1. Zeros, not a reflection,
    stand on both sides of the samples: a clip has the same frames where its tensor ends and where zeros pad it.
    """
    return squared_parts(waveforms, n_fft, win_length, hop_length).unflatten(-1, (-1, 2)).sum(-1)


def squared_parts(waveforms: Tensor, n_fft: int, win_length: int, hop_length: int) -> Tensor:
    """Computes the squared real and imaginary part of each bin side by side, (B, T, 2 F): power before its sum."""
    window = torch.hann_window(win_length, dtype=waveforms.dtype, device=waveforms.device)
    spectrum = torch.stft(
        waveforms, n_fft, hop_length, win_length, window, center=True, pad_mode="constant", return_complex=True
    ).mT  # the order in memory
    return torch.view_as_real(spectrum).flatten(-2).square_()


def mel_filterbank(num_mels: int, n_fft: int, sampling_rate: int, min_hz: float, max_hz: float) -> np.ndarray:
    """Returns triangles of height 1, evenly spaced on the mel scale 2595 log10(1 + f / 700): (F, M) float64."""
    return mel_filter_bank(
        n_fft // 2 + 1, num_mels, float(min_hz), float(max_hz), sampling_rate, norm=None, mel_scale="htk"
    )


def normalize_clips(features: Tensor, mask: Tensor) -> Tensor:
    """Normalizes each clip of features (B, T, M) in dB to mean 0 and standard deviation 1; silence becomes 0.

    The mask (B, T) of booleans says which frames are the clip's own: they alone count, the others become 0.
    """
    mask = mask[..., None]
    count = mask.sum(1, keepdim=True) * features.shape[-1]
    mean = (features * mask).sum((1, 2), keepdim=True) / count
    centered = (features - mean).mul_(mask)
    std = (centered.square().sum((1, 2), keepdim=True) / count).sqrt()
    return centered.div_(std.clamp(min=SILENT_STD_DB))


@lru_cache(maxsize=16)
def mel_blocks(mel_arguments: tuple, device: torch.device) -> list[tuple[slice, Tensor]]:
    """Returns the filterbank in groups of neighboring bands, each with only the bins it reads: a quarter of it.

    Every weight stands twice, for the two parts of its bin, so that the product sums them on the way.
    """
    filterbank = torch.tensor(mel_filterbank(*mel_arguments), dtype=torch.float32, device=device)
    blocks = []
    for weights in filterbank.split(BANDS_PER_BLOCK, dim=1):
        used = weights.any(1).nonzero()
        first, end = int(used[0]), int(used[-1]) + 1
        blocks.append((slice(2 * first, 2 * end), weights[first:end].repeat_interleave(2, dim=0).contiguous()))
    return blocks
