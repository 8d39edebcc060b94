"""The loop around one optimizer step that pre-training and fine-tuning share."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import ProjectConfiguration, set_seed
from transformers import FeatureExtractionMixin, PreTrainedModel
from transformers.utils import logging

from .arguments import RunArguments
from .checkpoints import find_checkpoint, load_checkpoint, save_checkpoint
from .optimization import create_optimizer, create_scheduler
from .run_log import RunLog
from .step_sampler import steps_per_epoch

Losses = dict[str, torch.Tensor]
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


def count_steps(args: RunArguments, num_clips: int, num_processes: int) -> int:
    """Give the optimizer steps of the run: `--max_steps`, or the epochs times their whole batches."""
    steps = steps_per_epoch(num_clips, args.per_device_train_batch_size * num_processes)
    return args.max_steps if args.max_steps > 0 else max(1, round(args.num_train_epochs * steps))


def train(
    args: RunArguments,
    accelerator: Accelerator,
    model: Model,
    extractor: FeatureExtractionMixin,
    batches: Callable[[int], Iterable[dict]],
    forward: Callable[[torch.nn.Module, dict, int], Losses],
    *,
    output_dir: Path,
    max_steps: int,
    description: str,
    eval_steps: int = 0,
    evaluate: Callable[[], dict[str, float]] | None = None,
) -> Model:
    """Train up to `max_steps`, from the checkpoint that `args` asks for.

    Args:
        args: The run.
        accelerator: Of `create_accelerator`.
        model: Trained in place.
        extractor: Saved beside the model in every checkpoint.
        batches: Gives this process's batches from a step on, each a dict of tensors.
        forward: (wrapped model, batch on the device, step) -> losses by name; `"loss"` is minimised.
        output_dir: Folder of log and checkpoints.
        max_steps: Optimizer steps of the whole run.
        description: Words in front of the progress bar.
        eval_steps: Steps between two calls of `evaluate`; 0 is never.
        evaluate: Gives values for the log; it may put the model into evaluation mode if it puts it back.

    Raises:
        FloatingPointError: The loss is not finite; the checkpoints of earlier steps stay.
    """
    # The convolutions' fastest layout on CPU and on tensor cores.
    model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    optimizer = create_optimizer(model, args.learning_rate, args.weight_decay)
    scheduler = create_scheduler(optimizer, args.warmup_steps, max_steps)
    wrapped, optimizer = accelerator.prepare(model, optimizer)
    # Not prepared: accelerate would step a prepared schedule once per process.
    accelerator.register_for_checkpointing(scheduler)
    checkpoint = find_checkpoint(output_dir, args.resume_from_checkpoint)
    step = load_checkpoint(accelerator, checkpoint)["step"] if checkpoint else 0
    log = RunLog(
        accelerator,
        output_dir,
        description,
        max_steps,
        start_step=step,
        logging_steps=args.logging_steps,
        clips_per_step=args.per_device_train_batch_size * accelerator.num_processes,
    )
    wrapped.train()
    for batch in batches(step):
        batch = {name: value.to(accelerator.device, non_blocking=True) for name, value in batch.items()}
        losses = forward(wrapped, batch, step)
        if not torch.isfinite(losses["loss"]):
            raise FloatingPointError(
                f"The loss of step {step + 1} is {losses['loss'].item()}: lower --learning_rate, or use "
                "--mixed_precision no. The checkpoints of earlier steps are untouched."
            )
        accelerator.backward(losses["loss"])
        if args.max_grad_norm > 0:
            accelerator.clip_grad_norm_(wrapped.parameters(), args.max_grad_norm)
        learning_rate = scheduler.get_last_lr()[0]
        optimizer.step()
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
    return accelerator.unwrap_model(wrapped, keep_torch_compile=False)
