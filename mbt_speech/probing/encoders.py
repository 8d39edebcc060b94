"""Frozen encoders behind one interface: what turns waveforms into representations, of clips and of their frames.

MBT's encoders and log-mel statistics are here; those of other models on the Hub in `hub_encoders`.

Axes: B clips, S samples, T' frames, H features of a representation, M mel bins.
"""

import math
from abc import ABC, abstractmethod
from typing import Any, Protocol, Self

import torch
from torch import Tensor
from transformers import PreTrainedModel

from feature_extraction import MBTFeatureExtractor
from mbt_speech.inference.speech_encoder import SpeechEncoder
from mbt_speech.model_files import weights_digest
from modeling_mbt import MBTModel
from modeling_mbt.pooling_mbt import input_statistics

CONTEXT_FRAMES = 2  # that a frame of log-mel statistics sees on either side of itself
# Settings of the classes and the files, and not of what the encoder computes.
NEUTRAL = {"_name_or_path", "architectures", "auto_map", "dtype", "id2label", "label2id", "transformers_version"}


class ClipEncoder(Protocol):
    """What turns waveforms into representations of clips, as `FrozenEncoder` does, and perhaps not of their frames."""

    sampling_rate: int

    def represent(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Represents clips, (B, H)."""
        ...

    def fingerprint(self) -> dict[str, Any]:
        """Identifies, in JSON, all that representations depend on beside the audio."""
        ...

    def to(self, device: torch.device, /) -> Any:
        """Moves to where the waveforms are."""
        ...


class FrozenEncoder(ABC):
    """What turns waveforms into representations; a clip's depends on nothing but the clip.

    Waveforms are (B, S) float32 in [-1, 1], zero past their `lengths` (B,) in samples.
    """

    sampling_rate: int
    """In Hz, what it expects."""

    @abstractmethod
    def frames(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Represents the frames of clips: (B, T', H), and True for those of the clip itself, (B, T')."""

    @abstractmethod
    def centers(self, num_frames: int) -> Tensor:
        """Returns the samples on which the first frames are centered, (num_frames,) float32."""

    @abstractmethod
    def fingerprint(self) -> dict[str, Any]:
        """Identifies, in JSON, all that representations depend on beside the audio."""

    def represent(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Represents clips by the mean of their frames, (B, H)."""
        frames, real = self.frames(waveforms, lengths)
        weights = real.unsqueeze(-1).to(frames.dtype)
        return (frames * weights).sum(1) / weights.sum(1)

    def to(self, device: torch.device) -> Self:
        """Moves to where the waveforms are, in evaluation mode."""
        return self

    def _real_frames(self, num_frames: int, lengths: Tensor) -> Tensor:
        """True for frames that are centered within the clip, (B, num_frames)."""
        return self.centers(num_frames).to(lengths.device) <= lengths[:, None]


class MBTFrozenEncoder(FrozenEncoder):
    """An MBT encoder, with the pooling that it was trained with."""

    def __init__(self, model: MBTModel, extractor: MBTFeatureExtractor):
        self.model, self.extractor, self.sampling_rate = model, extractor, extractor.sampling_rate
        self.encoder = SpeechEncoder(model, extractor).eval()

    def to(self, device: torch.device) -> Self:
        """Moves there, in the order of memory that convolutions want."""
        self.model.eval().to(device, memory_format=torch.channels_last)  # pyright: ignore
        return self

    def frames(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the last hidden states."""
        frames = self._outputs(waveforms, lengths).last_hidden_state
        return frames, self.encoder.real_frames(frames.shape[1], lengths)

    def represent(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Returns the pooled output."""
        return self._outputs(waveforms, lengths).pooler_output

    def centers(self, num_frames: int) -> Tensor:
        """Returns what `SpeechEncoder.centers` does."""
        return self.encoder.centers(num_frames)

    def fingerprint(self) -> dict[str, Any]:
        """Identifies weights, settings and features."""
        return model_fingerprint(self.model) | {"extractor": self.extractor.to_dict()}

    @torch.no_grad()
    def _outputs(self, waveforms: Tensor, lengths: Tensor) -> Any:
        return self.encoder(waveforms, lengths)


class LogMelStatistics(FrozenEncoder):
    """The control without an encoder: of a clip statistics of its log-mels in dB, of a frame its log-mels."""

    def __init__(self, extractor: MBTFeatureExtractor):
        self.extractor, self.sampling_rate = extractor, extractor.sampling_rate

    def frames(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the log-mels of each frame and of its neighbors, H = 5 M."""
        features, mask = self.extractor.extract(waveforms, lengths)
        silence = 10 * math.log10(self.extractor.power_floor)
        padded = torch.nn.functional.pad(features, (0, 0, CONTEXT_FRAMES, CONTEXT_FRAMES), value=silence)
        return padded.unfold(1, 2 * CONTEXT_FRAMES + 1, 1).flatten(2), mask.bool()

    def represent(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Returns mean, deviation and maximum of the log-mels, deviation and maximum of their slopes, H = 5 M."""
        return input_statistics(*self.extractor.extract(waveforms, lengths))

    def centers(self, num_frames: int) -> Tensor:
        """Windows are centered on multiples of the hop."""
        return torch.arange(num_frames) * float(self.extractor.hop_length)

    def fingerprint(self) -> dict[str, Any]:
        """Identifies the features."""
        statistics = "mean, deviation, maximum; slopes: deviation, maximum"
        return {"model": None, "statistics": statistics, "extractor": self.extractor.to_dict()}


def model_fingerprint(model: PreTrainedModel) -> dict[str, Any]:
    """Hashes every parameter and buffer, and the settings that the weights do not show."""
    settings = {name: value for name, value in model.config.to_dict().items() if name not in NEUTRAL}
    return {"model": type(model).__name__, "weights": weights_digest(model), "settings": settings}
