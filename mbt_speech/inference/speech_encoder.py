"""A model and its feature extractor as one: waveforms in, an embedding of each clip and of its frames out.

Axes: B clips, S samples, T' output frames, H hidden size, K classes.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

import modeling_mbt
from feature_extraction import MBTFeatureExtractor
from modeling_mbt import MBTConfig, MBTForPreTraining, MBTForSequenceClassification, MBTModel
from modeling_mbt.encoder_mbt import frame_center, time_stride


def open_checkpoint(
    model_name_or_path: str | Path,
) -> tuple[MBTModel | MBTForSequenceClassification, MBTFeatureExtractor]:
    """Opens a checkpoint and its extractor in evaluation mode; of a pre-training one, the encoder.

    Args:
        model_name_or_path: What `from_pretrained` opens: a folder, or the name of a model on the Hub.

    Raises:
        OSError: There is no checkpoint, or no `preprocessor_config.json` beside it.
        ValueError: The checkpoint is not one of an MBT model.
    """
    config = MBTConfig.from_pretrained(model_name_or_path)
    name = (config.architectures or ["MBTModel"])[0]
    if name not in modeling_mbt.__all__:
        raise ValueError(f"{model_name_or_path} holds a {name}: give the folder of an MBT model.")
    model = getattr(modeling_mbt, name).from_pretrained(model_name_or_path, dtype="float32").eval()
    model = model.mbt if isinstance(model, MBTForPreTraining) else model
    return model, MBTFeatureExtractor.from_pretrained(model_name_or_path)


class SpeechEncoder(nn.Module):
    """An encoder and its extractor; gradients reach the encoder's weights, not the waveforms."""

    model: Any  # MBTModel; of a subclass also MBTForSequenceClassification

    def __init__(self, model: MBTModel | MBTForSequenceClassification, extractor: MBTFeatureExtractor):
        super().__init__()
        self.model, self.extractor = model, extractor

    @classmethod
    def from_pretrained(cls, model_name_or_path: str | Path, device: str = "cpu") -> Self:
        """Opens the encoder of any MBT checkpoint, in evaluation mode; errors as of `open_checkpoint`.

        Raises:
            ValueError: Also where this machine has no such device.
        """
        model, extractor = open_checkpoint(model_name_or_path)
        try:
            return cls(cls._take(model, model_name_or_path), extractor).eval().to(device)
        except (RuntimeError, AssertionError) as error:
            raise ValueError(f"Nothing can be computed on {device!r} here ({error}): give --device cpu.") from None

    @staticmethod
    def _take(model: MBTModel | MBTForSequenceClassification, name: str | Path) -> Any:
        return model.mbt if isinstance(model, MBTForSequenceClassification) else model

    @property
    def sampling_rate(self) -> int:
        """Rate in Hz that waveforms must have."""
        return self.extractor.sampling_rate

    @property
    def samples_per_frame(self) -> int:
        """Distance between output frames in samples."""
        return self.extractor.hop_length * time_stride(self.model.config)

    def centers(self, num_frames: int) -> Tensor:
        """Returns the samples on which the first output frames are centered, (num_frames,) float32.

        Windows of the features are centered on multiples of the hop. The last frame's center may lie past the clip's
        end, by less than half the distance between frames.
        """
        offset = self.extractor.hop_length * frame_center(self.model.config)
        return torch.arange(num_frames) * float(self.samples_per_frame) + offset

    def real_frames(self, num_frames: int, lengths: Tensor) -> Tensor:
        """Returns True for the output frames that read a clip of `lengths` (B,) samples, and not padding alone.

        Shape (B, num_frames), on the device of `lengths`.
        """
        starts = torch.arange(num_frames, device=lengths.device) * self.samples_per_frame
        return starts <= lengths[:, None]

    def forward(self, waveforms: Tensor | Sequence[Any], lengths: Tensor | None = None) -> Any:
        """Represents clips, on the encoder's device.

        Args:
            waveforms: In [-1, 1] at the extractor's rate: (B, S), or B arrays or tensors (S,) of any lengths.
            lengths: With waveforms (B, S) on the encoder's device, padded at their ends, the samples of each clip,
                (B,); such waveforms are not checked.

        Returns:
            `last_hidden_state` (B, T', H), zero past a clip's end, and `pooler_output` (B, H).

        Raises:
            ValueError: A clip is empty, shorter than a window, not of floats, or holds NaN or infinity.
        """
        if lengths is not None:
            assert isinstance(waveforms, Tensor)
            features, mask = self.extractor.extract(waveforms, lengths)
            return self.model(self.extractor.normalize(features, mask), mask, return_dict=True)
        inputs = self.extractor(
            waveforms,  # pyright: ignore[reportArgumentType] - a tensor (B, S) is a batch of clips
            sampling_rate=self.sampling_rate,
            return_attention_mask=True,
            return_tensors="pt",
            device=self.model.device,
        )
        return self.model(**inputs, return_dict=True)


class SpeechClassifier(SpeechEncoder):
    """A classifier and its extractor; `forward` returns `logits` (B, K)."""

    @staticmethod
    def _take(model: MBTModel | MBTForSequenceClassification, name: str | Path) -> Any:
        if not isinstance(model, MBTForSequenceClassification):
            raise ValueError(f"{name} holds an encoder and no classifier: run_finetune.py puts one on it.")
        return model
