"""A checkpoint as others' benchmarks want it: waveforms in, frames and one vector for each clip out.

Axes: B clips, S samples, T' output frames, H hidden size.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPooling

import modeling_mbt
from feature_extraction import MBTFeatureExtractor
from modeling_mbt import MBTConfig, MBTForPreTraining, MBTForSequenceClassification, MBTModel
from modeling_mbt.encoder_mbt import time_stride


def open_checkpoint(model_folder: str | Path) -> tuple[MBTModel | MBTForSequenceClassification, MBTFeatureExtractor]:
    """Open a checkpoint and its extractor in evaluation mode; of a pre-training one, the encoder.

    Args:
        model_folder: What `from_pretrained` opens: a folder, or the name of a model on the Hub.

    Raises:
        OSError: There is no checkpoint, or no `preprocessor_config.json` beside it.
        ValueError: The checkpoint is not one of an MBT model.
    """
    config = MBTConfig.from_pretrained(model_folder)
    name = (config.architectures or ["MBTModel"])[0]
    if name not in modeling_mbt.__all__:
        raise ValueError(f"{model_folder} holds a {name}: give the folder of an MBT model.")
    model = getattr(modeling_mbt, name).from_pretrained(model_folder, dtype="float32").eval()
    model = model.mbt if isinstance(model, MBTForPreTraining) else model
    return model, MBTFeatureExtractor.from_pretrained(model_folder)


class FrameEncoder(nn.Module):
    """An encoder and its extractor as one module; gradients reach the encoder's weights, not the waveforms."""

    def __init__(self, model: MBTModel, extractor: MBTFeatureExtractor):
        super().__init__()
        self.model, self.extractor = model, extractor

    @classmethod
    def from_pretrained(cls, model_folder: str | Path) -> Self:
        """Open the encoder of any MBT checkpoint, in evaluation mode; errors as of `open_checkpoint`."""
        model, extractor = open_checkpoint(model_folder)
        return cls(model.mbt if isinstance(model, MBTForSequenceClassification) else model, extractor).eval()

    @property
    def samples_per_frame(self) -> int:
        """Distance between output frames in samples. Frame t is centred on sample t * samples_per_frame.

        Windows are centred on multiples of the hop, and every convolution and pooling pads both sides alike.
        """
        return self.extractor.hop_length * time_stride(self.model.config)

    def forward(self, waveforms: Tensor | Sequence[Tensor]) -> BaseModelOutputWithPooling:
        """Represent clips, on the encoder's device.

        Args:
            waveforms: In [-1, 1] at the extractor's rate: (B, S), or B tensors (S,) of any lengths.

        Returns:
            `last_hidden_state` (B, T', H), zero past a clip's end, and `pooler_output` (B, H).

        Raises:
            ValueError: A clip is empty, shorter than a window, not of floats, or holds NaN or infinity.
        """
        inputs = self.extractor(
            waveforms,  # pyright: ignore[reportArgumentType] - a tensor (B, S) is a batch of clips
            sampling_rate=self.extractor.sampling_rate,
            return_attention_mask=True,
            return_tensors="pt",
            device=self.model.device,
        )
        return self.model(**inputs, return_dict=True)
