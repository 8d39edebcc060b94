"""The loop around one optimizer step that pre-training and fine-tuning share."""

import sys
import tempfile
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import NoReturn, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, GradientAccumulationPlugin, ProjectConfiguration, set_seed
from torch import nn
from transformers import FeatureExtractionMixin
from transformers.utils import logging

from mbt_speech.arguments import RunArguments
from mbt_speech.command_line import write_recipe
from mbt_speech.data.step_sampler import steps_per_epoch
from modeling_mbt import MBTPreTrainedModel

from .accumulation import Losses
from .checkpoints import CheckpointError, find_checkpoint, load_checkpoint, save_checkpoint
from .hub_uploads import HubUploads
from .interruption import StopSignals
from .memory import keep_freed_memory
from .optimization import create_optimizer, create_scheduler
from .run_log import RunLog
from .sparsity import SparseTraining

Model = TypeVar("Model", bound=MBTPreTrainedModel)

MAX_SKIPPED_IN_A_ROW = 5
MAX_NAMES = 8
SHARDED = (DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM)


def create_accelerator(args: RunArguments, name: str, seed: int) -> Accelerator:
    """Create the accelerator, seed every random number generator and start the trackers.

    transformers is told to report errors only: that a projector is left out or a classifier is new, at every loading,
    is what the scripts are for.
    """
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        Path(args.output_dir).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=args.output_dir):
            pass
    except OSError as error:
        raise CheckpointError(f"--output_dir {args.output_dir} cannot be written to: {error}.") from None
    accelerator = Accelerator(
        mixed_precision=args.mixed_precision,
        dynamo_backend="inductor" if args.torch_compile else None,
        # Ours is exact; accelerate's own would divide losses on top of it.
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
        log_with=None if args.report_to == "none" else args.report_to,
        project_config=ProjectConfiguration(project_dir=args.output_dir, logging_dir=args.output_dir),
    )
    if accelerator.device.type == "cpu":
        keep_freed_memory()
    if accelerator.distributed_type in SHARDED:
        raise ValueError(
            "These networks fit on any one device, so that sharding them would only cost time: launch without FSDP or "
            "DeepSpeed, for example with recipes/accelerate/gpus.yaml."
        )
    if accelerator.is_main_process:
        write_recipe(args)
    set_seed(seed)
    if args.report_to != "none":
        accelerator.init_trackers(name)
    return accelerator


def global_batch_size(args: RunArguments, num_processes: int) -> int:
    """Clips of one optimizer step, over all processes and micro-batches."""
    return args.per_device_train_batch_size * args.gradient_accumulation_steps * num_processes


def count_steps(args: RunArguments, num_clips: int | None, num_processes: int) -> int:
    """Give the optimizer steps of the run: `--max_steps`, or the epochs times their whole batches."""
    if num_clips is None:  # of a stream
        return args.max_steps
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
    evaluate: Callable[[int], dict[str, float]] | None = None,
    describe_step: Callable[[int], Sequence[str]] = lambda step: (),
    uploads: HubUploads | None = None,
) -> Model:
    """Train up to `max_steps`, from the checkpoint that `args` asks for.

    SIGTERM and SIGINT end the process with exit code 0, after the step that is under way and a checkpoint.

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
        evaluate: (steps done) -> values for the log; it may put the model into evaluation mode if it puts it back.
        describe_step: (steps done) -> names of the recordings in this process's batch of the next step.
        uploads: Is shown every checkpoint.

    Raises:
        FloatingPointError: Losses or gradients were not finite so many steps in a row.
        CheckpointError: A checkpoint cannot be written or read.
    """
    run = _Run(args, accelerator, model, extractor, sparsity, output_dir, max_steps, description, uploads)
    run.network.train()
    with StopSignals() as signals, closing(_grouped(batches(run.step), args.gradient_accumulation_steps)) as steps:
        for micro_batches in steps:
            run.take_step(lambda network, group=micro_batches: backpropagate(network, group, run.step), describe_step)
            if evaluate is not None and eval_steps > 0 and run.step % eval_steps == 0:
                run.log.evaluation(run.step, evaluate(run.step))
            stops = _any(accelerator, signals.received is not None) and run.step < max_steps
            if stops:
                run.stop(signals.received or "a signal")
            elif args.save_steps > 0 and run.step % args.save_steps == 0 and run.step < max_steps:
                run.save()
    run.close()
    return accelerator.unwrap_model(run.network, keep_torch_compile=False)


