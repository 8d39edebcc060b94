"""The loop around one optimizer step that pre-training and fine-tuning share."""

import signal
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NoReturn, Protocol

import torch
from accelerate import Accelerator
from torch import nn
from transformers import FeatureExtractionMixin

from mbt_speech.data.step_sampler import steps_per_epoch
from mbt_speech.probing.hub_classifiers import HubClassifier
from mbt_speech.run_arguments import RunArguments
from mbt_speech.stopping import StoppedAfterSaving
from modeling_mbt import MBTPreTrainedModel

from .accumulation import Losses
from .checkpoints import CheckpointError, discard_checkpoints, find_checkpoint, load_checkpoint, save_checkpoint
from .hub_uploads import HubUploads
from .interruption import StopSignals
from .optimization import Schedule, create_optimizer
from .run_log import RunLog, is_logged
from .sparsity import SparseTraining
from .training_state import TrainingState

MAX_SKIPPED_IN_A_ROW = 5
MAX_NAMES = 8


def global_batch_size(args: RunArguments, num_processes: int) -> int:
    """Clips of one optimizer step, over all processes and micro-batches."""
    return args.per_device_train_batch_size * args.gradient_accumulation_steps * num_processes


def count_steps(args: RunArguments, num_clips: int | None, num_processes: int) -> int:
    """Returns the optimizer steps of the run: `--max_steps`, or the epochs times their whole batches."""
    if num_clips is None:  # of a stream
        return args.max_steps
    steps = steps_per_epoch(num_clips, global_batch_size(args, num_processes))
    if args.max_steps > 0:
        return args.max_steps
    if args.num_train_epochs == 0:
        raise ValueError("--num_train_epochs 0 trains nothing: give --max_steps or a number of epochs.")
    return max(1, round(args.num_train_epochs * steps))


class StepSource(Protocol):
    """Where the micro-batches of a run come from."""

    def batches(self, start_step: int, max_steps: int) -> Iterable[dict]:
        """Returns this process's micro-batches of the steps from `start_step` on, each a dict of tensors."""
        ...

    def names(self, step: int) -> Sequence[str]:
        """Returns the names of the recordings in this process's batch of a step, for error messages."""
        ...


