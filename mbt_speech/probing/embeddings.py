"""Frozen representations of whole sets of clips, computed once and kept in the cache.

Axes: N clips, B clips of a batch, F frames of all clips in a row, H features of a representation.
"""

import hashlib
import json
import logging
import shutil
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from accelerate import Accelerator
from accelerate.utils import gather_object
from datasets import config as datasets_config
from torch import Tensor
from tqdm.auto import tqdm

from mbt_speech.data.crops import ClipDataset
from mbt_speech.data.loaders import load_by_length

from .encoders import ClipEncoder, FrozenEncoder

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Embedder:
    """Represents a set of clips by frozen encoders.

    Clips of like length share a batch; the processes share the clips, and each gets the whole result.
    """

    accelerator: Accelerator
    clips: ClipDataset
    batch_size: int
    num_workers: int
    """Processes that read audio."""
    description: str
    """Stands in front of the progress bar."""

    def embed_clips(self, encoder: ClipEncoder, rows: np.ndarray | None = None) -> np.ndarray:
        """Represents the clips at some positions, by default all: (N, H) float32, NaN for the others."""
        rows = np.arange(len(self.clips)) if rows is None else rows
        found = self._embed(encoder, rows, lambda waveforms, lengths: list(encoder.represent(waveforms, lengths)))
        result = np.full((len(self.clips), len(next(iter(found.values())))), np.nan, np.float32)
        for row, vector in found.items():
            result[row] = vector
        return result

    def embed_frames(self, encoder: FrozenEncoder) -> dict[str, np.ndarray]:
        """Represents all frames: `frames` (F, H) float32, clip after clip, and `counts` (N,), how many each has."""

        def real_frames(waveforms: Tensor, lengths: Tensor) -> list[Tensor]:
            return [frames[real] for frames, real in zip(*encoder.frames(waveforms, lengths), strict=True)]

        found = self._embed(encoder, np.arange(len(self.clips)), real_frames)
        frames = [found[row] for row in range(len(self.clips))]
        return {"frames": np.concatenate(frames), "counts": np.array([len(own) for own in frames])}

    def _embed(
        self, encoder: ClipEncoder, rows: np.ndarray, represent: Callable[[Tensor, Tensor], list[Tensor]]
    ) -> dict[int, np.ndarray]:
        """Returns what `represent` makes of each clip: position -> float32."""
        processes, device = self.accelerator.num_processes, self.accelerator.device
        own, loader = load_by_length(self.accelerator, self.clips, rows, self.batch_size, self.num_workers)
        encoder.to(device)
        hidden = not self.accelerator.is_main_process
        outputs = []
        for batch in tqdm(loader, desc=self.description, unit="batch", disable=hidden, leave=False):
            found = represent(*(batch[name].to(device) for name in ("waveforms", "lengths")))
            outputs += [values.float().cpu().numpy() for values in found]
        pairs = list(zip(own.tolist(), outputs, strict=True))
        return dict(gather_object(pairs) if processes > 1 else pairs)


def cached_arrays(
    accelerator: Accelerator, key: Mapping[str, object], compute: Callable[[], Mapping[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """Returns what `compute()` returns, or what it returned for the same JSON key before; it is read as it is needed.

    All processes compute, or none. Where the cache is full or may not be written to, the next run computes again.
    """
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
    folder = Path(datasets_config.HF_DATASETS_CACHE) / "mbt_embeddings" / digest
    missing = [not folder.is_dir()]
    if any(gather_object(missing) if accelerator.num_processes > 1 else missing):
        arrays = dict(compute())
        partial = folder.with_name(f".{digest}-{uuid.uuid4().hex}.partial")
        try:
            partial.mkdir(parents=True)
            for name, values in arrays.items():
                np.save(partial / f"{name}.npy", values)
            partial.rename(folder)
        except OSError as error:
            shutil.rmtree(partial, ignore_errors=True)
            if not folder.is_dir():  # or else another process was first
                logger.warning("The representations cannot be kept for the next run: %s.", error)
                return arrays
    return {path.stem: np.load(path, mmap_mode="r") for path in folder.glob("*.npy")}
