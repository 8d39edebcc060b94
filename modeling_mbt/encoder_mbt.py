"""The convolutional encoder, which keeps the time axis.

Axes: B clips, C channels, T input frames, T' output frames, M mel bins, F frequencies, H hidden size.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from .configuration_mbt import MBTConfig


class MBTConvLayer(nn.Module):
    """Convolution without bias, batch norm and, unless it ends a residual branch, ReLU: (B, C, T, F).

    Frames that are padding are set to zero after it, where the convolution of a lone clip would see its own zero
    padding: so a clip has one representation, alone or in a batch of longer ones. (In training, batch norm's own
    statistics also count padding.)
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride=(1, 1), *, activation=True):
        super().__init__()
        padding = kernel_size // 2
        self.convolution = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=False)
        self.normalization = nn.BatchNorm2d(out_channels)
        self.activation = nn.ReLU(inplace=True) if activation else nn.Identity()

    def forward(self, hidden_states: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Computes the layer's output and the mask of its frames."""
        hidden_states = self.activation(self.normalization(self.convolution(hidden_states)))
        return mask_frames(hidden_states, stride_mask(mask, self.convolution.stride[0]))


class MBTPlainLayer(MBTConvLayer, GradientCheckpointingLayer):
    """A layer of its own: 3x3."""

    def __init__(self, in_channels: int, out_channels: int, stride=(1, 1)):
        super().__init__(in_channels, out_channels, 3, stride)


class MBTMaxPoolLayer(GradientCheckpointingLayer):
    """Convolution of stride 1, max pooling by the stride, then batch norm and ReLU: (B, C, T, F).

    Pooling comes before batch norm, which so reads a quarter of the memory. Frames that are padding never win over
    real ones, and are zero afterwards: as in `MBTConvLayer`, a clip has one representation.
    """

    def __init__(self, in_channels: int, out_channels: int, stride=(1, 1)):
        super().__init__()
        self.convolution = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.pooling = nn.MaxPool2d(stride, ceil_mode=True)
        self.normalization = nn.BatchNorm2d(out_channels)
        self.time_stride = stride[0]

    def forward(self, hidden_states: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Computes the layer's output and the mask of its frames."""
        hidden_states = self.convolution(hidden_states)
        if mask is not None:
            # In place, here and below: no gradient needs the values that were there, and copies take long. No gradient
            # reaches the padding in any case: it never wins over a real frame, and other windows are set to zero.
            with torch.no_grad():
                hidden_states.masked_fill_(mask[:, None, :, None] == 0, torch.finfo(hidden_states.dtype).min)
        hidden_states, mask = self.pooling(hidden_states), stride_mask(mask, self.time_stride)
        if mask is not None:
            real = mask[:, None, :, None].to(hidden_states.dtype)
            # Frames of nothing but padding must not enter the normalization's arithmetic with the lowest number.
            hidden_states = self.normalization(hidden_states.mul_(real)).mul_(real)
        else:
            hidden_states = self.normalization(hidden_states)
        return torch.relu_(hidden_states), mask


class MBTBottleneckLayer(GradientCheckpointingLayer):
    """Residual layer of ResNet-50 (arXiv 1512.03385), the stride in its 3x3 convolution: (B, C, T, F)."""

    def __init__(self, in_channels: int, out_channels: int, stride=(1, 1)):
        super().__init__()
        reduced = max(1, out_channels // 4)
        self.shortcut = None
        if in_channels != out_channels or stride != (1, 1):
            self.shortcut = MBTConvLayer(in_channels, out_channels, 1, stride, activation=False)
        self.reduction = MBTConvLayer(in_channels, reduced, 1)
        self.convolution = MBTConvLayer(reduced, reduced, 3, stride)
        self.expansion = MBTConvLayer(reduced, out_channels, 1, activation=False)

    def forward(self, hidden_states: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Computes the layer's output and the mask of its frames."""
        residual = hidden_states if self.shortcut is None else self.shortcut(hidden_states, mask)[0]
        for layer in (self.reduction, self.convolution, self.expansion):
            hidden_states, mask = layer(hidden_states, mask)
        return torch.relu(hidden_states + residual), mask


class MBTEncoder(nn.Module):
    """Features to frames: (B, T, M), (B, T) -> (B, T', H), (B, T')."""

    def __init__(self, config: MBTConfig):
        super().__init__()
        self.stem, channels = None, 1
        if config.embedding_size is not None:
            self.stem = MBTConvLayer(1, config.embedding_size, 7, (2, 2))
            channels = config.embedding_size
        layer_class = {"plain": MBTPlainLayer, "max_pool": MBTMaxPoolLayer, "bottleneck": MBTBottleneckLayer}[
            config.layer_type
        ]
        layers = []
        for stage, size in enumerate(config.hidden_sizes):
            stride = (config.time_strides[stage], config.frequency_strides[stage])
            for depth in range(config.depths[stage]):
                layers.append(layer_class(channels, size, stride if depth == 0 else (1, 1)))
                channels = size
        self.layers = nn.ModuleList(layers)
        self.last_of_stages = {end - 1 for end in accumulate(config.depths)}
        widths = [config.local_size, *config.frame_hidden_sizes]
        self.frame_layers = nn.ModuleList(nn.Linear(i, o) for i, o in pairwise(widths))
        self.concatenates = config.concatenate_local_features
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(
        self, input_features: Tensor, mask: Tensor | None = None, hidden_states: list[Tensor] | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Computes the frames and their mask.

        Args:
            input_features: (B, T, M).
            mask: 1 for real frames, 0 for padding, (B, T).
            hidden_states: A list that gets the output of each stage, (B, T_s, F_s C_s), and of each linear layer but
                the last, (B, T', H_l); padding is 0 in all of them.
        """
        maps, mask = mask_frames(input_features.unsqueeze(1), mask)
        # One channel, laid out as the last axis, which is the fastest for convolutions and pooling.
        maps = maps.squeeze(1).unsqueeze(3).permute(0, 3, 1, 2)
        if self.stem is not None:
            maps, mask = self.stem(maps, mask)
            # Values are >= 0 here, so that a frame of zeros never wins over a real one.
            maps = nn.functional.max_pool2d(maps, 3, stride=2, padding=1)
            maps, mask = mask_frames(maps, stride_mask(mask, 2))
        for number, layer in enumerate(self.layers):
            maps, mask = layer(maps, mask)
            if hidden_states is not None and number in self.last_of_stages:
                hidden_states.append(_flatten(maps))
        if not self.frame_layers:
            return maps.mean(dim=3).transpose(1, 2), mask
        frames = local = _flatten(maps)
        for number, layer in enumerate(self.frame_layers):
            frames = torch.relu(layer(self.dropout(frames)))
            if hidden_states is not None and number < len(self.frame_layers) - 1:
                hidden_states.append(frames if mask is None else frames * mask.unsqueeze(-1).to(frames.dtype))
        return torch.cat([local, frames], dim=-1) if self.concatenates else frames, mask


def _flatten(maps: Tensor) -> Tensor:
    """Flattens (B, C, T, F) to frames (B, T, F C)."""
    return maps.permute(0, 2, 3, 1).flatten(2)


@contextmanager
def kept_statistics(module: nn.Module) -> Iterator[None]:
    """Keeps running statistics as they are while a layer is computed anew, which would count the batch twice."""
    norms: list[Any] = [one for one in module.modules() if isinstance(one, nn.modules.batchnorm._BatchNorm)]
    before = [(norm, norm.momentum, norm.num_batches_tracked.clone()) for norm in norms]
    try:
        for norm in norms:
            norm.momentum = 0.0  # to leave out the statistics instead would be another computation
        yield
    finally:
        for norm, momentum, count in before:
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(count)


def stride_mask(mask: Tensor | None, stride: int) -> Tensor | None:
    """Returns the mask (B, T) behind a "same" layer of this stride: an output frame is real if its center is."""
    if mask is None or stride == 1:
        return mask
    # Indices, not a slice: to torch.export, a slice with a step ties the graph to even or to odd lengths.
    return mask[:, torch.arange(0, mask.shape[1], stride, device=mask.device)]


def mask_frames(hidden_states: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Sets the padding frames of (B, C, T, F) to zero; without a mask every frame is real."""
    if mask is not None:
        hidden_states = hidden_states * mask[:, None, :, None].to(hidden_states.dtype)
    return hidden_states, mask


def time_stride(config: MBTConfig) -> int:
    """Returns the input frames per output frame; a stem has a convolution and a pooling of stride 2."""
    return math.prod(config.time_strides) * (1 if config.embedding_size is None else 4)


def frame_center(config: MBTConfig) -> float:
    """Returns the input frame on which output frame 0 is centered: max pooling of stride s reads s frames onward."""
    if config.layer_type != "max_pool":
        return 0.0
    stem = 1 if config.embedding_size is None else 4
    strides = [stem * math.prod(config.time_strides[:stage]) for stage in range(len(config.time_strides))]
    return sum((own - 1) / 2 * before for own, before in zip(config.time_strides, strides, strict=True))


def first_unseen_step(config: MBTConfig) -> int:
    """Computes the least k for which output frames t and t + k have no input frame in common.

    Convolutions look to both sides, so that frame t depends on some of the frames after it, and a pooling of stride s
    reads s - 1 frames to the right of its own.
    """
    both_sides, stride = (0, 1) if config.embedding_size is None else (2 * (3 + 2), 4)  # a 7x7 and a 3x3 of stride 2
    for depth, of_stage in zip(config.depths, config.time_strides, strict=True):
        both_sides += 2 * stride  # a 3x3 reaches one frame of its input to each side
        if config.layer_type == "max_pool":
            both_sides += (of_stage - 1) * stride
        stride *= of_stage
        both_sides += 2 * (depth - 1) * stride
    return both_sides // stride + 1
