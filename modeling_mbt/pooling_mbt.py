"""Pooling of frames over time: what is left of a clip of any length.

Axes: B clips, T input frames, T' output frames, M mel bins, H hidden size, P pooled size, K cosines.
"""

import math

import torch
from torch import Tensor

from .configuration_mbt import MBTConfig
from .encoder_mbt import stride_mask, time_stride

SPEECH_RANGE, SPEECH_SLOPE = 2.0, 3.0  # in standard deviations of a clip's features, and per one of them
MIN_VARIANCE = 1e-5
SLOPE_FRAMES = 2


def pool_frames(frames: Tensor, input_features: Tensor, attention_mask: Tensor | None, config: MBTConfig) -> Tensor:
    """Pools the real frames of each clip.

    Args:
        frames: Output of the encoder, not negative, (B, T', H).
        input_features: What the encoder was given, (B, T, M).
        attention_mask: 1 for real input frames, 0 for padding behind them, (B, T); without it every frame is real.
        config: Its `pooling_mode` is `"mean"`, (B, H), `"mean_max"`, the sum of mean and maximum, (B, H), or
            `"statistics"`: mean, standard deviation and maximum side by side, each frame weighted by
            `speech_weights`, then K = `pooling_cosines` coefficients of `temporal_cosines` of the `ordered_features`,
            then, with `pool_input_features`, `input_statistics`: (B, P).
    """
    if torch.is_autocast_enabled(frames.device.type):  # which would round the sums of products
        with torch.autocast(frames.device.type, enabled=False):
            return pool_frames(frames, input_features, attention_mask, config)
    if attention_mask is None:  # of whole numbers: lengths of clips are beyond bfloat16
        attention_mask = torch.ones(input_features.shape[:2], dtype=torch.long, device=input_features.device)
    mask = stride_mask(attention_mask, time_stride(config))
    assert mask is not None
    dtype, frames = frames.dtype, _at_least_float32(frames)  # sums over minutes are beyond float16
    real = mask.unsqueeze(-1).to(frames.dtype)
    # Frames come out of a ReLU: padding set to zero never exceeds a real maximum.
    maximum = (frames * real).amax(dim=1)
    if config.pooling_mode == "statistics":
        weights = speech_weights(input_features, attention_mask, time_stride(config)).to(frames.dtype)
        mean = torch.einsum("bt,bth->bh", weights, frames)
        variance = torch.einsum("bt,bth->bh", weights, (frames - mean.unsqueeze(1)).square())
        deviation = variance.clamp(min=MIN_VARIANCE).sqrt()
        cosines = temporal_cosines(ordered_features(frames, config), weights, config.pooling_cosines)
        pooled = [mean, deviation, maximum, cosines]
        if config.pool_input_features:
            pooled.append(input_statistics(input_features, attention_mask))
        return torch.cat(pooled, dim=1).to(dtype)
    mean = (frames * real).sum(dim=1) / real.sum(dim=1).clamp(min=1)
    return (mean if config.pooling_mode == "mean" else mean + maximum).to(dtype)


def speech_weights(input_features: Tensor, attention_mask: Tensor, stride: int) -> Tensor:
    """Computes how much each output frame counts: loud frames fully, silence hardly.

    The level of a frame is the mean of its features, in standard deviations of all features of the clip. Its weight is
    a sigmoid of it, 1/2 at `SPEECH_RANGE` below the loudest frame. So neither pauses nor the silence before and after
    a word change much in what is pooled, and neither do level and contrast of the features.

    Args:
        input_features: (B, T, M).
        attention_mask: 1 for real input frames, 0 for padding, (B, T).
        stride: Input frames per output frame.

    Returns:
        (B, T') of sum 1 over each clip, 0 in padding frames; float32 at least.
    """
    features = _at_least_float32(input_features)
    real = attention_mask.to(features.dtype).unsqueeze(-1)
    count = real.sum(dim=(1, 2), keepdim=True).clamp(min=1) * input_features.shape[2]
    features = (features - (features * real).sum(dim=(1, 2), keepdim=True) / count) * real
    deviation = (features.square().sum(dim=(1, 2)) / count[:, 0, 0]).clamp(min=1e-8).sqrt()
    level = features.mean(dim=2) / deviation.unsqueeze(1)
    level = torch.nn.functional.pad(level, (0, -level.shape[1] % stride)).unflatten(1, (-1, stride)).mean(dim=2)
    mask = attention_mask[:, torch.arange(0, attention_mask.shape[1], stride, device=level.device)].to(level.dtype)
    loudest = level.masked_fill(mask == 0, torch.finfo(level.dtype).min).amax(dim=1, keepdim=True)
    weights = torch.sigmoid(SPEECH_SLOPE * (level - loudest + SPEECH_RANGE)) * mask
    return weights / weights.sum(dim=1, keepdim=True).clamp(min=1e-6)


