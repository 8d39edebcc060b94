"""The folder of a run: for one run at a time, and not over another model."""

import fcntl
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mbt_speech.arguments import PretrainArguments
from mbt_speech.command_line import RECIPE_NAME, read_arguments
from mbt_speech.run_arguments import RunArguments

from .checkpoints import list_checkpoints

LOCK_NAME = ".lock"
RESULTS_NAME = "results.jsonl"
MODEL_NAMES = ("config.json", "model.safetensors", RESULTS_NAME)
# What tells one model from another.
IDENTITY = ("objective", "preset"), ("label_column_name",)

_locks: set[Path] = set()


def claim_output_dir(args: RunArguments) -> None:
    """Locks the folder for as long as this process lives, and looks at what is there; in the main process.

    Raises:
        ValueError: Another run is writing there, or there is another model and no `--overwrite_output_dir`.
    """
    folder = Path(args.output_dir)
    _lock(folder)
    if args.overwrite_output_dir:
        return
    if (folder / RECIPE_NAME).is_file():
        there, here = _identity(read_arguments(folder)), _identity(vars(args))
    else:
        there, here = ("a model",) if any((folder / name).exists() for name in MODEL_NAMES) else None, None
    is_trained_anew = isinstance(args, PretrainArguments) and not _goes_on(args.resume_from_checkpoint, folder)
    if there != here or (is_trained_anew and (folder / "model.safetensors").exists()):
        raise ValueError(
            f"{folder} holds {' '.join(map(str, there or ['something else']))}, which this run would overwrite: name "
            "another --output_dir, or add --overwrite_output_dir."
        )


def _goes_on(resume_from_checkpoint: str | None, folder: Path) -> bool:
    """Whether a run goes on from a checkpoint of its own folder."""
    if resume_from_checkpoint == "auto":
        return bool(list_checkpoints(folder))
    return resume_from_checkpoint is not None and Path(resume_from_checkpoint).resolve().parent == folder.resolve()


def _lock(folder: Path) -> None:
    path = (folder / LOCK_NAME).resolve()
    if path in _locks:  # to close another descriptor of the file would give the lock up
        return
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # not inherited by the data loader's workers
    except BlockingIOError:
        os.close(descriptor)
        raise ValueError(
            f"Another run is writing into {folder}: wait for its end, or name another --output_dir."
        ) from None
    except OSError:  # a file system without locks
        os.close(descriptor)
        return
    _locks.add(path)


def _identity(values: Any) -> tuple[Any, ...] | None:
    """Returns what a run makes, from its arguments; None of what are no arguments."""
    for names in IDENTITY:
        if isinstance(values, Mapping) and all(name in values for name in names):
            kind = "an encoder of the" if "objective" in names else "classifiers of the"
            return (kind, *(word for name in names for word in (name, values[name])))
    return None
