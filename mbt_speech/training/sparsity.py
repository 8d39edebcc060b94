"""Encoders most of whose weights are zero: which ones they are, from the first step to the saved checkpoint.

What is pruned is every convolution and linear layer of the encoder but the first convolution; biases, norms and the
projector stay dense. The zeros are exact, before and after every optimizer step.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mbt_speech.arguments import SPARSITY_METHODS
from mbt_speech.data.step_sampler import derive_seed
from modeling_mbt import MBTModel, MBTPreTrainedModel

UPDATE_STEPS = 100
LAST_UPDATE = 0.75
FIRST_EXCHANGE = 0.3


class SparseTraining:
    """Holds the masks of a network in training, and moves them as its method says.

    `static`: a random mask, for good. `magnitude`: a dense network loses its smallest weights along a cubic schedule
    (Zhu and Gupta, 2017, arXiv 1710.01878). `rigl`: a random mask whose smallest weights are exchanged for the absent
    ones with the largest gradients (Evci et al., 2020, arXiv 1911.11134). `set`: the same with absent ones at random
    (Mocanu et al., 2018, arXiv 1707.04780). The share that is exchanged falls from 0.3 to 0 along half a cosine. Masks
    move every 100 steps, oftener in runs of less than 4000, up to three quarters of the run.

    Args:
        model: Its encoder is trained sparsely; weights outside of the first masks become zero at once.
        method: One of `SPARSITY_METHODS`.
        density: Share of the prunable weights that remains at the end, shared out by Erdős-Rényi kernels.
        max_steps: Optimizer steps of the run.
        seed: Of the random masks; the same in every process.

    Raises:
        ValueError: There is no such method, or the density is not in (0, 1].
    """

    def __init__(self, model: MBTPreTrainedModel, method: str, density: float, *, max_steps: int, seed: int):
        if method not in SPARSITY_METHODS:
            raise ValueError(f"There is no sparsity method {method!r}: choose one of {', '.join(SPARSITY_METHODS)}.")
        if not 0 < density <= 1:
            raise ValueError(f"--density is the share of weights that remains, in (0, 1], and is {density}.")
        self.method, self.seed = method, seed
        self.interval = max(1, min(UPDATE_STEPS, max_steps // 40))
        self.last_update = int(LAST_UPDATE * max_steps) // self.interval * self.interval
        self.weights = prunable_weights(model.base_model)
        self.densities = erdos_renyi_densities({name: w.shape for name, w in self.weights.items()}, density)
        self.masks = {name: torch.ones_like(w, dtype=torch.bool) for name, w in self.weights.items()}
        if method != "magnitude":
            for name, mask in self.masks.items():
                chance = torch.rand(mask.shape, generator=self._generator(name, 0)).to(mask.device)
                self.masks[name] = _largest(chance, _count(mask, self.densities[name]))
        self.mask_weights()

    @classmethod
    def keep_zeros(cls, model: MBTPreTrainedModel) -> "SparseTraining":
        """Holds the zeros that a sparse encoder came with, as fine-tuning does."""
        sparse = cls(model, "static", 1.0, max_steps=1, seed=0)
        sparse.masks = {name: weight.detach() != 0 for name, weight in sparse.weights.items()}
        return sparse

    @torch.no_grad()
    def before_step(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        """Moves the masks if it is time, then takes the gradients of absent weights away.

        Args:
            step: Optimizer steps done so far.
            optimizer: Its averages forget the weights that come and go.
        """
        if step % self.interval == 0 and step <= self.last_update and self._has_finite_gradients():
            self._move(step, optimizer)
        for name, weight in self.weights.items():
            if weight.grad is not None:
                weight.grad.mul_(self.masks[name])

    @torch.no_grad()
    def mask_weights(self) -> None:
        """Sets absent weights to zero, whatever the optimizer did to them."""
        for name, weight in self.weights.items():
            weight.mul_(self.masks[name])

    def state_dict(self) -> dict[str, Tensor]:
        """Returns the masks, for a checkpoint."""
        return self.masks

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Takes the masks of a checkpoint."""
        self.masks = {name: state[name].to(weight.device) for name, weight in self.weights.items()}

    def _has_finite_gradients(self) -> bool:
        """Returns whether masks may move by the gradients: in fp16, the loss scaler finds out only after this."""
        return all(weight.grad is None or bool(weight.grad.isfinite().all()) for weight in self.weights.values())

    def _move(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        progress = step / self.last_update if self.last_update else 1.0
        for name, weight in self.weights.items():
            before = self.masks[name]
            if self.method == "magnitude":
                density = 1 - (1 - self.densities[name]) * (1 - (1 - progress) ** 3)
                after = _largest(weight.abs().masked_fill(~before, -1), _count(weight, density))
            elif self.method in ("rigl", "set") and step > 0:
                share = FIRST_EXCHANGE / 2 * (1 + math.cos(math.pi * progress))
                after = self._exchanged(name, step, int(share * int(before.sum())))
            else:
                continue
            self.masks[name] = after
            changed = before != after
            weight.masked_fill_(changed, 0)
            for average in optimizer.state.get(weight, {}).values():
                if average.shape == weight.shape:
                    average.masked_fill_(changed, 0)

    def _exchanged(self, name: str, step: int, number: int) -> Tensor:
        """Drops the smallest weights and grows as many absent ones."""
        weight, mask = self.weights[name], self.masks[name]
        number = min(number, int((~mask).sum()))
        kept = _largest(weight.abs().masked_fill(~mask, -1), int(mask.sum()) - number)
        if self.method == "rigl":
            assert weight.grad is not None
            appeal = weight.grad.abs()
        else:
            appeal = torch.rand(mask.shape, generator=self._generator(name, step)).to(mask.device)
        return kept | _largest(appeal.masked_fill(mask, -1), number)

    def _generator(self, name: str, step: int) -> torch.Generator:
        return torch.Generator().manual_seed(derive_seed(self.seed, step, list(self.weights).index(name)))


class EncoderCost(NamedTuple):
    """What an encoder holds and takes."""

    density: float
    """Share of the prunable weights that are not zero."""
    num_weights: int
    """Weights of convolutions and linear layers that are not zero."""
    num_dense_weights: int
    """All of them."""
    flops: int
    """Multiplications and additions of one clip, without those by a weight of zero."""
    dense_flops: int
    """All of them."""


def encoder_cost(model: MBTModel, num_frames: int) -> EncoderCost:
    """Counts weights and floating-point operations of an encoder on one clip of `num_frames` frames."""
    features = torch.zeros(1, num_frames, model.config.num_mel_bins, device=model.device)
    training = model.training
    model.eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(features)
    model.train(training)
    layers = {name: module for name, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)}
    shares = {name: float((layer.weight != 0).float().mean()) for name, layer in layers.items()}
    counts = counter.get_flop_counts()
    dense = {name: sum(counts[f"{type(model).__name__}.{name}"].values()) for name in layers}
    prunable = list(prunable_weights(model).values())
    return EncoderCost(
        density=sum(int((w != 0).sum()) for w in prunable) / sum(w.numel() for w in prunable) if prunable else 1.0,
        num_weights=sum(int((layer.weight != 0).sum()) for layer in layers.values()),
        num_dense_weights=sum(layer.weight.numel() for layer in layers.values()),
        flops=round(sum(shares[name] * dense[name] for name in layers)),
        dense_flops=sum(dense.values()),
    )