def input_statistics(features: Tensor, attention_mask: Tensor) -> Tensor:
    """Computes what the features themselves say of a clip, at their own rate, before any convolution averages it out.

    Args:
        features: (B, T, M).
        attention_mask: 1 for real frames, 0 for padding behind them, (B, T).

    Returns:
        Mean, deviation and maximum of the real frames, and deviation and maximum of their slopes, (B, 5 M).
    """
    mean, deviation, maximum = _statistics(features, attention_mask)
    num_frames = (attention_mask != 0).sum(dim=1)
    _, slope_deviation, slope_maximum = _statistics(_slopes(features, num_frames), attention_mask)
    return torch.cat([mean, deviation, maximum, slope_deviation, slope_maximum], dim=1)


def _at_least_float32(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _statistics(features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Computes mean, deviation and maximum over the real frames: (B, T, M), (B, T) -> (B, M) each."""
    values = _at_least_float32(features)
    real = mask.unsqueeze(-1).to(values.dtype)
    count = real.sum(dim=1)
    mean = (values * real).sum(dim=1) / count.clamp(min=1)
    variance = ((values - mean.unsqueeze(1)).square() * real).sum(dim=1) / count.clamp(min=1)
    maximum = values.masked_fill(real == 0, torch.finfo(values.dtype).min).amax(dim=1) * (count > 0)
    deviation = variance.clamp(min=MIN_VARIANCE).sqrt()
    return mean.to(features.dtype), deviation.to(features.dtype), maximum.to(features.dtype)


def _slopes(features: Tensor, num_frames: Tensor) -> Tensor:
    """Fits a line through each frame and `SLOPE_FRAMES` on either side, ends being repeated; its slope, (B, T, M)."""
    places = torch.arange(features.shape[1], device=features.device).expand(features.shape[:2])
    last = (num_frames.unsqueeze(1).to(places.dtype) - 1).clamp(min=0)

    def at(places: Tensor) -> Tensor:
        return features.gather(1, places.clamp(min=0).minimum(last).unsqueeze(-1).expand_as(features))

    steps = range(1, SLOPE_FRAMES + 1)
    slopes = [step * (at(places + step) - at(places - step)) for step in steps]
    return torch.stack(slopes).sum(dim=0) / (2 * sum(step**2 for step in steps))


def ordered_features(frames: Tensor, config: MBTConfig) -> Tensor:
    """Returns what the cosines over time are of: (B, T', H) to (B, T', `ordered_size`).

    Local features, where frames hold them, are averaged over neighboring frequencies: in which order things are said
    takes few numbers, so that they do not outweigh those which tell voices apart.
    """
    if not config.concatenate_local_features:
        return frames
    local = frames[..., : config.local_size].unflatten(-1, (-1, config.hidden_sizes[-1]))
    return torch.nn.functional.adaptive_avg_pool2d(local, (config.pooling_bands, config.hidden_sizes[-1])).flatten(2)


def temporal_cosines(frames: Tensor, weights: Tensor, num_cosines: int) -> Tensor:
    """Computes in what order things happen in a clip: the cosine transform of its frames over speech time.

    Speech time runs from 0 to 1 as the weights add up, so that it stands still in silence. The k-th coefficient, k = 1
    to K, is the weighted mean of sqrt(2) cos(pi k t) times the frame, the mean of the cosine itself removed: the
    first one compares the beginning of the clip with its end.

    Args:
        frames: (B, T', H).
        weights: Of `speech_weights`, (B, T').
        num_cosines: K, may be 0.

    Returns:
        (B, K H).
    """
    time = weights.cumsum(dim=1) - weights / 2
    orders = torch.arange(1, num_cosines + 1, device=time.device, dtype=time.dtype)
    basis = math.sqrt(2) * torch.cos(math.pi * orders[:, None] * time[:, None])
    basis = basis - (basis * weights[:, None]).sum(dim=2, keepdim=True)
    return torch.einsum("bkt,bt,bth->bkh", basis, weights, frames).flatten(1)
