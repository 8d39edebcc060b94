"""The family of distortions T that makes views: a declarative pipeline over batches, replayed by its generator's seed.

Axes: B clips, S samples, T frames, M features.
"""

import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import recorded_augmentation, spectrogram_augmentation, tempo_augmentation, waveform_augmentation
from .feature_extraction_mbt import MBTFeatureExtractor
from .spectrogram_mbt import SILENT_STD_DB

Step = Mapping[str, Any]

WAVEFORM_DISTORTIONS: dict[str, Callable[..., Tensor]] = {
    "gain": waveform_augmentation.gain,
    "polarity": waveform_augmentation.polarity,
    "gaussian_noise": waveform_augmentation.gaussian_noise,
    "noise": waveform_augmentation.noise,
    "babble": waveform_augmentation.babble,
    "reverberation": waveform_augmentation.reverberation,
    "equalizer": waveform_augmentation.equalizer,
    "band_limit": waveform_augmentation.band_limit,
    "recorded_noise": recorded_augmentation.recorded_noise,
    "recorded_room": recorded_augmentation.recorded_room,
    "shift": tempo_augmentation.shift,
    "speed": tempo_augmentation.speed,
    "time_stretch": tempo_augmentation.time_stretch,
    "pitch_shift": tempo_augmentation.pitch_shift,
}
FEATURE_DISTORTIONS: dict[str, Callable[..., Tensor]] = {
    "random_resize_crop": spectrogram_augmentation.random_resize_crop,
    "mixup": spectrogram_augmentation.mixup,
    "noise": spectrogram_augmentation.noise,
    "fader": spectrogram_augmentation.fader,
    "band_equalizer": spectrogram_augmentation.band_equalizer,
    "time_mask": spectrogram_augmentation.time_mask,
    "frequency_mask": spectrogram_augmentation.frequency_mask,
}
MIXING = ("mixup", "babble")  # distortions that take in other clips of the batch
FORMS: dict[Any, tuple[str, Callable[[Any], bool]]] = {
    Sequence[float]: (
        "a pair [lowest, highest]",
        lambda value: (
            isinstance(value, list | tuple)
            and len(value) == 2
            and all(isinstance(end, int | float) and math.isfinite(end) for end in value)
            and value[0] <= value[1]
        ),
    ),
    float: ("a number", lambda value: isinstance(value, int | float) and math.isfinite(value)),
    int: ("a whole number", lambda value: isinstance(value, int)),
    str: ("a text", lambda value: isinstance(value, str)),
}
# What parameters may be, where other numbers divide by zero or mean nothing.
LIMITS = {
    "num_voices": (1, 1000),
    "num_knots": (2, 1000),
    "rt60_seconds": (0.01, 60.0),
    "high_hz": (1.0, math.inf),
    "rate": (0.1, 10.0),
    "semitones": (-48.0, 48.0),
    "time_scale": (0.01, 100.0),
    "frequency_scale": (0.01, 100.0),
    "ratio": (0.0, 1.0),
    "width": (0.0, 1.0),
    "p": (0.0, 1.0),
}


