"""The loop around one optimizer step that pre-training and fine-tuning share."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import ProjectConfiguration, set_seed
from torch import nn
from transformers import FeatureExtractionMixin, PreTrainedModel
from transformers.utils import logging

from .accumulation import Losses
from .arguments import RunArguments
from .checkpoints import find_checkpoint, load_checkpoint, save_checkpoint
from .optimization import create_optimizer, create_scheduler
from .run_log import RunLog
from .sparsity import SparseTraining
from .step_sampler import steps_per_epoch

Model = TypeVar("Model", bound=PreTrainedModel)


def create_accelerator(args: RunArguments, name: str, seed: int) -> Accelerator:
    """Create the accelerator, seed every random number generator and start the trackers.

    transformers is told to report errors only: that a projector is left out or a classifier is new, at every loading,
    is what the scripts are for.
    """
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    Path(args.output_dir).mkdir(parents=True, exist_ok=True)
    accelerator = Accelerator(
        mixed_precision=args.mixed_precision,
        log_with=None if args.report_to == "none" else args.report_to,
        project_config=ProjectConfiguration(project_dir=args.output_dir, logging_dir=args.output_dir),
    )
    set_seed(seed)
    if args.report_to != "none":
        accelerator.init_trackers(name)
    return accelerator


def global_batch_size(args: RunArguments, num_processes: int) -> int:
    """Clips of one optimizer step, over all processes and micro-batches."""
    return args.per_device_train_batch_size * args.gradient_accumulation_steps * num_processes


def count_steps(args: RunArguments, num_clips: int, num_processes: int) -> int:
    """Give the optimizer steps of the run: `--max_steps`, or the epochs times their whole batches."""
    steps = steps_per_epoch(num_clips, global_batch_size(args, num_processes))
    return args.max_steps if args.max_steps > 0 else max(1, round(args.num_train_epochs * steps))


def train(
    args: RunArguments,
    accelerator: Accelerator,
    model: Model,
    extractor: FeatureExtractionMixin,
    batches: Callable[[int], Iterable[dict]],
    backpropagate: Callable[[nn.Module, list[dict], int], Losses],
    *,
    output_dir: Path,
    max_steps: int,
    description: str,
    sparsity: SparseTraining | None = None,
    eval_steps: int = 0,
    evaluate: Callable[[], dict[str, float]] | None = None,
) -> Model:
    """Train up to `max_steps`, from the checkpoint that `args` asks for.

    Args:
        args: The run.
        accelerator: Of `create_accelerator`.
        model: Trained in place.
        extractor: Saved beside the model in every checkpoint.
        batches: Gives this process's micro-batches from a step on, each a dict of tensors.
        backpropagate: (prepared model, micro-batches of a step, steps done) -> losses by name; adds the gradient of
            `"loss"` to the parameters'.
        output_dir: Folder of log and checkpoints.
        max_steps: Optimizer steps of the whole run.
        description: Words in front of the progress bar.
        sparsity: The masks of the model's weights, if it is sparse.
        eval_steps: Steps between two calls of `evaluate`; 0 is never.
        evaluate: Gives values for the log; it may put the model into evaluation mode if it puts it back.

    Raises:
        FloatingPointError: The loss is not finite; the checkpoints of earlier steps stay.
    """
    network, optimizer, scheduler = _prepare(args, accelerator, model, sparsity, max_steps)
    checkpoint = find_checkpoint(output_dir, args.resume_from_checkpoint)
    step = load_checkpoint(accelerator, checkpoint)["step"] if checkpoint else 0
    log = RunLog(
        accelerator,
        output_dir,
        description,
        max_steps,
        start_step=step,
        logging_steps=args.logging_steps,
        clips_per_step=global_batch_size(args, accelerator.num_processes),
    )
    network.train()
    for micro_batches in _grouped(batches(step), args.gradient_accumulation_steps):
        losses = backpropagate(network, micro_batches, step)
        _check_finite(losses["loss"], step)
        learning_rate = scheduler.get_last_lr()[0]
        if sparsity is not None:
            sparsity.before_step(step, optimizer)
        if args.max_grad_norm > 0:
            accelerator.clip_grad_norm_(network.parameters(), args.max_grad_norm)
        optimizer.step()
        if sparsity is not None:
            sparsity.mask_weights()
        scheduler.step()
        optimizer.zero_grad()
        step += 1
        log.step(step, {**losses, "learning_rate": learning_rate})
        if evaluate is not None and eval_steps > 0 and step % eval_steps == 0:
            log.evaluation(step, evaluate())
        if args.save_steps > 0 and step % args.save_steps == 0 and step < max_steps:
            save_checkpoint(accelerator, model, extractor, output_dir, {"step": step}, args.save_total_limit)
    log.close()
    if args.report_to != "none":
        accelerator.end_training()
    return accelerator.unwrap_model(network, keep_torch_compile=False)


def _prepare(
    args: RunArguments,
    accelerator: Accelerator,
    model: PreTrainedModel,
    sparsity: SparseTraining | None,
    max_steps: int,
) -> tuple[nn.Module, torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Give the model its layout and its place, and whatever learns or schedules to the accelerator."""
    # The convolutions' fastest layout on CPU and on tensor cores.
    model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    if args.sync_batch_norm:
        synchronize_batch_norm(model, accelerator.device, accelerator.num_processes)
    optimizer = create_optimizer(model, args.learning_rate, args.weight_decay)
    scheduler = create_scheduler(optimizer, args.warmup_steps, max_steps)
    network, optimizer = accelerator.prepare(model, optimizer)
    # Not prepared: accelerate would step a prepared schedule once per process.
    accelerator.register_for_checkpointing(scheduler)
    if sparsity is not None:
        accelerator.register_for_checkpointing(sparsity)
    return network, optimizer, scheduler


def synchronize_batch_norm(model: nn.Module, device: torch.device, num_processes: int) -> None:
    """Let batch norm see the clips of all processes, on GPUs, the only place where torch has it.

    Parameters, buffers and their names stay those of plain batch norm, and so do saved weights.
    """
    if device.type == "cuda" and num_processes > 1:
        nn.SyncBatchNorm.convert_sync_batchnorm(model)


def _grouped(batches: Iterable[dict], number: int) -> Iterator[list[dict]]:
    """Give the micro-batches of each step."""
    batches = iter(batches)
    while group := list(islice(batches, number)):
        yield group


def _check_finite(loss: torch.Tensor, step: int) -> None:
    if not torch.isfinite(loss):
        raise FloatingPointError(
            f"The loss of step {step + 1} is {loss.item()}: lower --learning_rate, or use --mixed_precision no. The "
            "checkpoints of earlier steps are untouched."
        )
