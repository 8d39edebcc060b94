"""Checkpoints that are whole or absent, and the search for the last good one."""

import hashlib
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from safetensors import SafetensorError
from transformers import FeatureExtractionMixin

from .training_state import TrainingState

PROGRESS_NAME = "progress.json"
# What reading a file that is not what it should be ends in, also one that was made to do harm.
UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError)


class CheckpointError(ValueError):
    """A checkpoint cannot be written or read; the message says what to do."""


def save_checkpoint(
    state: TrainingState,
    extractor: FeatureExtractionMixin,
    output_dir: Path,
    progress: dict[str, Any],
    save_total_limit: int,
) -> Path:
    """Writes `checkpoint-<step>`, that resumes training and that `from_pretrained` opens.

    It is written under another name and renamed when it is on the disk, so that a folder called `checkpoint-*` is
    never half of one, and it lists its files with their checksums. Every process calls this.

    Args:
        state: What training goes on from.
        extractor: The feature extractor that belongs to its model.
        output_dir: The run's folder.
        progress: JSON values to come back at resume; `progress["step"]` names the folder.
        save_total_limit: Older checkpoints beyond this number are deleted.

    Returns:
        The checkpoint's folder.

    Raises:
        CheckpointError: It cannot be written; those before it are untouched.
    """
    accelerator = state.accelerator
    target = output_dir / f"checkpoint-{progress['step']}"
    partial = output_dir / f".{target.name}.partial"
    try:
        if accelerator.is_main_process:
            for unfinished in output_dir.glob(".checkpoint-*.partial"):  # of a run that was killed
                shutil.rmtree(unfinished, ignore_errors=True)
            partial.mkdir()
        accelerator.wait_for_everyone()
        values = state.save(partial)
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            extractor.save_pretrained(partial)
            write_progress(partial, {**progress, "num_processes": accelerator.num_processes, "state": values})
            _put_in_place(partial, target)
            _rotate(output_dir, progress["step"], save_total_limit)
    except (OSError, RuntimeError, SafetensorError) as error:  # torch and safetensors wrap what the disk says
        shutil.rmtree(partial, ignore_errors=True)
        raise _not_written(progress["step"], output_dir, error) from error
    accelerator.wait_for_everyone()
    return target


def _not_written(step: int, output_dir: Path, error: Exception) -> CheckpointError:
    last = (list_checkpoints(output_dir) or [None])[-1]
    return CheckpointError(
        f"The checkpoint of step {step} cannot be written to {output_dir}: {error}. Make room or name "
        f"another --output_dir. {f'The last good checkpoint is {last}.' if last else 'There is none before it.'}"
    )


def write_progress(checkpoint: Path, progress: dict[str, Any]) -> None:
    """Writes `progress.json`: where the run stands, and the checksum of every file there is, its own content's too."""
    names = sorted(str(path.relative_to(checkpoint)) for path in checkpoint.rglob("*") if path.is_file())
    files = {name: _checksum(checkpoint / name) for name in names if name != PROGRESS_NAME}
    content = {**progress, "files": files}
    (checkpoint / PROGRESS_NAME).write_text(json.dumps({"checksum": _checksum_of_values(content), **content}))


def read_progress(checkpoint: Path) -> dict[str, Any]:
    """Reads `progress.json`.

    Raises:
        ValueError: The file is damaged; other `UNREADABLE` errors where it is missing or something else.
    """
    content = json.loads((checkpoint / PROGRESS_NAME).read_text())
    if content.pop("checksum") != _checksum_of_values(content):
        raise ValueError("its values are not those of its checksum")
    return content


def _put_in_place(partial: Path, target: Path) -> None:
    """Renames a complete folder once its content is on the disk: after a power failure too, it is whole or absent."""
    for path in [*partial.rglob("*"), partial]:
        _synchronize(path)
    shutil.rmtree(target, ignore_errors=True)
    os.replace(partial, target)
    _synchronize(target.parent)


