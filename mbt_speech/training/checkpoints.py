"""Checkpoints that are whole or absent, and the search for the newest good one."""

import json
import os
import re
import shutil
from pathlib import Path

from accelerate import Accelerator
from safetensors import SafetensorError
from transformers import FeatureExtractionMixin

from modeling_mbt import MBTPreTrainedModel

PROGRESS_NAME = "progress.json"


class CheckpointError(Exception):
    """A checkpoint cannot be written or read; the message says what to do."""


def save_checkpoint(
    accelerator: Accelerator,
    model: MBTPreTrainedModel,
    extractor: FeatureExtractionMixin,
    output_dir: Path,
    progress: dict,
    save_total_limit: int,
) -> Path:
    """Write `checkpoint-<step>`, that resumes training and that `from_pretrained` opens.

    It is written under another name and renamed when complete, so that a folder called `checkpoint-*` is never half
    of one, and it lists its files with their sizes. Every process calls this.

    Args:
        accelerator: Holds model, optimizer, and what was registered for checkpointing.
        model: The plain model (unwrapped), for its config.
        extractor: The feature extractor that belongs to it.
        output_dir: The run's folder.
        progress: JSON values to come back at resume; `progress["step"]` names the folder.
        save_total_limit: Older checkpoints beyond this number are deleted.

    Returns:
        The checkpoint's folder.

    Raises:
        CheckpointError: It cannot be written; those before it are untouched.
    """
    target = output_dir / f"checkpoint-{progress['step']}"
    partial = output_dir / f".{target.name}.partial"
    try:
        if accelerator.is_main_process:
            shutil.rmtree(partial, ignore_errors=True)
        accelerator.wait_for_everyone()
        accelerator.save_state(str(partial))
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            model.save_config_and_code(partial)
            extractor.save_pretrained(partial)
            _complete(partial, target, progress, accelerator.num_processes)
            for old in list_checkpoints(output_dir)[:-save_total_limit]:
                shutil.rmtree(old)
    except (OSError, RuntimeError, SafetensorError) as error:  # torch and safetensors wrap what the disk says
        shutil.rmtree(partial, ignore_errors=True)
        last = (list_checkpoints(output_dir) or [None])[-1]
        raise CheckpointError(
            f"The checkpoint of step {progress['step']} cannot be written to {output_dir}: {error}. Make room or name "
            f"another --output_dir. {f'The last good checkpoint is {last}.' if last else 'There is none before it.'}"
        ) from error
    accelerator.wait_for_everyone()
    return target


def _complete(partial: Path, target: Path, progress: dict, num_processes: int) -> None:
    files = {str(path.relative_to(partial)): path.stat().st_size for path in partial.rglob("*") if path.is_file()}
    content = {**progress, "num_processes": num_processes, "files": files}
    (partial / PROGRESS_NAME).write_text(json.dumps(content))
    shutil.rmtree(target, ignore_errors=True)
    os.replace(partial, target)


def list_checkpoints(output_dir: Path) -> list[Path]:
    """Give the checkpoints of a run, oldest first."""
    found = [path for path in output_dir.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    return sorted(found, key=lambda path: int(path.name.split("-")[1]))


def checkpoint_fault(checkpoint: Path) -> str | None:
    """Say what a checkpoint lacks, as the rest of a sentence; None if it is whole."""
    try:
        files = json.loads((checkpoint / PROGRESS_NAME).read_text())["files"]
    except (OSError, ValueError, KeyError):
        return f"is no checkpoint of this script (it has no good {PROGRESS_NAME})"
    for name, size in files.items():
        path = checkpoint / name
        if not path.is_file():
            return f"lacks {name}"
        if path.stat().st_size != size:
            return f"has a truncated {name}, of {path.stat().st_size} bytes instead of {size}"
    return None


def find_checkpoint(accelerator: Accelerator, output_dir: Path, resume_from_checkpoint: str | None) -> Path | None:
    """Resolve `--resume_from_checkpoint`: a folder, `auto` for the newest good one below `output_dir`, or nothing.

    Raises:
        CheckpointError: The folder that is named is no checkpoint, or a damaged one.
    """
    if resume_from_checkpoint is None:
        return None
    if resume_from_checkpoint != "auto":
        fault = checkpoint_fault(Path(resume_from_checkpoint))
        if fault:
            raise CheckpointError(
                f"{resume_from_checkpoint} {fault}: name a whole checkpoint-<step> folder, or `auto` for the newest."
            )
        return Path(resume_from_checkpoint)
    for checkpoint in reversed(list_checkpoints(output_dir)):
        fault = checkpoint_fault(checkpoint)
        if fault is None:
            return checkpoint
        accelerator.print(f"{checkpoint} {fault}: taking the one before it.")
    return None


def load_checkpoint(accelerator: Accelerator, checkpoint: Path) -> dict:
    """Restore model, optimizer, schedule and random state, and return what `progress` was."""
    accelerator.load_state(str(checkpoint))
    progress = json.loads((checkpoint / PROGRESS_NAME).read_text())
    if progress["num_processes"] != accelerator.num_processes:
        accelerator.print(
            f"{checkpoint} was saved by {progress['num_processes']} processes, and there are "
            f"{accelerator.num_processes} now: the random state (dropout) is not continued."
        )
    return progress
