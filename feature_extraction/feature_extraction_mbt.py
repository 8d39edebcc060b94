"""Waveforms to log-power features, mel or linear: batched, masked, on any device.

The signal's mathematics are the pure functions of `spectrogram_mbt`; `MBTFeatureExtractor` holds their numbers and
speaks the language of transformers' audio feature extractors.

Axes: B clips, S samples, T frames, F bins of the Fourier transform, M features (mel bands, or the bins that are kept).
Frame t is centered on sample t * hop_length, so a clip of `length` samples has 1 + length // hop_length frames.
"""

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import BatchFeature, SequenceFeatureExtractor
from transformers.utils import logging

from .spectrogram_mbt import mel_blocks, mel_filterbank, normalize_clips, power_spectrogram, squared_parts

logger = logging.get_logger(__name__)

# Whole numbers that a setting may be.
BOUNDS = {"feature_size": (1, 4_096), "sampling_rate": (1_000, 192_000), "hop_length": (1, 65_536),
          "win_length": (2, 65_536), "n_fft": (2, 65_536)}  # fmt: skip
PASS_SAMPLES = 'pass those of `audio["array"]`, or of `to_waveform(path)`.'
PADDINGS = (True, False, "longest", "max_length", "do_not_pad")
MIN_VARIANCE = 1e-6  # of all features of a data set, in dB squared
SAMPLES_PER_CHUNK = 1 << 18  # on a CPU: what stays in the cache, and in memory that need not be asked for each time

RawClip = Sequence[float] | np.ndarray | Tensor