class TrainingRun:
    """A network in training: what accelerate prepared, where the run stands, and how it takes a step.

        run = TrainingRun(args, accelerator, model, extractor, ...)
        for micro_batches in run.steps(crops):
            ...                    # add the gradient of the loss to the parameters of `run.network`
            run.update(losses)

    A run starts from the checkpoint that `--resume_from_checkpoint` asks for.

    Args:
        args: The run's arguments.
        accelerator: Of `launch.create_accelerator`.
        model: Trained in place; `network` is what accelerate makes of it.
        extractor: Saved beside the model in every checkpoint.
        max_steps: Optimizer steps of the whole run.
        description: Text in front of the progress bar.
        sparsity: The masks of the model's weights, if it is sparse.
        uploads: Gets every checkpoint.
        output_dir: Folder of log and checkpoints, by default that of `args`.
        encoder_learning_rate: Of the encoder, by default that of `args`, which is the rate of all else.
        identity: Tells this training from others in the same folder, if there may be any.

    Raises:
        CheckpointError: The checkpoint cannot be read, is of a training of another identity, or has all steps already.
    """

    def __init__(
        self,
        args: RunArguments,
        accelerator: Accelerator,
        model: MBTPreTrainedModel | HubClassifier,
        extractor: FeatureExtractionMixin,
        max_steps: int,
        description: str,
        sparsity: SparseTraining | None = None,
        uploads: HubUploads | None = None,
        *,
        output_dir: Path | None = None,
        encoder_learning_rate: float | None = None,
        identity: str | None = None,
    ):
        self.args, self.accelerator, self.model, self.extractor = args, accelerator, model, extractor
        self.identity = identity
        self.output_dir, self.max_steps = output_dir or Path(args.output_dir), max_steps
        self.sparsity, self.uploads = sparsity, uploads
        self.step, self.skipped_steps, self.skipped_in_a_row = 0, 0, 0
        self._prepare(encoder_learning_rate)
        if args.resume_from_checkpoint is None:
            discard_checkpoints(accelerator, self.output_dir, args.overwrite_output_dir)
        self.resumed_from = find_checkpoint(accelerator, self.output_dir, args.resume_from_checkpoint)
        if self.resumed_from is not None:
            self._resume(self.resumed_from)
        self.log = RunLog(
            accelerator,
            self.output_dir,
            description,
            max_steps,
            start_step=self.step,
            is_same_run=self.resumed_from is not None and self._is_own(self.resumed_from),
            logging_steps=args.logging_steps,
            clips_per_step=global_batch_size(args, accelerator.num_processes),
        )

    def _resume(self, checkpoint: Path) -> None:
        """Goes on from a checkpoint."""
        progress = load_checkpoint(self.state, checkpoint, self.identity)
        self.step, self.skipped_steps = progress["step"], progress["skipped_steps"]
        if self.step > self.max_steps or (self.step == self.max_steps and not self._is_own(checkpoint)):
            raise CheckpointError(
                f"{checkpoint} has {self.step} steps, and the run is to have {self.max_steps}: nothing is left to "
                "train. Raise --max_steps."
            )
        self.accelerator.print(f"Resuming from {checkpoint}.")

    def _is_own(self, checkpoint: Path) -> bool:
        return checkpoint.resolve().parent == self.output_dir.resolve()

    def _prepare(self, encoder_learning_rate: float | None) -> None:
        """Moves the model to its layout and place, and prepares whatever learns or schedules with the accelerator."""
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
            encoder_learning_rate=encoder_learning_rate,
        )
        self.schedule = Schedule(optimizer, args.warmup_steps, self.max_steps)
        self.network, self.optimizer = accelerator.prepare(model, optimizer)
        self.state = TrainingState(accelerator, model, optimizer, self.sparsity)

    def steps(self, source: StepSource) -> Iterator[list[dict]]:
        """Yields this process's micro-batches of each step that is left, and saves a checkpoint where one is due.

        The caller answers each of them with one `update`. SIGTERM and SIGINT end the process with exit code 0, after
        the step that is under way and a checkpoint.

        Raises:
            CheckpointError: A checkpoint cannot be written.
        """
        self.network.train()
        batches = iter(source.batches(self.step, self.max_steps))
        with StopSignals() as signals:
            while micro_batches := list(islice(batches, self.args.gradient_accumulation_steps)):
                self._names = partial(source.names, self.step)
                self._buffers = [(buffer, buffer.clone()) for buffer in self.network.buffers()]
                yield micro_batches
                if _any(self.accelerator, signals.received is not None):
                    self._stop(signals.received)
                elif self.is_due(self.args.save_steps) and self.step < self.max_steps:
                    self.save()
        self.log.close()

    def update(self, losses: Losses) -> None:
        """Takes an optimizer step along the gradient, or skips it where loss or gradient is not finite.

        Args:
            losses: Values for the log, of which `"loss"` tells whether the step is finite.

        Raises:
            FloatingPointError: Losses or gradients were not finite so many steps in a row.
        """
        learning_rate = self.schedule.set_rates(self.step)
        if _any(self.accelerator, not self._is_finite(losses["loss"])):
            self._skip(losses["loss"].item())
        else:
            self.skipped_in_a_row = 0
            if self.sparsity is not None:
                self.sparsity.before_step(self.step, self.optimizer)
            if self.args.max_grad_norm > 0:
                self.accelerator.clip_grad_norm_(self.network.parameters(), self.args.max_grad_norm)
            self.optimizer.step()
            if self.sparsity is not None:
                self.sparsity.mask_weights()
        self.optimizer.zero_grad()
        self.step += 1
        skipped = {"skipped_steps": self.skipped_steps} if self.skipped_steps else {}
        self.log.step(self.step, {**losses, "learning_rate": learning_rate, **skipped})

    @property
    def is_logged(self) -> bool:
        """Returns whether the step under way gets a line of the log."""
        return is_logged(self.step + 1, self.args.logging_steps, self.max_steps)

    def is_due(self, every: int) -> bool:
        """Returns whether something that happens every so many steps, 0 for never, comes after the last step."""
        return every > 0 and self.step % every == 0

    def _is_finite(self, loss: torch.Tensor) -> bool:
        """Returns whether loss and gradient are finite; in fp16, the loss scaler looks after the gradient itself."""
        if not torch.isfinite(loss) or self.accelerator.scaler is not None:
            return bool(torch.isfinite(loss))
        gradients = [own.grad for own in self.network.parameters() if own.grad is not None]
        return bool(torch.isfinite(nn.utils.get_total_norm(gradients)))

    def _skip(self, loss: float) -> None:
        """Leaves weights and running statistics as they were before the step."""
        for buffer, before in self._buffers:
            buffer.copy_(before)
        self.skipped_steps += 1
        self.skipped_in_a_row += 1
        self.accelerator.print(f"Step {self.step + 1} is skipped: its loss is {loss}, or its gradient is not finite.")
        if self.skipped_in_a_row < MAX_SKIPPED_IN_A_ROW:
            return
        names = list(self._names())
        shown = ", ".join(names[:MAX_NAMES]) + (f" and {len(names) - MAX_NAMES} more" if names[MAX_NAMES:] else "")
        raise FloatingPointError(
            f"The last {MAX_SKIPPED_IN_A_ROW} steps, up to step {self.step + 1}, had a loss or gradient that is not "
            f"finite (the last loss is {loss}): lower --learning_rate, or use --mixed_precision no. The checkpoints "
            f"of earlier steps are untouched.{f' The last batch held {shown}.' if shown else ''}"
        )

    def save(self) -> Path:
        """Writes a checkpoint and returns its folder."""
        progress = {"step": self.step, "skipped_steps": self.skipped_steps, "identity": self.identity}
        limit = self.args.save_total_limit
        checkpoint = save_checkpoint(self.state, self.extractor, self.output_dir, progress, limit)
        if self.uploads is not None:
            self.uploads.push_checkpoint(checkpoint)
        return checkpoint

    def _stop(self, received: signal.Signals | None) -> NoReturn:
        """Saves, and ends the process as one that has done its work; without a signal if another process got it."""
        checkpoint, reason = self.save(), "a signal" if received is None else received.name
        self.log.close()
        self.accelerator.print(
            f"Stopped by {reason} after step {self.step} of {self.max_steps}: everything is in {checkpoint}. Continue "
            "with --resume_from_checkpoint auto."
        )
        if self.uploads is not None:
            self.uploads.give_up()
        self.accelerator.end_training()
        raise StoppedAfterSaving(received or signal.SIGTERM)


def _any(accelerator: Accelerator, flag: bool) -> bool:
    """Returns whether the flag is set in any process, so that all of them do the same."""
    if accelerator.num_processes == 1:
        return flag
    total = accelerator.reduce(torch.tensor(float(flag), device=accelerator.device), "sum")
    return float(total) > 0  # pyright: ignore[reportArgumentType]


def synchronize_batch_norm(model: nn.Module, device: torch.device, num_processes: int) -> None:
    """Lets batch norm see the clips of all processes, on GPUs, the only place where torch has it.

    Parameters, buffers and their names stay those of plain batch norm, and so do saved weights.
    """
    if device.type == "cuda" and num_processes > 1:
        nn.SyncBatchNorm.convert_sync_batchnorm(model)
