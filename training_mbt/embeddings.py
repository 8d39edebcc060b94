"""Frozen representations of whole sets of clips, computed once and kept in the cache.

Axes: N clips, H features of a representation, T frames, M mel bins.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from datasets import config as datasets_config
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from feature_extraction import MBTFeatureExtractor
from feature_extraction.crops import ClipDataset, collate_clips
from modeling_mbt import MBTModel


def embed_clips(
    accelerator: Accelerator,
    model: MBTModel | None,
    extractor: MBTFeatureExtractor,
    clips: ClipDataset,
    *,
    rows: np.ndarray | None = None,
    batch_size: int,
    num_workers: int,
    description: str,
) -> np.ndarray:
    """Represent clips by the encoder's pooled output, or without a model by their log-mel statistics.

    Clips of like length share a batch; the processes share the clips, and each gets the whole result. The model stays
    in evaluation mode.

    Args:
        accelerator: Its processes share the clips.
        model: The encoder, if any.
        extractor: Of the model.
        clips: All N clips.
        rows: Positions of those that are wanted; by default all of them.
        batch_size: Clips of a batch.
        num_workers: Processes that read audio.
        description: Words in front of the progress bar.

    Returns:
        (N, H) float32, NaN for clips that are not wanted; without a model H = 2 M: mean and standard deviation over
        time of each feature in dB.
    """
    rows = np.arange(len(clips)) if rows is None else rows
    order = rows[np.argsort(-clips.seconds[rows], kind="stable")]
    own = order[accelerator.process_index :: accelerator.num_processes]
    batches = [own[i : i + batch_size].tolist() for i in range(0, len(own), batch_size)]
    loader = DataLoader(
        clips,
        batch_sampler=batches,
        num_workers=num_workers,
        collate_fn=collate_clips,
        generator=torch.Generator(),  # leaves the global one as it is
    )
    if model is not None:
        model.eval().to(accelerator.device, memory_format=torch.channels_last)
    parts = []
    for batch in tqdm(loader, desc=description, unit="batch", disable=not accelerator.is_main_process, leave=False):
        waveforms, lengths = (batch[name].to(accelerator.device) for name in ("waveforms", "lengths"))
        features, mask = extractor.extract(waveforms, lengths)
        parts.append(_statistics(features, mask) if model is None else _represent(model, extractor, features, mask))
    own_rows = torch.cat(parts).float().cpu().numpy() if parts else np.zeros((0, 0), np.float32)
    gathered = gather_object([(own, own_rows)]) if accelerator.num_processes > 1 else [(own, own_rows)]
    gathered = [(indices, values) for indices, values in gathered if len(indices)]
    result = np.full((len(clips), gathered[0][1].shape[1]), np.nan, np.float32)
    for indices, values in gathered:
        result[indices] = values
    return result


def cached_embeddings(key: dict, compute) -> np.ndarray:
    """Give what `compute()` returns, or what it returned for the same JSON key before."""
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
    path = Path(datasets_config.HF_DATASETS_CACHE) / "mbt_embeddings" / f"{digest}.npy"
    if path.is_file():
        return np.load(path)
    result = compute()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{torch.randint(2**62, ()).item()}.partial")
    with partial.open("wb") as file:
        np.save(file, result)
    partial.replace(path)
    return result


def model_fingerprint(model: torch.nn.Module) -> str:
    """Hash every parameter and buffer."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


@torch.no_grad()
def _represent(
    model: MBTModel, extractor: MBTFeatureExtractor, features: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    return model(extractor.normalize(features, mask), mask).pooler_output


def _statistics(features: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    weights = mask[..., None].to(features.dtype)
    count = weights.sum(1)
    mean = (features * weights).sum(1) / count
    variance = ((features - mean[:, None]).square() * weights).sum(1) / count
    return torch.cat([mean, variance.sqrt()], dim=1)
