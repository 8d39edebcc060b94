"""Gradients of a batch that is too large for memory, micro-batch by micro-batch.

Axes: k micro-batches of B pairs in each of W processes, N = W k B pairs in the whole batch, D latents, P numbers
that represent a clip.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from modeling_mbt import MBTForPreTraining, MBTForPreTrainingOutput

Views = tuple[Tensor, Tensor]
Losses = dict[str, Tensor]
ClipBatch = tuple[Tensor, ...]


def backpropagate_views(
    accelerator: Accelerator, network: nn.Module, micro_batches: Sequence[Views]
) -> MBTForPreTrainingOutput:
    """Adds the gradient of the objective over the whole batch to the parameters' gradients.

    Losses of micro-batches do not add up to the loss of their batch, whose statistics they share. So there are two
    passes (gradient caching, arXiv 2101.06983): the first one keeps the projections alone, from which the loss and
    its gradient dL/dZ follow; the second one runs each micro-batch again, with the same dropout, and backpropagates
    its rows of dL/dZ. The activations in memory are those of one micro-batch; a step takes a forward pass more. The
    result is exact for a network that treats clips one by one. Batch norm does not: it normalizes over each
    micro-batch, as it does over each process's share of a batch. Its running statistics see every clip once.

    Args:
        accelerator: Of `create_accelerator`; brings mixed precision, loss scaling and the mean over processes.
        network: The prepared `MBTForPreTraining`.
        micro_batches: The two views, (B, T, M), of each.

    Returns:
        The output over all of this process's micro-batches, (k B, D) and (k B, P); the loss is that of the N pairs.
    """
    if len(micro_batches) == 1:
        output = network(*micro_batches[0])
        accelerator.backward(output.loss)
        return output
    model: MBTForPreTraining = accelerator.unwrap_model(network)
    random_state = _random_state(accelerator.device)
    outputs = _project_all(network, micro_batches)
    joined: dict[str, Any] = {name: torch.cat([one[name] for one in outputs]) for name in outputs[0]}
    output = MBTForPreTrainingOutput(**joined)
    gradients = _differentiate(model, output)
    rows = [len(one["projections"]) for one in outputs]
    with _replayed(random_state, accelerator.device):
        for number, (views, *slices) in enumerate(
            zip(micro_batches, *(gradient.split(rows) for gradient in gradients), strict=True)
        ):
            is_last = number == len(micro_batches) - 1
            with nullcontext() if is_last else accelerator.no_sync(network):
                again = network(*views, return_loss=False, output_hidden_states=False)
                accelerator.backward(_inner_product((again.projections, again.projections_b), slices))
    return output


def _inner_product(projections: Sequence[Tensor], gradients: Sequence[Tensor]) -> Tensor:
    """Computes <Z, dL/dZ>, whose gradient by the parameters is that of the loss: these rows' share of it."""
    terms = [(z * gradient.to(z.dtype)).sum() for z, gradient in zip(projections, gradients, strict=True)]
    return terms[0] + terms[1]


def backpropagate_mean(
    accelerator: Accelerator,
    network: nn.Module,
    batches: Iterable[ClipBatch],
    num_clips: int,
    forward: Callable[[ClipBatch], Losses],
) -> Losses:
    """Adds the gradient of a loss that is a mean over clips to the parameters' gradients.

    Args:
        accelerator: Of `create_accelerator`.
        network: The prepared model.
        batches: Tuples of tensors of B clips each, where B may differ; each is taken when those before it are done.
        num_clips: Those of all batches together, the same number in every process.
        forward: batch -> means over its clips by name, of which `"loss"` is minimized.

    Returns:
        The values' means over all clips.
    """
    num_done, means = 0, {}
    for batch in batches:
        num_done += len(batch[0])
        with nullcontext() if num_done == num_clips else accelerator.no_sync(network):
            values = {name: value * len(batch[0]) / num_clips for name, value in forward(batch).items()}
            accelerator.backward(values["loss"])
        for name, value in values.items():
            means[name] = means.get(name, 0) + value.detach()
    return means


@torch.no_grad()
def _project_all(network: nn.Module, micro_batches: Sequence[Views]) -> list[MBTForPreTrainingOutput]:
    """Runs the first pass, which leaves the buffers (running statistics of batch norm) as they were."""
    buffers = [(buffer, buffer.clone()) for buffer in network.buffers()]
    outputs = [network(*views, return_loss=False, output_hidden_states=False) for views in micro_batches]
    for buffer, before in buffers:
        buffer.copy_(before)
    return outputs


def _differentiate(model: MBTForPreTraining, output: MBTForPreTrainingOutput) -> Sequence[Tensor]:
    """Puts the objective into `output` and returns its gradient for the two projections."""
    leaves = [output[name].detach().requires_grad_() for name in ("projections", "projections_b")]
    objective = model.compare(*leaves)
    for name, value in objective._asdict().items():
        output[name] = value.detach()
    return torch.autograd.grad(objective.loss, leaves)


def _random_state(device: torch.device) -> list[Tensor]:
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]


@contextmanager
def _replayed(state: list[Tensor], device: torch.device) -> Iterator[None]:
    """Draws again what was drawn from `state` on, and then goes on as if nothing had been drawn."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.set_rng_state(state[0])
        if device.type == "cuda":
            torch.cuda.set_rng_state(state[1], device)
        yield
