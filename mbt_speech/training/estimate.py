"""How long a run will take, measured before it starts.

Axes: T frames of a crop, M mel bins.
"""

import time

import torch

from modeling_mbt import MBTForPreTraining

NUM_CROPS = 8
MAX_PASSES, MAX_SECONDS = 10, 1.0  # the fastest pass counts: the first plans convolutions, others wait for a core


def seconds_of_crop(model: MBTForPreTraining, num_frames: int) -> float:
    """Times the encoder's forward and backward pass over a crop of T frames, on the CPU; the model stays as it is."""
    was_training = model.training
    model.eval()  # batch norm's statistics stay what they are
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(NUM_CROPS, num_frames, model.config.num_mel_bins, generator=generator)
    passes = []
    while len(passes) < 2 or (sum(passes) < MAX_SECONDS and len(passes) < MAX_PASSES):
        start = time.perf_counter()
        model.mbt(features).pooler_output.sum().backward()
        passes.append(time.perf_counter() - start)
    model.zero_grad(set_to_none=True)
    model.train(was_training)
    return min(passes) / NUM_CROPS


def cpu_multiplies_bfloat16() -> bool:
    """Returns whether the CPU has instructions for products of bfloat16 matrices (AMX).

    CPUs without them emulate them: a step then takes longer than in float32.
    """
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()  # older versions of torch have none
    return bool(capabilities.get("amx_bf16"))


def describe_duration(seconds: float) -> str:
    """Returns a duration in the unit in which people say it."""
    if seconds < 90:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.0f} h"
