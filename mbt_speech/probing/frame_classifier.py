"""A classifier of frames, such as of phones: an encoder and a linear head on its last hidden state.

Its folder is that of the encoder, whose config names the classes, with the head beside it.

Axes: B clips, S samples, T' frames, H hidden size, K classes.
"""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.utils.hub import cached_file

from feature_extraction import MBTFeatureExtractor
from mbt_speech.inference.speech_encoder import SpeechEncoder
from modeling_mbt import MBTModel

from .classification import class_names
from .linear_fits import LinearHead

HEAD_NAME = "frame_head.safetensors"


class FrameClassifier(nn.Module):
    """Names the class of every frame; `centers` says where they are."""

    def __init__(self, encoder: SpeechEncoder, head: nn.Linear):
        super().__init__()
        self.encoder, self.head = encoder, head
        id2label = encoder.model.config.id2label or {}
        self.label_names = [id2label[number] for number in range(len(id2label))]

    @classmethod
    def from_head(
        cls, model: MBTModel, extractor: MBTFeatureExtractor, head: LinearHead, label_names: Sequence[str]
    ) -> Self:
        """Joins an encoder and the head that was fitted on its frames; the encoder's config gets the class names."""
        model.config = copy.deepcopy(model.config)
        model.config.update(class_names(label_names))
        tensors = {"weight": torch.from_numpy(head.weight).float(), "bias": torch.from_numpy(head.bias).float()}
        return cls(SpeechEncoder(model, extractor), _linear(tensors)).eval()

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path) -> Self:
        """Opens what `save_pretrained` wrote, a folder or a name on the Hub.

        Raises:
            OSError: There is no such checkpoint, or no head beside it.
        """
        head = cached_file(str(name_or_path), HEAD_NAME)
        assert head is not None
        return cls(SpeechEncoder.from_pretrained(name_or_path), _linear(load_file(head))).eval()

    def save_pretrained(self, folder: str | Path) -> None:
        """Saves the encoder and the head; an extractor belongs beside them."""
        self.encoder.model.save_pretrained(folder)
        save_file(self.head.state_dict(), Path(folder, HEAD_NAME))

    def centers(self, num_frames: int) -> Tensor:
        """Returns the samples on which the first frames are centered, (num_frames,) float32."""
        return self.encoder.centers(num_frames)

    def forward(self, waveforms: Tensor | Sequence[Tensor]) -> Tensor:
        """Returns logits (B, T', K) of waveforms, as `SpeechEncoder` takes them: (B, S), or B tensors."""
        return self.head(self.encoder(waveforms).last_hidden_state)


def _linear(tensors: dict[str, Tensor]) -> nn.Linear:
    num_classes, hidden_size = tensors["weight"].shape
    head = nn.Linear(hidden_size, num_classes)
    head.load_state_dict(tensors)
    return head
