"""MBT for the audio tasks of MTEB, the Massive Text Embedding Benchmark (by default 8 clips of a class, 10 draws).

    import mteb
    from mbt_speech.inference.mteb_encoder import MtebEncoder

    mteb.evaluate(MtebEncoder("runs/mine"), mteb.get_tasks(tasks=["SpeechCommands"]))

The class has the methods of mteb's `EncoderProtocol` without its base class, so that this module does not need mteb.
Recordings are decoded and resampled here: mteb's own way needs torchcodec and torchaudio.

Axes: N and M clips, P width of a pooled representation.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from feature_extraction.speech import to_waveform
from mbt_speech.model_files import weights_digest

from .speech_encoder import SpeechEncoder

BATCH_SIZE = 32


class MtebEncoder:
    """The pooled representation of an encoder.

    Args:
        model_name: Folder of the checkpoint, or its name on the Hub.
        revision: What mteb keeps results by, with the name; by default a digest of the weights. The checkpoint is the
            one that the name opens.
        device: Where the encoder computes.
        **kwargs: Part of mteb's interface.

    Raises:
        OSError: There is no checkpoint, or no `preprocessor_config.json` beside it.
        ValueError: The checkpoint is not one of an MBT model.
    """

    def __init__(self, model_name: str, revision: str | None = None, *, device: str | None = None, **kwargs: Any):
        self.encoder = SpeechEncoder.from_pretrained(model_name, device or "cpu")
        self.name = f"mbt/{Path(model_name).name}"
        # mteb keeps results by name and revision: another model in the same folder must have another one.
        self.revision = revision or weights_digest(self.encoder.model)[:40]

    @property
    def mteb_model_meta(self) -> Any:
        """What mteb writes above its results; needs mteb."""
        from mteb.models.model_meta import ModelMeta  # pyright: ignore[reportMissingImports]

        facts = {"name": self.name, "revision": self.revision, "modalities": ["audio"], "framework": ["PyTorch"]}
        return ModelMeta.create_empty(
            facts | {"embed_dim": self.encoder.model.config.pooled_size, "similarity_fn_name": "cosine"}
        )

    @torch.no_grad()
    def encode(self, inputs: Any, **kwargs: Any) -> np.ndarray:
        """Represents the clips of a data loader, whose data set has a column `audio`, `batch_size` at a time.

        Returns:
            (N, P) float32.

        Raises:
            ValueError: There is no such column, or a clip cannot be decoded or represented.
        """
        from datasets import Audio  # mteb brings it

        if "audio" not in inputs.dataset.column_names:
            raise ValueError("MBT represents speech alone: give it a task whose modality is audio.")
        clips = inputs.dataset.cast_column("audio", Audio(decode=False))
        pooled = []
        batch_size = kwargs.get("batch_size", BATCH_SIZE)
        for start in range(0, len(clips), batch_size):
            sounds = clips[start : start + batch_size]["audio"]
            waveforms = [to_waveform(sound, self.encoder.sampling_rate) for sound in sounds]
            pooled.append(self.encoder(waveforms).pooler_output.cpu())
        return torch.cat(pooled).numpy()

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """Returns the cosines of all of (N, P) with all of (M, P), (N, M)."""
        return _unit(embeddings1) @ _unit(embeddings2).T

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """Returns the cosines of (N, P) with (N, P), row by row, (N,)."""
        return (_unit(embeddings1) * _unit(embeddings2)).sum(-1)


def _unit(embeddings: Any) -> Tensor:
    return nn.functional.normalize(torch.atleast_2d(torch.as_tensor(embeddings, dtype=torch.float32)), dim=-1)
