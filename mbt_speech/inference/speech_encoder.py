"""A model and its feature extractor as one: waveforms in, an embedding of each clip and of its frames out.

Axes: B clips, S samples, T' output frames, H hidden size, P numbers that represent a clip,
K classes.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import torch
from huggingface_hub.utils import logging as hub_logging
from torch import Tensor, nn
from transformers.utils import logging

import modeling_mbt
from feature_extraction import MBTFeatureExtractor
from mbt_speech.model_files import damage_named
from mbt_speech.user_errors import check_model_name
from modeling_mbt import MBTConfig, MBTForPreTraining, MBTForSequenceClassification, MBTModel
from modeling_mbt.encoder_mbt import frame_center, time_stride


def open_checkpoint(
    model_name_or_path: str | Path,
) -> tuple[MBTModel | MBTForSequenceClassification, MBTFeatureExtractor]:
    """Opens a checkpoint and its extractor in evaluation mode; of a pre-training one, the encoder.

    Args:
        model_name_or_path: What `from_pretrained` opens: a folder, or the name of a model on the Hub.

    Raises:
        OSError: There is no such checkpoint on the Hub, or no weights in the folder.
        ValueError: There is no such folder, or it does not hold an MBT model with all its weights and its extractor.
    """
    check_model_name(model_name_or_path)
    with damage_named(model_name_or_path), quiet_loading():
        return _open(model_name_or_path)


def _open(name: str | Path) -> tuple[MBTModel | MBTForSequenceClassification, MBTFeatureExtractor]:
    values, _ = MBTConfig.get_config_dict(name)
    if values.get("model_type") != MBTConfig.model_type:
        raise ValueError(f"{name} holds a model of type {values.get('model_type')}: give the folder of an MBT model.")
    config = MBTConfig.from_pretrained(name)
    architecture = (config.architectures or ["MBTModel"])[0]
    if architecture not in modeling_mbt.__all__:
        raise ValueError(f"{name} holds a {architecture}: give the folder of an MBT model.")
    model, loading = getattr(modeling_mbt, architecture).from_pretrained(
        name, dtype="float32", output_loading_info=True
    )
    if loading["missing_keys"]:
        raise ValueError(
            f"{name} lacks the weights of {min(loading['missing_keys'])}, which would be random numbers: name a "
            "checkpoint that holds all of them."
        )
    model = (model.mbt if isinstance(model, MBTForPreTraining) else model).eval()
    if Path(name).is_dir() and not Path(name, "preprocessor_config.json").is_file():
        raise ValueError(f"The folder {name} lacks preprocessor_config.json: save the extractor beside its model.")
    return model, MBTFeatureExtractor.from_pretrained(name)


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Keeps the libraries' reports and progress bars of loading from whoever uses a model."""
    verbosity, has_bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    of_hub = hub_logging.get_verbosity()
    logging.set_verbosity_error()
    hub_logging.set_verbosity_error()  # it would tell of every attempt
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        hub_logging.set_verbosity(of_hub)
        if has_bar:
            logging.enable_progress_bar()


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
        """Returns the rate in Hz that waveforms must have."""
        return self.extractor.sampling_rate

    @property
    def samples_per_frame(self) -> int:
        """Returns the distance between output frames in samples."""
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

    def forward(
        self,
        waveforms: Tensor | Sequence[Any],
        lengths: Tensor | None = None,
        output_hidden_states: bool | None = None,
    ) -> Any:
        """Represents clips, on the encoder's device.

        Args:
            waveforms: In [-1, 1] at the extractor's rate: (B, S), or B arrays or tensors (S,) of any lengths.
            lengths: With waveforms (B, S) on the encoder's device, padded at their ends, the samples of each clip,
                (B,); such waveforms are not checked.
            output_hidden_states: Also return the `hidden_states` of the layers, as `MBTModel` does.

        Returns:
            `last_hidden_state` (B, T', H), zero past a clip's end, and `pooler_output` (B, P).

        Raises:
            ValueError: A clip is empty, shorter than a window, not of floats, or holds NaN or infinity.
        """
        if lengths is not None:
            assert isinstance(waveforms, Tensor)
            features, mask = self.extractor.extract(waveforms, lengths)
            features = self.extractor.normalize(features, mask)
            return self.model(features, mask, output_hidden_states=output_hidden_states, return_dict=True)
        inputs = self.extractor(
            waveforms,  # pyright: ignore[reportArgumentType] - a tensor (B, S) is a batch of clips
            sampling_rate=self.sampling_rate,
            return_attention_mask=True,
            return_tensors="pt",
            device=self.model.device,
        )
        return self.model(**inputs, output_hidden_states=output_hidden_states, return_dict=True)


class SpeechClassifier(SpeechEncoder):
    """A classifier and its extractor; `forward` returns `logits` (B, K)."""

    @staticmethod
    def _take(model: MBTModel | MBTForSequenceClassification, name: str | Path) -> Any:
        if not isinstance(model, MBTForSequenceClassification):
            raise ValueError(f"{name} holds an encoder and no classifier: run_finetune.py puts one on it.")
        return model