class MBTAugmentation:
    """Distorts waveforms, then their features, by two lists of distortions.

    A distortion is a mapping such as `{"name": "fader", "gain": 1.0, "p": 0.5}`: a name of `WAVEFORM_DISTORTIONS` or
    `FEATURE_DISTORTIONS`, parameters of that function, and the probability `p` (1 by default) with which each clip
    undergoes it. `{"choose": 2, "of": [...]}` lets each clip undergo so many of the distortions listed, drawn at
    random.

    All randomness comes from the generator that a call is given, which may live on the CPU whatever the clips' device.

    Args:
        waveform: distortions of waveforms, in order.
        features: distortions of features, in order.

    Raises:
        ValueError: for an unknown distortion or parameter, or a value of the wrong form.
    """

    def __init__(self, waveform: Sequence[Step] = (), features: Sequence[Step] = ()):
        for steps, distortions in ((waveform, WAVEFORM_DISTORTIONS), (features, FEATURE_DISTORTIONS)):
            if not isinstance(steps, list | tuple):
                raise ValueError(f"Write a list of distortions, not {steps}.")
            for step in steps:
                _check_step(step, distortions)
        self.waveform = deepcopy(list(waveform))
        self.features = deepcopy(list(features))

    def __call__(
        self,
        waveforms: Tensor,
        extractor: MBTFeatureExtractor,
        generator: torch.Generator,
        lengths: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Returns one view of each clip: the distorted features of its distorted waveform, normalized.

        Args:
            waveforms: (B, S) on any device.
            extractor: gives the features.
            generator: source of all randomness.
            lengths: (B,) samples in each clip; all of S by default.

        Returns:
            features (B, T, M) and mask (B, T), as the model reads them.
        """
        waveforms = self.distort_waveforms(waveforms, extractor.sampling_rate, generator, lengths)
        features, mask = extractor.extract(waveforms, lengths)
        features = self.distort_features(features, generator, None if lengths is None else mask)
        return extractor.normalize(features, mask), mask

    @torch.no_grad()
    def distort_waveforms(
        self, waveforms: Tensor, sampling_rate: int, generator: torch.Generator, lengths: Tensor | None = None
    ) -> Tensor:
        """Distorts (B, S) at a rate in Hz; returns (B, S).

        With lengths, (B,) in samples, noises go by the level of the clip's own samples, and `shift` turns these round.
        To all other distortions, and without lengths, what follows a clip is silence that belongs to it.
        """

        def distort(name: str, clips: Tensor, chosen: Tensor | slice, strengths: Step) -> Tensor:
            distortion = WAVEFORM_DISTORTIONS[name]
            return distortion(clips, sampling_rate, generator, *_own(lengths, chosen, distortion), **strengths)

        return _distort(waveforms, self.waveform, distort, generator)

    @torch.no_grad()
    def distort_features(self, features: Tensor, generator: torch.Generator, mask: Tensor | None = None) -> Tensor:
        """Distorts (B, T, M) in dB, as of `MBTFeatureExtractor.extract`.

        The features are standardized clip by clip in front of the distortions and put back to the clip's level and
        contrast behind them, so that mixing weighs soft and loud clips alike. With a mask, (B, T), frames past a
        clip's end do not count for its level, and `time_mask` hides others. To all other distortions, and without a
        mask, these frames are silence that belongs to the clip.
        """
        if not self.features:
            return features

        num_frames = None if mask is None else mask.sum(1)

        def distort(name: str, clips: Tensor, chosen: Tensor | slice, strengths: Step) -> Tensor:
            distortion = FEATURE_DISTORTIONS[name]
            return distortion(clips, generator, *_own(num_frames, chosen, distortion), **strengths)

        std, mean = _spread(features, mask)
        standardized = (features - mean) / std.clamp(min=SILENT_STD_DB)
        return _distort(standardized, self.features, distort, generator) * std + mean

    def to_dict(self) -> dict[str, list[Step]]:
        """Returns the two lists, ready for JSON or YAML."""
        return deepcopy({"waveform": self.waveform, "features": self.features})

    @classmethod
    def from_dict(cls, lists: Mapping[str, Sequence[Step]]) -> "MBTAugmentation":
        """Returns the pipeline whose `to_dict` is given."""
        if not isinstance(lists, Mapping) or not set(lists) <= {"waveform", "features"}:
            raise ValueError(f"An augmentation holds the lists 'waveform' and 'features', and this is {lists}.")
        return cls(**lists)


def _own(lengths: Tensor | None, chosen: Tensor | slice, distortion: Callable[..., Tensor]) -> tuple[Tensor, ...]:
    """Returns the lengths of the chosen clips as an argument, where there are any and the distortion goes by them."""
    if lengths is None or "lengths" not in inspect.signature(distortion).parameters:
        return ()
    return (lengths[chosen],)


def _spread(features: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Returns standard deviation and mean, (B, 1, 1) each, of every clip of (B, T, M) where its mask (B, T) is 1."""
    if mask is None:
        return torch.std_mean(features, dim=(1, 2), keepdim=True, correction=0)
    weights = (mask / mask.sum(1, keepdim=True).clamp(min=1))[:, :, None].to(features.dtype)
    mean = (features * weights).sum(1, keepdim=True).mean(2, keepdim=True)
    variance = ((features - mean).square() * weights).sum(1, keepdim=True).mean(2, keepdim=True)
    return variance.sqrt(), mean


def _distort(
    clips: Tensor,
    steps: Sequence[Step],
    distort: Callable[[str, Tensor, Tensor | slice, Step], Tensor],
    generator: torch.Generator,
) -> Tensor:
    for step in steps:
        for distortion, is_chosen in _draw_lots(step, len(clips), generator):
            strengths = {name: value for name, value in distortion.items() if name not in ("name", "p")}
            if is_chosen.all():
                clips = distort(distortion["name"], clips, slice(None), strengths)
            elif distortion["name"] in MIXING and is_chosen.any():  # with any clip, also with one that is not chosen
                mixed = distort(distortion["name"], clips, slice(None), strengths)
                is_own = is_chosen.to(clips.device).view(-1, *[1] * (clips.ndim - 1))
                clips = torch.where(is_own, mixed, clips)
            elif is_chosen.any():
                chosen = is_chosen.nonzero().flatten().to(clips.device)
                clips = clips.index_copy(0, chosen, distort(distortion["name"], clips[chosen], chosen, strengths))
    return clips


def _draw_lots(step: Step, num_clips: int, generator: torch.Generator) -> Iterator[tuple[Step, Tensor]]:
    """Yields each distortion of a step with the clips (B,) that undergo it, as booleans on the generator's device."""
    distortions = step.get("of", [step])
    ranks = torch.rand(len(distortions), num_clips, generator=generator, device=generator.device).argsort(0).argsort(0)
    for distortion, rank in zip(distortions, ranks, strict=True):
        luck = torch.rand(num_clips, generator=generator, device=generator.device)
        yield distortion, (rank < step.get("choose", 1)) & (luck < distortion.get("p", 1.0))


def _check_step(step: Step, distortions: Mapping[str, Callable[..., Tensor]]):
    if not isinstance(step, Mapping) or not {"choose", "of"} & set(step):
        _check_distortion(step, distortions)
        return
    choose, of = step.get("choose", 1), step.get("of", [])
    is_list = isinstance(choose, int) and isinstance(of, list | tuple)
    if not is_list or not set(step) <= {"choose", "of"} or not 1 <= choose <= len(of):
        raise ValueError(f"Write {{'choose': n, 'of': [at least n distortions]}}, not {step}.")
    for distortion in of:
        _check_distortion(distortion, distortions)


def _check_distortion(step: Step, distortions: Mapping[str, Callable[..., Tensor]]):
    if not isinstance(step, Mapping):
        raise ValueError(f"Write a distortion as {{'name': ...}}, not as {step!r}.")
    name = step.get("name", "")
    if not isinstance(name, str) or name not in distortions:
        raise ValueError(f"There is no distortion {name!r} here, but there are {', '.join(distortions)}.")
    parameters = inspect.signature(distortions[name]).parameters.values()
    kinds = {one.name: one.annotation for one in parameters if one.kind is one.KEYWORD_ONLY} | {"p": float}
    required = {one.name for one in parameters if one.kind is one.KEYWORD_ONLY and one.default is one.empty}
    if missing := required - set(step):
        raise ValueError(f"{name!r} needs {', '.join(missing)}.")
    for parameter, value in step.items():
        if parameter not in kinds and parameter != "name":
            raise ValueError(f"{name!r} has no parameter {parameter!r}, but it has {', '.join(kinds)}.")
        form, has_form = FORMS[kinds.get(parameter, str)]
        if not has_form(value):
            raise ValueError(f"{parameter!r} of {name!r} is {form}, not {value}.")
        low, high = LIMITS.get(parameter, (-math.inf, math.inf))
        if not isinstance(value, str) and not all(low <= end <= high for end in np.ravel(value)):
            raise ValueError(f"{parameter!r} of {name!r} lies between {low:g} and {high:g}, not at {value}.")