class MBTFeatureExtractor(SequenceFeatureExtractor):
    """Turns waveforms into the features of an MBT model: (B, T, M) log-mels, or linear log-power spectra.

    Features are in dB, then normalized: by `mean` and `std` where these are given (statistics of a data set), else
    each clip by its own. A clip has the same features alone and in a batch of longer ones. Settings that contradict
    one another raise a ValueError.

    Args:
        feature_size: M, the number of mel bands, or of Fourier bins from `min_frequency` to `max_frequency`.
        sampling_rate: in Hz.
        hop_length: distance between frames in samples.
        win_length: length of the Hann window in samples.
        n_fft: length of the Fourier transform in samples, even, at least `win_length`.
        frequency_scale: "mel" or "linear".
        min_frequency: lowest frequency in Hz.
        max_frequency: highest frequency in Hz, at most half the sampling rate.
        power_floor: power below which everything is silence; the default lies at the noise of 16-bit samples.
        padding_value: value of the frames past a clip's end.
        do_normalize: whether to normalize at all.
        mean: mean of the data set's features in dB: one number, or one for each of the M features.
        std: standard deviation of the data set's features in dB, likewise.
        **kwargs: what `transformers.SequenceFeatureExtractor` keeps, such as `return_attention_mask`.
    """

    model_input_names = ["input_features", "attention_mask"]  # noqa: RUF012 (transformers declares it so)

    def __init__(
        self,
        feature_size: int = 64,
        sampling_rate: int = 16000,
        hop_length: int = 160,
        win_length: int = 400,
        n_fft: int = 512,
        frequency_scale: str = "mel",
        min_frequency: float = 60.0,
        max_frequency: float = 7800.0,
        power_floor: float = 1e-8,
        padding_value: float = 0.0,
        do_normalize: bool = True,
        mean: float | list[float] | None = None,
        std: float | list[float] | None = None,
        **kwargs,
    ):
        super().__init__(feature_size, sampling_rate, padding_value, **kwargs)
        self.hop_length, self.win_length, self.n_fft = hop_length, win_length, n_fft
        self.frequency_scale, self.min_frequency, self.max_frequency = frequency_scale, min_frequency, max_frequency
        self.power_floor, self.do_normalize = power_floor, do_normalize
        self.mean, self.std = (None if one is None else np.asarray(one).tolist() for one in (mean, std))
        self._check_bounds()
        self._check_settings()

    def __call__(
        self,
        raw_speech: RawClip | Sequence[RawClip],
        sampling_rate: int | None = None,
        padding: bool | str = True,
        max_length: int | None = None,
        truncation: bool = False,
        pad_to_multiple_of: int | None = None,
        return_attention_mask: bool | None = None,
        return_tensors: str | None = None,
        device: str | torch.device = "cpu",
    ) -> BatchFeature:
        """Features of one clip or of a batch of clips.

        Args:
            raw_speech: floats in [-1, 1]: one clip as a list, array or tensor (S,), or a batch of clips as a list of
                these or as one array or tensor (B, S).
            sampling_rate: the clips' rate in Hz, checked against the extractor's.
            padding: True or "longest" pads to the longest clip, "max_length" to `max_length`; False or "do_not_pad"
                returns each clip with its own number of frames.
            max_length: in samples.
            truncation: whether to cut clips to `max_length`.
            pad_to_multiple_of: rounds the padded length up to a multiple of so many samples.
            return_attention_mask: whether to return the mask; by default the extractor's own setting.
            return_tensors: "pt" for tensors, which stay on `device`, "np" for arrays, None for lists of arrays.
            device: where to compute.

        Returns:
            `input_features` (B, T, M) float32 and `attention_mask` (B, T) int64, 1 for a clip's own frames.

        Raises:
            ValueError: for another sampling rate, an unknown `padding`, and for clips that are empty, shorter than a
                window, of several channels, not of floats, or that hold NaN or infinity.
        """
        self._check_sampling_rate(sampling_rate)
        clips = [self._as_clip(clip, index) for index, clip in enumerate(_as_batch(raw_speech))]
        if padding not in PADDINGS:
            raise ValueError(f"`padding` is one of {', '.join(map(repr, PADDINGS))}, not {padding!r}.")
        if (truncation or padding == "max_length") and max_length is None:
            raise ValueError("Truncation and padding='max_length' need `max_length`: say how many samples.")
        if max_length is not None and (not isinstance(max_length, int | np.integer) or max_length < self.win_length):
            raise ValueError(f"`max_length` must be at least a window of {self.win_length} samples, not {max_length}.")
        if not isinstance(multiple := pad_to_multiple_of or 1, int | np.integer) or multiple < 1:
            raise ValueError(f"`pad_to_multiple_of` must be a whole number of samples, not {multiple!r}.")
        if truncation:
            clips = [clip[:max_length] for clip in clips]
        waveforms = _pad(clips, max_length if padding == "max_length" and max_length else 0, multiple, device)
        if len(unusable := (~waveforms.sum(1).isfinite()).nonzero()):
            raise ValueError(f"Clip {int(unusable[0])} holds NaN or infinity: repair the recording or leave it out.")
        lengths = torch.tensor([len(clip) for clip in clips], device=device)
        features, mask = self.extract(waveforms, None if (lengths == waveforms.shape[1]).all() else lengths)
        outputs: dict[str, Any] = {"input_features": self.normalize(features, mask)}
        if self.return_attention_mask if return_attention_mask is None else return_attention_mask:
            outputs["attention_mask"] = mask
        if padding in (False, "do_not_pad"):
            ends = mask.sum(1).tolist()
            outputs = {name: [x[:end] for x, end in zip(xs, ends, strict=True)] for name, xs in outputs.items()}
        return _package(outputs, return_tensors)

    @torch.no_grad()
    def extract(self, waveforms: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Features in dB, not yet normalized, on the waveforms' device; nothing is checked.

        Args:
            waveforms: (B, S), padded at the end; what stands past `lengths` is ignored.
            lengths: (B,) samples in each clip; all of S by default.

        Returns:
            features (B, T, M) float32, at the floor past a clip's end, and mask (B, T) int64.
        """
        if lengths is not None:
            samples = torch.arange(waveforms.shape[1], device=waveforms.device)
            waveforms = waveforms.masked_fill(samples >= lengths[:, None], 0)
        num_clips, num_samples = waveforms.shape
        chunk = max(1, SAMPLES_PER_CHUNK // num_samples) if waveforms.device.type == "cpu" else num_clips
        with torch.autocast(waveforms.device.type, enabled=False):
            features = torch.cat([self._decibels(clips) for clips in waveforms.float().split(chunk)])
        if lengths is None:
            return features, torch.ones(features.shape[:2], dtype=torch.long, device=features.device)
        mask = torch.arange(features.shape[1], device=features.device) <= (lengths // self.hop_length)[:, None]
        return features.masked_fill_(~mask[..., None], 10 * math.log10(self.power_floor)), mask.long()

    @torch.no_grad()
    def normalize(self, features: Tensor, mask: Tensor) -> Tensor:
        """Features (B, T, M) in dB as the model reads them: normalized, `padding_value` where mask (B, T) is 0."""
        mask = mask.bool()
        if self.do_normalize and self.mean is None:
            features = normalize_clips(features, mask)
        elif self.do_normalize:
            features = (features - features.new_tensor(self.mean)) / features.new_tensor(self.std)
        return features.masked_fill(~mask[..., None], self.padding_value)

    def fit(self, batches: Iterable[tuple[Tensor, Tensor | None]]) -> "MBTFeatureExtractor":
        """Sets `mean` and `std` to those of a data set: batches of waveforms (B, S) and lengths (B,) or None.

        Raises:
            ValueError: There is no batch, or all features are the same, as of silence.
        """
        sums = torch.zeros(3, dtype=torch.float64, device="cpu")
        for waveforms, lengths in batches:
            features, mask = self.extract(waveforms, lengths)
            own = features[mask.bool()].double().cpu()
            sums += torch.stack([torch.ones_like(own).sum(), own.sum(), own.square().sum()])
        _, mean, mean_square = (sums / sums[0].clamp(min=1)).tolist()
        if mean_square - mean**2 < MIN_VARIANCE:
            raise ValueError("Mean and deviation cannot be taken of no recordings, or of silence alone.")
        self.mean, self.std = mean, math.sqrt(mean_square - mean**2)
        return self

    def _decibels(self, waveforms: Tensor) -> Tensor:
        """Computes (B, T, M) of (B, S)."""
        if self.frequency_scale == "linear":
            power = power_spectrogram(waveforms, self.n_fft, self.win_length, self.hop_length)[..., self.kept_bins()]
        else:
            parts = squared_parts(waveforms, self.n_fft, self.win_length, self.hop_length)
            blocks = mel_blocks(self._mel_arguments(), parts.device)
            power = torch.cat([parts[..., bins] @ weights for bins, weights in blocks], dim=-1)
        return power.clamp_(min=self.power_floor).log10_().mul_(10)

    def kept_bins(self) -> slice:
        """Returns which Fourier bins a linear frequency scale keeps."""
        hz_per_bin = self.sampling_rate / self.n_fft
        return slice(math.ceil(self.min_frequency / hz_per_bin), math.floor(self.max_frequency / hz_per_bin) + 1)

    def _mel_arguments(self) -> tuple:
        return self.feature_size, self.n_fft, self.sampling_rate, self.min_frequency, self.max_frequency

    def _check_bounds(self):
        """Refuses what no sound needs, from a file that somebody else wrote, before memory is asked for."""
        for name, (least, most) in BOUNDS.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
                raise ValueError(f"`{name}` must be a whole number from {least} to {most} and is {value!r}.")
        statistics = [np.ravel(one).tolist() for one in (self.mean, self.std) if one is not None]
        numbers = [self.min_frequency, self.max_frequency, self.power_floor, self.padding_value]
        numbers += chain.from_iterable(statistics)
        if not all(isinstance(one, int | float) and math.isfinite(one) for one in numbers) or self.power_floor <= 0:
            raise ValueError(
                "Frequencies, `power_floor` (above 0), `padding_value`, `mean` and `std` must be numbers."
            )
        if any(len(values) not in (1, self.feature_size) for values in statistics):
            raise ValueError(f"`mean` and `std` need one number, or one for each of {self.feature_size} features.")
        if self.std is not None and np.min(self.std) <= 0:
            raise ValueError("`std` must be above 0: features that never vary cannot be normalized.")

    def _check_settings(self):
        low, high, nyquist = self.min_frequency, self.max_frequency, self.sampling_rate / 2
        if self.frequency_scale not in ("mel", "linear"):
            raise ValueError(f"`frequency_scale` is 'mel' or 'linear', not {self.frequency_scale!r}.")
        if self.n_fft % 2 or self.n_fft < self.win_length:
            raise ValueError(f"`n_fft` must be even and at least `win_length` = {self.win_length}, not {self.n_fft}.")
        if not 0 <= low < high <= nyquist:
            raise ValueError(f"Frequencies lie between 0 and {nyquist:g} Hz: {low:g} to {high:g} Hz is no such range.")
        if (self.mean is None) != (self.std is None):
            raise ValueError("Give both `mean` and `std`, or neither to normalize each clip by itself.")
        if self.padding_side != "right":
            raise ValueError("Clips are padded at their end: leave `padding_side` at 'right'.")
        num_bins = self.kept_bins().stop - self.kept_bins().start
        if self.frequency_scale == "mel" and self._has_empty_bands():
            raise ValueError("Some mel bands lie between two Fourier bins: lower `feature_size` or raise `n_fft`.")
        if self.frequency_scale == "linear" and self.feature_size != num_bins:
            raise ValueError(f"Set `feature_size` to {num_bins}, the Fourier bins from {low:g} to {high:g} Hz.")

    def _has_empty_bands(self) -> bool:
        with warnings.catch_warnings(action="ignore"):  # transformers' words for what is an error here
            return not mel_filterbank(*self._mel_arguments()).any(axis=0).all()

    def _check_sampling_rate(self, sampling_rate: int | None):
        if sampling_rate is None:
            logger.warning(f"Pass `sampling_rate`: audio of another rate than {self.sampling_rate} Hz goes unnoticed.")
        elif sampling_rate != self.sampling_rate:
            resample = f"resample first, for example with `to_waveform(audio, {self.sampling_rate})`."
            raise ValueError(f"Audio must have {self.sampling_rate} Hz here, and this has {sampling_rate}: {resample}")

    def _as_clip(self, clip: RawClip, index: int) -> Tensor:
        """Returns a clip (S,) as float32."""
        if not isinstance(clip, Tensor):  # PyTorch wants other strides and bytes than a view of an array may have
            if (clip := np.asarray(clip)).dtype.kind not in "fiub":
                raise ValueError(f"Clip {index} holds no samples, but {clip.dtype}: {PASS_SAMPLES}")
            clip = torch.from_numpy(np.array(clip, clip.dtype.newbyteorder("=")))
        if clip.ndim != 1:
            raise ValueError(f"Clip {index} has the shape {tuple(clip.shape)}: pass one channel, (samples,).")
        if len(clip) < self.win_length:
            raise ValueError(f"Clip {index} has {len(clip)} samples: pass at least a window, {self.win_length}.")
        if not clip.is_floating_point():
            raise ValueError(f"Clip {index} holds {clip.dtype}: pass floats in [-1, 1].")
        return clip.float()


def _as_batch(speech) -> list[RawClip]:
    if not hasattr(speech, "__len__") or isinstance(speech, str | Mapping) or getattr(speech, "ndim", 1) == 0:
        raise ValueError(f"A {type(speech).__name__} holds no samples: {PASS_SAMPLES}")
    if len(speech) == 0:
        raise ValueError("There is no audio here: pass at least one clip.")
    return [speech] if np.ndim(speech[0]) == 0 else list(speech)


def _pad(clips: list[Tensor], least: int, multiple: int, device: str | torch.device) -> Tensor:
    """Returns clips (S_i,) as one tensor (B, S), where S is at least this many samples and a multiple of that many."""
    waveforms = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True).to(device)
    num_samples = max(waveforms.shape[1], least)
    num_samples += -num_samples % multiple
    return torch.nn.functional.pad(waveforms, (0, num_samples - waveforms.shape[1]))


def _package(outputs: dict[str, Any], return_tensors: str | None) -> BatchFeature:
    """Tensors as they are where tensors are wanted, else arrays, one for each clip."""
    if return_tensors in ("pt", "np") and all(isinstance(clips, Tensor) for clips in outputs.values()):
        return BatchFeature(
            outputs if return_tensors == "pt" else {name: x.numpy(force=True) for name, x in outputs.items()}
        )
    arrays = {name: [clip.cpu().numpy() for clip in clips] for name, clips in outputs.items()}
    return BatchFeature(arrays, tensor_type=return_tensors)
