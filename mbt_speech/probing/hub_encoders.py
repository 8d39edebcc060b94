"""Audio encoders of the Hub as frozen features: wav2vec 2.0 and its family (HuBERT, WavLM, ...), AST, Whisper.

What `AutoModel` and `AutoFeatureExtractor` open; no code of the repository is run.

Axes: B clips, S samples, T' frames, F' patches along frequency, H hidden size.
"""

import math
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import AutoModel, PreTrainedModel

from mbt_speech.model_files import damage_named

from .encoders import FrozenEncoder, model_fingerprint

FBANK_HOP, FBANK_WINDOW = 160, 400  # samples, of AST's Kaldi features
UNUSED = ("decoder.", "masked_spec_embed")  # of encoders as they are; the latter replaces frames in training only


def open_hub_encoder(name_or_path: str, extractor: Any, token: str | None = None) -> "HubEncoder":
    """Opens a model of the Hub, or of a folder, as a frozen encoder; of an encoder and a decoder, the encoder.

    Raises:
        ValueError: It is of no kind that is known here, or its file lacks weights.
    """
    with damage_named(name_or_path):
        model, loading = AutoModel.from_pretrained(
            name_or_path, output_loading_info=True, token=token, dtype="float32"
        )
    encoder_class = encoder_class_of(model.config)
    if encoder_class is None:
        raise ValueError(
            f"{name_or_path} holds a {type(model).__name__}: the frozen encoders that are known here are MBT, "
            "wav2vec 2.0 and its family (HuBERT, WavLM, Data2Vec, SEW, UniSpeech), AST and Whisper."
        )
    if missing := sorted(name for name in loading["missing_keys"] if not name.startswith(UNUSED)):
        raise ValueError(f"{name_or_path} lacks weights of its {type(model).__name__}, such as {missing[0]}.")
    return encoder_class(model, extractor)


def encoder_class_of(config: Any) -> "type[HubEncoder] | None":
    """Returns the class of the family that a model's config is of; None of a family that is not known here."""
    return next((kind for kind in (WaveformEncoder, PatchEncoder, WhisperEncoder) if kind.takes(config)), None)


