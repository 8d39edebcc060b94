"""MBT for HEAR, the Holistic Evaluation of Audio Representations (arXiv 2203.03022): its common API.

    hear-validator mbt_speech.inference.hear --model runs/mine
    python -m heareval.embeddings.runner mbt_speech.inference.hear --model runs/mine --tasks-dir tasks

Axes: N sounds, S samples, T' timestamps, H width of a frame, P width of a pooled representation.
"""

import torch
from torch import Tensor

from .speech_encoder import SpeechEncoder

MILLISECONDS = 1000


class HearModel(SpeechEncoder):
    """What HEAR passes round: an encoder that says which rate it expects and how wide its embeddings are."""

    @property
    def sample_rate(self) -> int:
        """Rate in Hz that sounds must have."""
        return self.sampling_rate

    @property
    def scene_embedding_size(self) -> int:
        """P of one embedding for each sound."""
        return self.model.config.pooled_size

    @property
    def timestamp_embedding_size(self) -> int:
        """H of the embeddings along time."""
        return self.model.config.hidden_size


def load_model(model_file_path: str) -> HearModel:
    """Opens a checkpoint.

    Args:
        model_file_path: Its folder, or its name on the Hub.

    Raises:
        OSError: There is no checkpoint, or no `preprocessor_config.json` beside it.
        ValueError: The path is empty, or the checkpoint is not one of an MBT model.
    """
    if not model_file_path:
        raise ValueError("MBT has no weights of its own: say which checkpoint, as in `--model runs/mine`.")
    return HearModel.from_pretrained(model_file_path)


@torch.no_grad()
def get_scene_embeddings(audio: Tensor, model: HearModel) -> Tensor:
    """Returns one embedding for each sound: the pooled representation.

    Args:
        audio: In [-1, 1] at `model.sample_rate`, (N, S).
        model: Of `load_model`.

    Returns:
        (N, P) float32 on the model's device.

    Raises:
        ValueError: The audio does not have two axes, is shorter than a window, or holds NaN or infinity.
    """
    return model(_checked(audio)).pooler_output


@torch.no_grad()
def get_timestamp_embeddings(audio: Tensor, model: HearModel) -> tuple[Tensor, Tensor]:
    """Returns embeddings along time, and the times on which they are centered.

    Args:
        audio: In [-1, 1] at `model.sample_rate`, (N, S).
        model: Of `load_model`.

    Returns:
        Embeddings (N, T', H) float32 and timestamps (N, T') in milliseconds, on the model's device.

    Raises:
        ValueError: As of `get_scene_embeddings`.
    """
    frames = model(_checked(audio)).last_hidden_state
    timestamps = MILLISECONDS * model.centers(frames.shape[1]).to(frames.device) / model.sample_rate
    return frames, timestamps.expand(len(frames), -1)


def _checked(audio: Tensor) -> Tensor:
    if audio.ndim != 2:
        raise ValueError(f"HEAR's audio is (sounds, samples), one channel, and has the shape {tuple(audio.shape)}.")
    return audio
