"""How data loaders read clips: by their length, and undisturbed by the signals that a run gets.

Axes: N clips, B clips of a batch.
"""

import os

import numpy as np
import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader

from .crops import ClipDataset, collate_clips


def load_by_length(
    accelerator: Accelerator, clips: ClipDataset, rows: np.ndarray, batch_size: int, num_workers: int
) -> tuple[np.ndarray, DataLoader]:
    """Shares clips at some positions among the processes: this one's positions, longest first, and its batches."""
    own = rows[np.argsort(-clips.seconds[rows], kind="stable")][accelerator.process_index :: accelerator.num_processes]
    loader = DataLoader(
        clips,
        batch_sampler=[own[i : i + batch_size].tolist() for i in range(0, len(own), batch_size)],
        num_workers=num_workers,
        collate_fn=collate_clips,
        generator=torch.Generator(),  # leaves the global one as it is
    )
    return own, loader


def keep_out_of_signals(worker: int) -> None:
    """Lets a data loader's worker end with its process, not by a signal that is meant for the whole run."""
    os.setpgid(0, 0)  # Ctrl-C goes to the terminal's process group
