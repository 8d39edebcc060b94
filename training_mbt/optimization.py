"""Optimizer and schedule."""

import torch
from torch import nn
from transformers import get_cosine_schedule_with_warmup


def create_optimizer(model: nn.Module, learning_rate: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW over what learns, without weight decay on biases and norms (every parameter of one dimension)."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=learning_rate)


def create_scheduler(optimizer: torch.optim.Optimizer, warmup_steps: int, max_steps: int):
    """Linear warm-up, then half a cosine down to zero; warm-up takes at most a tenth of a short run."""
    return get_cosine_schedule_with_warmup(optimizer, min(warmup_steps, max_steps // 10), max_steps)
