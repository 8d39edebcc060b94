"""Recordings that the tests write."""

import os

import numpy as np
import soundfile
from datasets import Dataset

RATE = 8_000


def record(path, seconds: float = 0.1):
    """Writes a tone of this length and returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tone = 0.5 * np.sin(np.arange(round(seconds * RATE)) / 5)
    file_format = "OGG" if path.suffix.lower() == ".opus" else path.suffix[1:].upper()
    soundfile.write(path, tone, RATE, format=file_format)
    return path


def relative_paths(dataset: Dataset, root) -> list[str]:
    return [os.path.relpath(value["path"], root) for value in dataset["audio"]]
