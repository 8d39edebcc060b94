"""Distortions of log-power features, each with its own random parameters for each clip of a batch.

Features arrive standardized, with mean 0 and standard deviation 1 over each clip: strengths are in units of a clip's
own standard deviation, and 0 is its mean level. Bounds are pairs [lowest, highest].

Axes: B clips, T frames, M features.
"""

from collections.abc import Sequence

import torch

from .draws import normal, other_clips, uniform


def random_resize_crop(
    features: torch.Tensor,
    generator: torch.Generator,
    *,
    time_scale: Sequence[float] = (0.6, 1.5),
    frequency_scale: Sequence[float] = (0.6, 1.5),
    time_canvas: float = 1.5,
    frequency_canvas: float = 1.0,
) -> torch.Tensor:
    """Cuts a random rectangle out of a canvas around the clip and resizes it to the clip's shape.

    The canvas holds the clip in its middle and the clip's mean level around it (Niizumi et al., arXiv 2103.06695).

    Args:
        features: (B, T, M).
        generator: source of randomness.
        time_scale: bounds of the rectangle's length, relative to T; below 1 slows the clip down.
        frequency_scale: bounds of the rectangle's height, relative to M.
        time_canvas: length of the canvas relative to T; rectangles are no longer than that.
        frequency_canvas: height of the canvas relative to M.
    """
    num_clips, num_frames, num_bands = features.shape
    resize_time = _crops(num_frames, num_clips, time_scale, time_canvas, features, generator)
    resize_frequency = _crops(num_bands, num_clips, frequency_scale, frequency_canvas, features, generator)
    return resize_time @ features @ resize_frequency.mT


def mixup(features: torch.Tensor, generator: torch.Generator, *, ratio: Sequence[float] = (0.0, 0.4)) -> torch.Tensor:
    """Computes log((1 - r) exp(x) + r exp(y)) of each clip x with another clip y (Niizumi et al., 2103.06695).

    Args:
        features: (B, T, M).
        generator: source of randomness.
        ratio: bounds of r.
    """
    if len(features) == 1:
        return features
    return _log_mix(features, features[other_clips(features, generator)], ratio, generator)


def noise(features: torch.Tensor, generator: torch.Generator, *, ratio: Sequence[float] = (0.0, 0.2)) -> torch.Tensor:
    """Computes log((1 - r) exp(x) + r exp(n)) with standard normal n at every frame and band.

    Args:
        features: (B, T, M).
        generator: source of randomness.
        ratio: bounds of r.
    """
    return _log_mix(features, normal(features.shape, features, generator), ratio, generator)


def fader(features: torch.Tensor, generator: torch.Generator, *, gain: float = 1.0) -> torch.Tensor:
    """Adds a straight line over time from one random level to another, both within +-gain.

    Args:
        features: (B, T, M).
        generator: source of randomness.
        gain: largest level.
    """
    num_clips, num_frames, _ = features.shape
    ends = uniform((-gain, gain), (num_clips, 2, 1, 1), features, generator)
    position = torch.linspace(0, 1, num_frames, dtype=features.dtype, device=features.device)[:, None]
    return features + torch.lerp(ends[:, 0], ends[:, 1], position)


def band_equalizer(
    features: torch.Tensor, generator: torch.Generator, *, gain: float = 1.0, num_knots: int = 8
) -> torch.Tensor:
    """Adds a random smooth curve over the bands, the same in every frame: another microphone, room or line.

    The curve is a straight line between knots that are evenly spaced over the bands, each within +-gain.

    Args:
        features: (B, T, M).
        generator: source of randomness.
        gain: largest level.
        num_knots: knots of the curve, at least 2.
    """
    if num_knots < 2:
        raise ValueError(f"`num_knots` must be at least 2, and is {num_knots}.")
    knots = uniform((-gain, gain), (len(features), 1, num_knots), features, generator)
    return features + torch.nn.functional.interpolate(knots, size=features.shape[2], mode="linear", align_corners=True)


def time_mask(
    features: torch.Tensor, generator: torch.Generator, lengths: torch.Tensor | None = None, *, width: float = 0.2
) -> torch.Tensor:
    """Sets a stretch of frames to the clip's mean level (SpecAugment, arXiv 1904.08779).

    Args:
        features: (B, T, M).
        generator: source of randomness.
        lengths: (B,) frames in each clip, before its padding; all of T by default.
        width: largest length, relative to the clip's.
    """
    num_clips, size, _ = features.shape
    return features.masked_fill(_stretches(size, num_clips, width, features, generator, lengths)[:, :, None], 0)


def frequency_mask(features: torch.Tensor, generator: torch.Generator, *, width: float = 0.2) -> torch.Tensor:
    """Sets neighboring bands to the clip's mean level (SpecAugment, arXiv 1904.08779).

    Args:
        features: (B, T, M).
        generator: source of randomness.
        width: largest height, relative to M.
    """
    num_clips, _, num_bands = features.shape
    return features.masked_fill(_stretches(num_bands, num_clips, width, features, generator)[:, None, :], 0)


def _crops(
    size: int,
    num_clips: int,
    scale: Sequence[float],
    canvas: float,
    like: torch.Tensor,
    generator: torch.Generator,
) -> torch.Tensor:
    """Returns (B, size, size) matrices, each of which resizes a random crop of an axis to the axis' full size.

    Rows are triangles around the position they read, as wide as the distance between positions: linear interpolation
    when the crop is stretched, an average when it is shrunk, 0 outside of the clip.
    """
    scales = uniform(scale, (num_clips, 1, 1), like, generator).clamp(max=canvas)
    starts = uniform((0, 1), (num_clips, 1, 1), like, generator) * (canvas - scales) - (canvas - 1) / 2
    axis = torch.arange(size, dtype=like.dtype, device=like.device)
    positions = starts * size + (axis[:, None] + 0.5) * scales - 0.5
    width = scales.clamp(min=1)
    return (1 - (positions - axis).abs() / width).clamp(min=0) / width


def _log_mix(x: torch.Tensor, y: torch.Tensor, ratio: Sequence[float], generator: torch.Generator) -> torch.Tensor:
    ratios = uniform(ratio, (len(x), 1, 1), x, generator)
    return torch.logaddexp(x + torch.log1p(-ratios), y + ratios.log())


def _stretches(
    size: int,
    num_clips: int,
    width: float,
    like: torch.Tensor,
    generator: torch.Generator,
    extents: torch.Tensor | None = None,
) -> torch.Tensor:
    """Returns (B, size) booleans, true on one random stretch of each row, or of the first `extents` (B,) of it."""
    extent = size if extents is None else extents[:, None].to(like.dtype)
    lengths = uniform((0, 1), (num_clips, 1), like, generator) * (width * extent)
    starts = uniform((0, 1), (num_clips, 1), like, generator) * (extent - lengths)
    middles = torch.arange(size, device=like.device) + 0.5
    return (middles >= starts) & (middles < starts + lengths)
