"""Networks small enough for a test."""

import torch

TINY = {"num_mel_bins": 16, "hidden_sizes": [4, 8], "depths": [1, 1], "time_strides": [2, 1],
        "frequency_strides": [2, 2], "frame_hidden_sizes": [12], "projector_sizes": [10, 6]}  # fmt: skip
SMALL_BOTTLENECK = {"num_mel_bins": 33, "embedding_size": 4, "layer_type": "bottleneck", "hidden_sizes": [8, 16],
                    "depths": [2, 1], "time_strides": [1, 2], "frequency_strides": [1, 2], "frame_hidden_sizes": [],
                    "pooling_mode": "mean", "projector_sizes": [6]}  # fmt: skip
SMALL_MAX_POOL = {"num_mel_bins": 16, "layer_type": "max_pool", "hidden_sizes": [4, 6], "depths": [1, 2],
                  "time_strides": [2, 2], "frequency_strides": [2, 2], "frame_hidden_sizes": [12, 10],
                  "concatenate_local_features": True, "pooling_mode": "statistics", "pooling_cosines": 2,
                  "pooling_bands": 2, "projector_sizes": [10, 6]}  # fmt: skip


def stir(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Sets batch norm to the statistics and biases of a trained network: fresh ones hide mistakes."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            for tensor in (module.weight.data, module.bias.data, module.running_mean):
                tensor.copy_(torch.randn(tensor.shape, generator=generator))
            module.running_var.copy_(0.5 + torch.rand(module.running_var.shape, generator=generator))
    return model.eval()