def _rotate(output_dir: Path, step: int, save_total_limit: int) -> None:
    """Deletes the oldest checkpoints, and later ones, of a run that went on from an earlier one instead."""
    known = list_checkpoints(output_dir)
    past = [checkpoint for checkpoint in known if step_of(checkpoint) <= step]
    for checkpoint in {*known} - {*past[-save_total_limit:]}:
        shutil.rmtree(checkpoint)


def _synchronize(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _checksum_of_values(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def list_checkpoints(output_dir: Path) -> list[Path]:
    """Returns the checkpoints of a run, oldest first."""
    found = [path for path in output_dir.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    return sorted(found, key=step_of)


def step_of(checkpoint: Path) -> int:
    """Returns the number of steps that were done, from a checkpoint's name."""
    return int(checkpoint.name.split("-")[1])


def discard_checkpoints(accelerator: Accelerator, output_dir: Path, overwrite_output_dir: bool) -> None:
    """Clears the way for a run that starts anew.

    Raises:
        CheckpointError: There are checkpoints, and they may not be deleted.
    """
    found = list_checkpoints(output_dir)
    if found and not overwrite_output_dir:
        raise CheckpointError(
            f"{output_dir} holds {found[-1].name}: continue with --resume_from_checkpoint auto, or start anew with "
            "--overwrite_output_dir."
        )
    accelerator.wait_for_everyone()
    for checkpoint in found if accelerator.is_main_process else ():
        shutil.rmtree(checkpoint)


def checkpoint_fault(checkpoint: Path) -> str | None:
    """Returns what a checkpoint lacks, as the rest of a sentence; None if it is whole."""
    try:
        files = read_progress(checkpoint)["files"].items()
    except UNREADABLE:
        return f"is no checkpoint of this script (it has no good {PROGRESS_NAME})"
    for name, checksum in files:
        path = checkpoint / name
        if not path.is_file():
            return f"lacks {name}"
        if _checksum(path) != checksum:
            return f"has a damaged {name} (its checksum is another)"
    return None


def whole_checkpoint(folder: str) -> Path:
    """Returns the folder of a checkpoint that a user names.

    Raises:
        CheckpointError: It is no checkpoint, or a damaged one.
    """
    fault = checkpoint_fault(Path(folder))
    if fault:
        raise CheckpointError(f"{folder} {fault}: name a whole checkpoint-<step> folder, or `auto` for the last one.")
    return Path(folder)


def find_checkpoint(accelerator: Accelerator, output_dir: Path, resume_from_checkpoint: str | None) -> Path | None:
    """Resolves `--resume_from_checkpoint`: a folder, `auto` for the last good one below `output_dir`, or nothing.

    Raises:
        CheckpointError: The folder that is named is no checkpoint, or a damaged one.
    """
    if resume_from_checkpoint is None:
        return None
    if resume_from_checkpoint != "auto":
        return whole_checkpoint(resume_from_checkpoint)
    checkpoints = list_checkpoints(output_dir)
    while checkpoints:
        checkpoint = checkpoints.pop()
        fault = checkpoint_fault(checkpoint)
        if fault is None:
            return checkpoint
        instead = "taking the one before it" if checkpoints else "there is none before it, so training begins anew"
        accelerator.print(f"{checkpoint} {fault}: {instead}.")
    return None


def load_checkpoint(state: TrainingState, checkpoint: Path, identity: str | None = None) -> dict[str, Any]:
    """Restores weights, optimizer, masks and random states; returns what `progress` was.

    Raises:
        CheckpointError: It is of another run, or of a training of another identity.
    """
    try:
        progress = read_progress(checkpoint)
        if progress.get("identity", identity) != identity:
            raise ValueError("it is of another training, with another model, other labels, seed or arguments")
        state.load(checkpoint, progress["state"])
        there, here = progress["num_processes"], state.accelerator.num_processes
    except UNREADABLE as error:
        raise CheckpointError(
            f"{checkpoint} cannot be resumed: {error}. Give the arguments of the run that wrote it, or start anew in "
            "another --output_dir."
        ) from error
    if there != here:
        state.accelerator.print(
            f"{checkpoint} was saved by {there} processes, and there are {here} now: the random state (dropout) is "
            "not continued."
        )
    return progress
