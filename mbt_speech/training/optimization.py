"""Optimizer and schedule."""

import math
import re

import torch
from torch import nn

from mbt_speech.user_errors import require

LARS_MOMENTUM = 0.9
# The learning rates of the original: 0.2 for weights, 0.0048 for biases and norms (arXiv 2103.03230, section 2.2).
LARS_BIAS_SHARE = 0.0048 / 0.2


def create_optimizer(
    model: nn.Module,
    learning_rate: float,
    weight_decay: float,
    *,
    optim: str = "adamw_torch",
    layerwise_lr_decay: float = 1.0,
    encoder_learning_rate: float | None = None,
) -> torch.optim.Optimizer:
    """Creates AdamW or LARS over what learns; biases and norms (of one dimension) have no weight decay.

    Each layer of the encoder learns `layerwise_lr_decay` times as fast as the one above it, and what is not of the
    encoder at `learning_rate`; `encoder_learning_rate` is by default the same.

    Raises:
        ImportError: LARS is asked for without its package.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    depths = layer_depths(model)
    encoder_rate = learning_rate if encoder_learning_rate is None else encoder_learning_rate
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decays = parameter.ndim > 1
            rate = encoder_rate if _is_of_encoder(name) else learning_rate
            rate *= layerwise_lr_decay ** (max(depths.values()) - depths[name])
            rate *= 1 if decays or optim != "lars" else LARS_BIAS_SHARE
            groups.setdefault((rate, weight_decay if decays else 0.0), []).append(parameter)
    listed = [{"params": members, "lr": rate, "weight_decay": decay} for (rate, decay), members in groups.items()]
    if optim == "adamw_torch":
        return torch.optim.AdamW(listed, lr=learning_rate)
    return require("pytorch_optimizer", "lars", "--optim lars").LARS(listed, lr=learning_rate, momentum=LARS_MOMENTUM)


def layer_depths(model: nn.Module) -> dict[str, int]:
    """Numbers the layers from the input to the head: parameter name -> depth of its layer."""
    depths: dict[str, int] = {}
    numbers: dict[str, int] = {}
    for name, _ in model.named_parameters():
        depths[name] = numbers.setdefault(_layer(name), len(numbers))
    return depths


def _is_of_encoder(name: str) -> bool:
    """Whether a parameter is of the encoder, and not of what is on it; of models of the Hub that is the classifier."""
    return name.startswith(("mbt.", "hub.")) and not name.startswith("hub.classifier.")


def _layer(name: str) -> str:
    """Returns the layer of a parameter: one of a row with numbers, or all else in a module."""
    if name.startswith("hub."):
        if name.startswith("hub.classifier."):
            return "hub.classifier"
        numbered = re.match(r".*?\blayers?\.\d+\.", name)
        return numbered.group() if numbered else ".".join(name.split(".")[:-1][:3])
    parts = name.removeprefix("mbt.").split(".")
    # "encoder.layers.2" and "encoder.frame_layers.0" are layers of their own, "projector" and "classifier" one.
    return ".".join(parts[:3]) if parts[0] == "encoder" and parts[1] != "stem" else ".".join(parts[:1])


class Schedule:
    """Linear warm-up, then half a cosine down to zero; warm-up takes at most a tenth of a short run.

    It has no state to save: the rates follow from the step.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, warmup_steps: int, max_steps: int):
        self.optimizer, self.max_steps = optimizer, max_steps
        self.warmup_steps = shortened_warmup(warmup_steps, max_steps)
        self._peaks = [group["lr"] for group in optimizer.param_groups]

    def set_rates(self, step: int) -> float:
        """Sets the learning rates for the step after `step` ones; returns that of the first group."""
        if step < self.warmup_steps:
            factor = step / self.warmup_steps
        else:
            progress = (step - self.warmup_steps) / max(1, self.max_steps - self.warmup_steps)
            factor = max(0.0, 0.5 * (1 + math.cos(math.pi * progress)))
        for group, peak in zip(self.optimizer.param_groups, self._peaks, strict=True):
            group["lr"] = peak * factor
        return self.optimizer.param_groups[0]["lr"]


def shortened_warmup(warmup_steps: int, max_steps: int) -> int:
    """Returns the steps of warm-up that a run really has."""
    return min(warmup_steps, max_steps // 10)
