"""Contrastive predictive coding (van den Oord et al., 2018, arXiv 1807.03748): its network and its objective.

Axes: N clips in the batch of all processes together, n clips of this process, T' frames, H hidden size, K predictions
of each frame, D dimensions of a frame's latent.

Projections are (n, T', 1 + K, D + 1). Entry 0 of a frame is its latent z, the others are what was predicted of it; the
last dimension is 1 where there is such a frame or prediction, and 0 in padding and before the first prediction.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .distributed_mbt import ObjectiveOutput, rows_of_all_processes, sum_over_processes, whole_batch
from .normalizations_mbt import unit_norm

LARGE = 1e9  # not infinity, of which a row without any candidate would make a gradient that is not a number


class MBTContextNetwork(nn.Module):
    """Frames to latents and predictions, (n, T', H), (n, T') -> (n, T', 1 + K, D + 1).

    z_t is linear in frame t, the context c_t is the state, of D dimensions too, of a GRU that has read z_1 to z_t, and
    W_k c_t predicts z_{t+k} (section 2.2), for every k in `steps`, in frames. The encoder looks to both sides: frames
    nearer than its `first_unseen_step` share input with frame t, from which a prediction could be copied.

    Raises:
        ValueError: A clip is too short for the last of the steps.
    """

    def __init__(self, hidden_size: int, context_size: int, steps: Sequence[int]):
        super().__init__()
        self.steps = tuple(steps)
        self.latent = nn.Linear(hidden_size, context_size)
        self.context = nn.GRU(context_size, context_size, batch_first=True)
        self.predictors = nn.ModuleList(nn.Linear(context_size, context_size, bias=False) for _ in self.steps)

    def forward(self, frames: Tensor, mask: Tensor | None = None) -> Tensor:
        """Returns the projections."""
        if frames.shape[1] <= max(self.steps):
            raise ValueError(
                f"Predictive coding predicts frames {self.steps[0]} to {self.steps[-1]} ahead and was given clips of "
                f"{frames.shape[1]} frames: take longer crops, or an encoder of smaller time strides."
            )
        latents = self.latent(frames)
        contexts, _ = self.context(latents)
        real = latents.new_ones(frames.shape[:2]) if mask is None else mask.to(latents.dtype)
        entries = [torch.cat([latents, real.unsqueeze(-1)], dim=-1)]
        for k, predictor in zip(self.steps, self.predictors, strict=True):
            predictions = predictor(contexts[:, :-k])
            exist = (real[:, :-k] * real[:, k:]).unsqueeze(-1)
            entries.append(nn.functional.pad(torch.cat([predictions, exist], dim=-1), (0, 0, k, 0)))
        return torch.stack(entries, dim=2)


def cpc_loss(z_a: Tensor, z_b: Tensor, temperature: float = 0.1) -> ObjectiveOutput:
    """Computes InfoNCE (eq. 4): every prediction p finds its frame z, in each view by itself, on its own time line.

    -log(exp(s(p, z) / tau) / sum_z' exp(s(p, z') / tau)), the mean over all predictions of a view and over both views.
    z' are z, the frames of all other clips at the same time (whose sounds and speakers differ), and the other frames
    of the same clip (whose sounds alone differ). s is the cosine, as in wav2vec 2.0 (arXiv 2006.11477), where eq. 3
    has the bare product.

    Args:
        z_a: projections of the first views, (n, T', 1 + K, D + 1).
        z_b: projections of the second views.
        temperature: tau.

    Returns:
        `invariance_loss`, the mean of -s(p, z) / tau, that draws predictions to their frames; `redundancy_loss`, that
        of the sum's logarithm, which spreads the frames; and their sum, log(N + T' - 1) where all frames are the same.

    Raises:
        ValueError: if the shapes differ or have other axes, the whole batch holds fewer than two clips, or none of
            them is long enough for a prediction.
    """
    with whole_batch(z_a, z_b, ("clips", "frames", "predictions", "dimensions")) as (z_a, z_b, sizes):
        attraction, spread = (_mean_terms(z_a, sizes, temperature) + _mean_terms(z_b, sizes, temperature)) / 2
    return ObjectiveOutput(attraction + spread, attraction, spread)


def _mean_terms(z: Tensor, sizes: list[int], temperature: float) -> Tensor:
    """Computes attraction and spread of one view, (2,)."""
    unit, predicted = unit_norm(z[..., :-1]), z[:, :, 1:, -1].detach()
    latents, predictions = unit[:, :, 0], unit[:, :, 1:]
    attraction = -(predictions * latents.unsqueeze(2)).sum(-1) / temperature
    spread = (_candidates(z, latents, predictions, sizes) / temperature).logsumexp(-1)
    sums = torch.stack([(attraction * predicted).sum(), (spread * predicted).sum(), predicted.sum()])
    *sums, number = sum_over_processes(sums, sizes)
    if number == 0:
        raise ValueError("Predictive coding has no frame to predict here: every clip is too short. Take longer ones.")
    return torch.stack(sums) / number


def _candidates(z: Tensor, latents: Tensor, predictions: Tensor, sizes: list[int]) -> Tensor:
    """Cosines of predictions with the frames that they are to choose from, (n, T', K, N + T'); very low for none."""
    everyone = rows_of_all_processes(z[:, :, 0], sizes)  # (N, T', D + 1)
    cosines = [
        torch.einsum("ntkd,mtd->ntkm", predictions, unit_norm(everyone[..., :-1])),  # all clips, its own among them
        torch.einsum("ntkd,nsd->ntks", predictions, latents),  # its own clip, where its own frame is taken already
    ]
    itself = torch.eye(z.shape[1], dtype=torch.bool, device=z.device)
    missing = [(everyone[..., -1] == 0).T.expand(len(z), -1, -1), (z[:, None, :, 0, -1] == 0) | itself]
    return torch.cat(cosines, dim=-1).masked_fill(torch.cat(missing, dim=-1).unsqueeze(2), -LARGE)


def clip_latents(projections: Tensor) -> Tensor:
    """Returns one latent for each clip: (n, D) as it is; of predictive coding the mean over its frames, (n, D)."""
    if projections.ndim == 2:
        return projections
    latents, real = projections[:, :, 0, :-1], projections[:, :, 0, -1:]
    return (latents * real).sum(1) / real.sum(1).clamp(min=1)