def prunable_weights(model: nn.Module) -> dict[str, Tensor]:
    """Returns the weights of an `MBTModel`'s convolutions and linear layers, without the first, by name."""
    layers = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    return {name: module.weight for name, module in layers[1:]}


def erdos_renyi_densities(shapes: dict[str, torch.Size], density: float) -> dict[str, float]:
    """Shares a density out between layers: proportional to (sum of a kernel's sizes) / (product), at most 1.

    The Erdős-Rényi kernel of Evci et al. (2020): small layers keep more. Layers that would exceed 1 are dense, and
    the others share what is left.

    Args:
        shapes: Layer -> shape of its weight.
        density: Of all weights together.
    """
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    dense: set[str] = set()
    while True:
        sparse = [name for name in shapes if name not in dense]
        budget = density * sum(sizes.values()) - sum(sizes[name] for name in dense)
        scale = budget / max(1, sum(sum(shapes[name]) for name in sparse))
        full = {name for name in sparse if scale * sum(shapes[name]) >= sizes[name]}
        if not full:
            return {name: 1.0 if name in dense else scale * sum(shapes[name]) / sizes[name] for name in shapes}
        dense |= full


def _count(weight: Tensor, density: float) -> int:
    return max(1, round(density * weight.numel()))


def _largest(values: Tensor, number: int) -> Tensor:
    """Returns a mask of the `number` largest values."""
    mask = torch.zeros(values.numel(), dtype=torch.bool, device=values.device)
    mask[values.flatten().topk(number).indices] = True
    return mask.view_as(values)