class _Run:
    """What accelerate prepared, where the run stands, and how it takes a step."""

    def __init__(
        self,
        args: RunArguments,
        accelerator: Accelerator,
        model: MBTPreTrainedModel,
        extractor: FeatureExtractionMixin,
        sparsity: SparseTraining | None,
        output_dir: Path,
        max_steps: int,
        description: str,
        uploads: HubUploads | None,
    ):
        self.args, self.accelerator, self.model, self.extractor = args, accelerator, model, extractor
        self.sparsity, self.output_dir, self.max_steps, self.uploads = sparsity, output_dir, max_steps, uploads
        self.step, self.skipped_steps, self.skipped_in_a_row = 0, 0, 0
        self._prepare()
        checkpoint = find_checkpoint(accelerator, output_dir, args.resume_from_checkpoint)
        if checkpoint is not None:
            progress = load_checkpoint(accelerator, checkpoint)
            self.step, self.skipped_steps = progress["step"], progress["skipped_steps"]
            accelerator.print(f"Resuming from {checkpoint}.")
        self.log = RunLog(
            accelerator,
            output_dir,
            description,
            max_steps,
            start_step=self.step,
            logging_steps=args.logging_steps,
            clips_per_step=global_batch_size(args, accelerator.num_processes),
        )

    def _prepare(self) -> None:
        """Give the model its layout and its place, and whatever learns or schedules to the accelerator."""
        args, accelerator, model = self.args, self.accelerator, self.model
        # The convolutions' fastest layout on CPU and on tensor cores.
        model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        if args.sync_batch_norm:
            synchronize_batch_norm(model, accelerator.device, accelerator.num_processes)
        optimizer = create_optimizer(
            model,
            args.learning_rate,
            args.weight_decay,
            optim=args.optim,
            layerwise_lr_decay=args.layerwise_lr_decay,
        )
        self.scheduler = create_scheduler(optimizer, args.warmup_steps, self.max_steps)
        self.network, self.optimizer = accelerator.prepare(model, optimizer)
        # Not prepared: accelerate would step a prepared schedule once per process.
        accelerator.register_for_checkpointing(self.scheduler)
        if self.sparsity is not None:
            accelerator.register_for_checkpointing(self.sparsity)

    def take_step(
        self, backpropagate: Callable[[nn.Module], Losses], describe_step: Callable[[int], Sequence[str]]
    ) -> None:
        """Take an optimizer step, or skip it where loss or gradient is not finite."""
        buffers = [(buffer, buffer.clone()) for buffer in self.network.buffers()]
        losses = backpropagate(self.network)
        if self.sparsity is not None:
            self.sparsity.before_step(self.step, self.optimizer)
        learning_rate = self.scheduler.get_last_lr()[0]
        if _any(self.accelerator, not self._is_finite(losses["loss"])):
            self._skip(buffers, losses["loss"].item(), describe_step)
        else:
            self.skipped_in_a_row = 0
            self.optimizer.step()
            if self.sparsity is not None:
                self.sparsity.mask_weights()
        self.scheduler.step()
        self.optimizer.zero_grad()
        self.step += 1
        skipped = {"skipped_steps": self.skipped_steps} if self.skipped_steps else {}
        self.log.step(self.step, {**losses, "learning_rate": learning_rate, **skipped})

    def _is_finite(self, loss: torch.Tensor) -> bool:
        """Clip the gradient, and tell whether loss and gradient are finite."""
        if not torch.isfinite(loss):
            return False
        if self.args.max_grad_norm <= 0:
            return True
        norm = self.accelerator.clip_grad_norm_(self.network.parameters(), self.args.max_grad_norm)
        # In fp16 the loss scaler looks after overflowing gradients itself.
        return self.accelerator.scaler is not None or norm is None or bool(torch.isfinite(norm))

    def _skip(
        self,
        buffers: list[tuple[torch.Tensor, torch.Tensor]],
        loss: float,
        describe_step: Callable[[int], Sequence[str]],
    ) -> None:
        """Leave weights and running statistics as they were before the step."""
        for buffer, before in buffers:
            buffer.copy_(before)
        self.skipped_steps += 1
        self.skipped_in_a_row += 1
        self.accelerator.print(f"Step {self.step + 1} is skipped: its loss is {loss}, or its gradient is not finite.")
        if self.skipped_in_a_row < MAX_SKIPPED_IN_A_ROW:
            return
        names = list(describe_step(self.step))
        shown = ", ".join(names[:MAX_NAMES]) + (f" and {len(names) - MAX_NAMES} more" if names[MAX_NAMES:] else "")
        raise FloatingPointError(
            f"The last {MAX_SKIPPED_IN_A_ROW} steps, up to step {self.step + 1}, had a loss or gradient that is not "
            f"finite (the last loss is {loss}): lower --learning_rate, or use --mixed_precision no. The checkpoints "
            f"of earlier steps are untouched.{f' The last batch held {shown}.' if shown else ''}"
        )

    def save(self) -> Path:
        """Write a checkpoint."""
        progress, limit = {"step": self.step, "skipped_steps": self.skipped_steps}, self.args.save_total_limit
        checkpoint = save_checkpoint(self.accelerator, self.model, self.extractor, self.output_dir, progress, limit)
        if self.uploads is not None:
            self.uploads.push_checkpoint(checkpoint)
        return checkpoint

    def stop(self, reason: str) -> NoReturn:
        """Save, and end the process as one that has done its work."""
        checkpoint = self.save()
        self.close()
        self.accelerator.print(
            f"Stopped by {reason} after step {self.step} of {self.max_steps}: everything is in {checkpoint}. Continue "
            "with --resume_from_checkpoint auto."
        )
        if self.uploads is not None:
            self.uploads.give_up()
        sys.exit(0)

    def close(self) -> None:
        """End the bar and the trackers."""
        self.log.close()
        if self.args.report_to != "none":
            self.accelerator.end_training()


def _any(accelerator: Accelerator, flag: bool) -> bool:
    """Whether the flag is set in any process, so that all of them do the same."""
    if accelerator.num_processes == 1:
        return flag
    total = accelerator.reduce(torch.tensor(float(flag), device=accelerator.device), "sum")
    return float(total) > 0  # pyright: ignore[reportArgumentType]


def synchronize_batch_norm(model: nn.Module, device: torch.device, num_processes: int) -> None:
    """Let batch norm see the clips of all processes, on GPUs, the only place where torch has it.

    Parameters, buffers and their names stay those of plain batch norm, and so do saved weights.
    """
    if device.type == "cuda" and num_processes > 1:
        nn.SyncBatchNorm.convert_sync_batchnorm(model)


def _grouped(batches: Iterable[dict], number: int) -> Generator[list[dict], None, None]:
    """Give the micro-batches of each step."""
    batches = iter(batches)
    while group := list(islice(batches, number)):
        yield group
