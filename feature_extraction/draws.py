"""Random numbers for distortions: every one of them follows from one seeded `torch.Generator`.

Axes: B clips.
"""

from collections.abc import Sequence

import torch


def uniform(bounds: Sequence[float], shape: Sequence[int], like: torch.Tensor, generator: torch.Generator):
    """Numbers between the two bounds, of the given shape, with the dtype and device of `like`.

    They are drawn where the generator lives, so that CPU and GPU distort by the same parameters.
    """
    low, high = bounds
    return torch.rand(shape, generator=generator, device=generator.device).to(like) * (high - low) + low


def normal(shape: Sequence[int], like: torch.Tensor, generator: torch.Generator):
    """Draws standard normal numbers of the given shape, on the device of `like`: noise is too large to be moved."""
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    on_device = torch.Generator(like.device).manual_seed(seed)
    return torch.randn(shape, generator=on_device, dtype=like.dtype, device=like.device)


def other_clips(clips: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Draws for each clip of a batch of at least two the index of another one, on the device of `clips`."""
    num_clips = len(clips)
    steps = torch.randint(1, num_clips, (num_clips,), generator=generator, device=generator.device)
    return ((torch.arange(num_clips, device=generator.device) + steps) % num_clips).to(clips.device)
