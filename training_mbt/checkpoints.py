"""Checkpoints that are whole or absent, and the search for the newest one."""

import json
import os
import re
import shutil
from pathlib import Path

from accelerate import Accelerator
from transformers import FeatureExtractionMixin, PreTrainedModel

PROGRESS_NAME = "progress.json"


def save_checkpoint(
    accelerator: Accelerator,
    model: PreTrainedModel,
    extractor: FeatureExtractionMixin,
    output_dir: Path,
    progress: dict,
    save_total_limit: int,
) -> Path:
    """Write `checkpoint-<step>`, that resumes training and that `from_pretrained` opens.

    It is written under another name and renamed when complete, so that a folder called `checkpoint-*` is never half
    of one. Every process calls this.

    Args:
        accelerator: Holds model, optimizer, and what was registered for checkpointing.
        model: The plain model (unwrapped), for its config.
        extractor: The feature extractor that belongs to it.
        output_dir: The run's folder.
        progress: JSON values to come back at resume; `progress["step"]` names the folder.
        save_total_limit: Older checkpoints beyond this number are deleted.

    Returns:
        The checkpoint's folder.
    """
    target = output_dir / f"checkpoint-{progress['step']}"
    partial = output_dir / f".{target.name}.partial"
    if accelerator.is_main_process:
        shutil.rmtree(partial, ignore_errors=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(partial))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        model.config.save_pretrained(partial)
        extractor.save_pretrained(partial)
        (partial / PROGRESS_NAME).write_text(json.dumps(progress))
        shutil.rmtree(target, ignore_errors=True)
        os.replace(partial, target)
        for old in list_checkpoints(output_dir)[:-save_total_limit]:
            shutil.rmtree(old)
    accelerator.wait_for_everyone()
    return target


def list_checkpoints(output_dir: Path) -> list[Path]:
    """Give the complete checkpoints of a run, oldest first."""
    found = [path for path in output_dir.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    return sorted(found, key=lambda path: int(path.name.split("-")[1]))


def find_checkpoint(output_dir: Path, resume_from_checkpoint: str | None) -> Path | None:
    """Resolve `--resume_from_checkpoint`: a folder, `auto` for the newest below `output_dir` (if any), or nothing.

    Raises:
        ValueError: The folder named is no checkpoint.
    """
    if resume_from_checkpoint is None:
        return None
    if resume_from_checkpoint == "auto":
        return (list_checkpoints(output_dir) or [None])[-1]
    path = Path(resume_from_checkpoint)
    if not (path / PROGRESS_NAME).is_file():
        raise ValueError(
            f"{path} is no checkpoint of this script (it has no {PROGRESS_NAME}): name a checkpoint-<step> folder, or "
            "`auto` for the newest."
        )
    return path


def load_checkpoint(accelerator: Accelerator, checkpoint: Path) -> dict:
    """Restore model, optimizer, schedule and random state, and return what `progress` was."""
    accelerator.load_state(str(checkpoint))
    return json.loads((checkpoint / PROGRESS_NAME).read_text())
