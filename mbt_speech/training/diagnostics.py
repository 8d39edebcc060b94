"""What the latents of a step look like: agreement, redundancy, rank; and whether they have collapsed.

Axes: N pairs in the batch of all processes, D latents, P numbers that represent a clip.
"""

import torch
from accelerate import Accelerator
from torch import Tensor

from modeling_mbt import MBTConfig, MBTForPreTrainingOutput
from modeling_mbt.cpc_mbt import clip_latents
from modeling_mbt.named_objectives_mbt import OWN_NORMALIZATIONS
from modeling_mbt.objectives_mbt import barlow_twins_floor, correlation_statistics

RANKED_CLIPS = 512
COLLAPSED_RANK = 1.5


def correlation_normalization(config: MBTConfig) -> tuple[str, float]:
    """Returns kind and strength of the normalization under which the config's latents are correlated."""
    kind = config.latent_normalization or OWN_NORMALIZATIONS.get(config.objective, "batch")
    # A correlation is standardized along the batch, whatever the objective does.
    return "batch" if kind == "none" else kind, float(config.latent_normalization_strength)


@torch.no_grad()
def diagnose(accelerator: Accelerator, config: MBTConfig, output: MBTForPreTrainingOutput) -> dict[str, Tensor]:
    """Describes the latents of one step; every process makes the call and gets the values of the whole batch.

    Returns:
        0-d tensors: `mean_correlation`, the mean C_ii; `off_diagonal_rms` of C; `effective_rank` of the projections
        and `representation_effective_rank`, over at most 512 clips; for BT and MBT `loss_floor`, below which no
        latents get with this N, D and lambda. Of CPC the latents are each clip's mean over its frames.
    """
    assert output.projections is not None
    assert output.projections_b is not None
    assert output.representations is not None
    z_a, z_b = clip_latents(output.projections), clip_latents(output.projections_b)
    diagonal, rms = correlation_statistics(z_a, z_b, *correlation_normalization(config))
    z, h = (accelerator.gather(rows)[:RANKED_CLIPS] for rows in (z_a, output.representations))
    values = {
        "mean_correlation": diagonal,
        "off_diagonal_rms": rms,
        "effective_rank": effective_rank(z),
        "representation_effective_rank": effective_rank(h),
    }
    if config.objective in ("bt", "mbt"):
        num_pairs = len(z_a) * accelerator.num_processes
        floor = barlow_twins_floor(num_pairs, z_a.shape[1], float(config.redundancy_loss_weight))
        values["loss_floor"] = torch.tensor(floor, device=z_a.device)
    return values


def effective_rank(rows: Tensor) -> Tensor:
    """Computes exp(entropy) of the singular values of centered rows, (N, D) to () float32; at most min(N - 1, D).

    After Roy and Vetterli (2007); 0 where the rows do not vary at all.
    """
    centered = rows.double() - rows.double().mean(0)
    values = torch.linalg.svdvals(centered)
    if values[0] <= torch.finfo(torch.float32).eps * rows.double().abs().max():
        return torch.zeros((), device=rows.device)
    shares = values / values.sum()
    return torch.special.entr(shares).sum().exp().float()


class CollapseWatch:
    """Reports once when the latents or the representations of a run have collapsed, and once when they recover."""

    def __init__(self):
        self.collapsed = False

    def look(self, step: int, diagnostics: dict[str, Tensor], num_pairs: int) -> str | None:
        """Returns the words to print, if there is something new.

        Args:
            step: Step that is diagnosed.
            diagnostics: Of `diagnose`.
            num_pairs: Pairs of the whole batch, N.
        """
        ranks = {
            "latents": float(diagnostics["effective_rank"]),
            "representations": float(diagnostics["representation_effective_rank"]),
        }
        collapsed = [name for name, rank in ranks.items() if rank < min(COLLAPSED_RANK, num_pairs / 4)]
        news = bool(collapsed) != self.collapsed
        self.collapsed = bool(collapsed)
        if not news:
            return None
        if not collapsed:
            return f"Step {step}: the run has recovered from its collapse."
        return (
            f"Step {step}: the {' and the '.join(collapsed)} have collapsed: all clips look the same or lie on one "
            f"line (effective rank {ranks[collapsed[0]]:.2f}). Lower --learning_rate, take a larger batch, or raise "
            "the weight of the term that spreads them."
        )