class HubEncoder(FrozenEncoder):
    """A model and its own feature extractor."""

    min_samples = FBANK_WINDOW
    """Shorter clips are followed by zeros."""

    def __init__(self, model: PreTrainedModel, extractor: Any):
        self.model: PreTrainedModel = model.eval()
        self.extractor, self.sampling_rate = extractor, extractor.sampling_rate

    @staticmethod
    @abstractmethod
    def takes(config: Any) -> bool:
        """Whether a model of this config is of this kind."""

    @abstractmethod
    def _frames(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """As `frames`, for clips of `min_samples` at least."""

    def to(self, device: torch.device) -> Self:
        """Moves there."""
        torch.nn.Module.to(self.model, device)
        return self

    @torch.no_grad()
    def frames(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the last hidden states."""
        return self._frames(*self._lengthened(waveforms, lengths))

    def inputs(self, waveforms: Tensor, lengths: Tensor) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        """Yields what the model reads of the clips that can share a batch, and the positions of these, (B,)."""
        waveforms, lengths = self._lengthened(waveforms, lengths)
        yield torch.arange(len(lengths), device=lengths.device), self._features(waveforms, lengths)

    def fingerprint(self) -> dict[str, Any]:
        """Identifies weights, settings and features."""
        return model_fingerprint(self.model) | {"extractor": self.extractor.to_dict()}

    def _lengthened(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        missing = max(0, self.min_samples - waveforms.shape[1])
        return pad(waveforms, (0, missing)), lengths.clamp(min=self.min_samples)

    def _features(self, waveforms: Tensor, lengths: Tensor, **kwargs: Any) -> dict[str, Tensor]:
        """What the extractor makes of clips, on their device."""
        clips = [clip[:length].cpu().numpy() for clip, length in zip(waveforms, lengths.tolist(), strict=True)]
        inputs = self.extractor(clips, sampling_rate=self.sampling_rate, return_tensors="pt", **kwargs)
        return inputs.to(waveforms.device)


class WaveformEncoder(HubEncoder):
    """Wav2vec 2.0 and its family: convolutions on the waveform, then a transformer.

    Clips of one length run at a time, without padding. A mask would not do: many of these models were trained without
    one, group norms over time have statistics that padding enters, and some position encodings see past a mask.
    """

    def __init__(self, model: PreTrainedModel, extractor: Any):
        super().__init__(model, extractor)
        distance = self.min_samples = 1  # of one frame to the next, and what a frame spans, in samples
        for kernel, stride in zip(model.config.conv_kernel, model.config.conv_stride, strict=True):
            self.min_samples += (kernel - 1) * distance
            distance *= stride

    @staticmethod
    def takes(config: Any) -> bool:
        """Whether its frames are those of its convolutions: no adapter, which changes their distance, follows."""
        alone = not config.is_encoder_decoder and not getattr(config, "add_adapter", False)
        return alone and hasattr(config, "conv_kernel") and hasattr(config, "conv_stride")

    def centers(self, num_frames: int) -> Tensor:
        """Frame t spans `min_samples` samples from t * stride on."""
        return torch.arange(num_frames) * float(math.prod(self.model.config.conv_stride)) + (self.min_samples - 1) / 2

    def num_frames(self, num_samples: int) -> int:
        """Returns how many frames a clip of at least `min_samples` has."""
        return 1 + (num_samples - self.min_samples) // math.prod(self.model.config.conv_stride)

    def inputs(self, waveforms: Tensor, lengths: Tensor) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        """Yields the clips of one length, from the shortest on."""
        waveforms, lengths = self._lengthened(waveforms, lengths)
        for length in lengths.unique():
            rows = (lengths == length).nonzero()[:, 0]
            yield rows, self._features(waveforms[rows], lengths[rows], return_attention_mask=False)

    def _frames(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        outputs = [(rows, self.model(**inputs).last_hidden_state) for rows, inputs in self.inputs(waveforms, lengths)]
        longest, hidden_size = outputs[-1][1].shape[1:]
        frames = waveforms.new_zeros(len(waveforms), longest, hidden_size)
        real = torch.zeros(frames.shape[:2], dtype=torch.bool, device=frames.device)
        for rows, output in outputs:
            frames[rows, : output.shape[1]], real[rows, : output.shape[1]] = output, True
        return frames, real


class PatchEncoder(HubEncoder):
    """AST: patches of a spectrogram of fixed length; frame t is the mean of the patches of one time, over frequency.

    It reads no more than that length, 10.24 s in the public models.
    """

    @staticmethod
    def takes(config: Any) -> bool:
        """Whether it is one."""
        return config.model_type == "audio-spectrogram-transformer"

    def centers(self, num_frames: int) -> Tensor:
        """A patch spans `patch_size` windows, and starts `time_stride` hops after the patch before it."""
        config = self.model.config
        middle = (config.patch_size - 1) / 2
        return (torch.arange(num_frames) * config.time_stride + middle) * FBANK_HOP + FBANK_WINDOW / 2

    def _frames(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        config = self.model.config
        hidden = self.model(**self._features(waveforms, lengths)).last_hidden_state
        patches_of_a_time = (config.num_mel_bins - config.patch_size) // config.frequency_stride + 1
        patches = hidden[:, 2:]  # after the class and the distillation token
        frames = patches.unflatten(1, (patches_of_a_time, -1)).mean(1)
        real = self._real_frames(frames.shape[1], lengths)
        real[:, 0] = True  # a clip of less than half a patch
        return frames, real


class WhisperEncoder(HubEncoder):
    """Whisper's encoder: it reads 30 s, what is missing being silence, and no more than that."""

    @staticmethod
    def takes(config: Any) -> bool:
        """Whether it is one."""
        return config.model_type == "whisper"

    def __init__(self, model: PreTrainedModel, extractor: Any):
        super().__init__(getattr(model, "encoder", model), extractor)

    def centers(self, num_frames: int) -> Tensor:
        """Windows are centered on multiples of the hop, and the second convolution halves their number."""
        return torch.arange(num_frames) * (2.0 * self.extractor.hop_length)

    def _frames(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        frames = self.model(**self._features(waveforms, lengths)).last_hidden_state
        return frames, self._real_frames(frames.shape[1], lengths)
