"""Audio encoders of the Hub with a classifier, to be trained: what `AutoModelForAudioClassification` opens.

Axes: B clips, S samples, H input size of the last layer, K classes.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.modules.batchnorm import _BatchNorm
from transformers import AutoModelForAudioClassification, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.models.auto.modeling_auto import MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES

from mbt_speech.model_files import damage_named

from .classification import class_names
from .encoders import model_fingerprint
from .hub_encoders import UNUSED, WaveformEncoder, encoder_class_of
from .linear_fits import LinearHead


def check_trainable(name: str, config: Any) -> None:
    """Refuses what cannot be trained here.

    Raises:
        ValueError: The model is of a family that is not known here, or that has no classifier.
    """
    if encoder_class_of(config) is None or config.model_type not in MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES:
        raise ValueError(
            f"{name} is a {config.model_type} model, which cannot be trained here: name an MBT model, or one of the "
            "wav2vec 2.0 family (without an adapter), AST or Whisper."
        )


def open_hub_classifier(name_or_path: str, extractor: Any, token: str | None = None) -> "HubClassifier":
    """Opens a model of the Hub, or of a folder, with the classifier of its family.

    Its last layer is zero until `put_on` fills it; a projector before it that the file lacks is the identity.

    Raises:
        ValueError: It cannot be trained here, or its file lacks weights.
    """
    with damage_named(name_or_path):
        model, loading = AutoModelForAudioClassification.from_pretrained(
            name_or_path, output_loading_info=True, token=token, dtype="float32"
        )
    check_trainable(name_or_path, model.config)
    new = ("projector.", "classifier.", *UNUSED)
    missing = sorted(loading["missing_keys"])
    if wrong := [key for key in missing if not key.startswith(new) and not key.endswith(UNUSED)]:
        raise ValueError(f"{name_or_path} lacks weights of its {type(model).__name__}, such as {wrong[0]}.")
    if "projector.weight" in missing:
        size = model.config.classifier_proj_size = model.config.hidden_size
        model.projector, model.classifier = nn.Linear(size, size), nn.Linear(size, 1)
        nn.init.eye_(model.projector.weight)
        nn.init.zeros_(model.projector.bias)
    return HubClassifier(model, extractor)


class HubClassifier(nn.Module):
    """A model of the Hub with its classifier, which reads waveforms through its own feature extractor.

    A clip is represented by what the last layer gets, so that a head that was fitted on these representations is where
    training starts. As is usual, the convolutions of the wav2vec 2.0 family stay as they are; so do running statistics
    and the vector that stands for masked frames, and no layer is dropped: every weight that learns has a gradient in
    every step. What masks frames in training is the model's own config (`apply_spec_augment`).

    Waveforms are (B, S) float32 in [-1, 1], zero past their `lengths` (B,) in samples.
    """

    def __init__(self, hub: PreTrainedModel, extractor: Any):
        super().__init__()
        self.hub, self.extractor, self.sampling_rate = hub, extractor, extractor.sampling_rate
        encoder_class = encoder_class_of(hub.config)
        assert encoder_class is not None
        self._encoder = encoder_class(hub, extractor)
        nn.init.zeros_(self._last.weight)
        nn.init.zeros_(self._last.bias)
        if isinstance(self._encoder, WaveformEncoder):
            hub.freeze_feature_encoder()  # pyright: ignore[reportCallIssue]
        for name, parameter in hub.named_parameters():
            if name.endswith("masked_spec_embed"):
                parameter.requires_grad_(False)
        if hasattr(hub.config, "layerdrop"):
            hub.config.layerdrop = 0.0

    @property
    def config(self) -> Any:
        """The model's."""
        return self.hub.config

    @property
    def _last(self) -> nn.Linear:
        classifier: Any = self.hub.classifier
        return getattr(classifier, "dense", classifier)  # AST has a layer norm before it

    def put_on(self, head: LinearHead, label_names: Sequence[str]) -> Self:
        """Makes a head that was fitted on its representations its last layer."""
        last = nn.Linear(head.weight.shape[1], head.weight.shape[0])
        with torch.no_grad():
            last.weight.copy_(torch.from_numpy(head.weight))
            last.bias.copy_(torch.from_numpy(head.bias))
        if self._last is self.hub.classifier:
            self.hub.classifier = last
        else:
            self.hub.classifier.dense = last  # pyright: ignore[reportAttributeAccessIssue]
        self.config.update(class_names(label_names) | {"problem_type": "single_label_classification"})
        return self

    def forward(self, waveforms: Tensor, lengths: Tensor, labels: Tensor | None = None) -> SequenceClassifierOutput:
        """Classifies clips: `logits` (B, K), and with `labels` (B,) their mean cross-entropy, `loss`."""
        batches = list(self._encoder.inputs(waveforms, lengths))
        logits = torch.cat([self._classify(inputs) for _, inputs in batches])
        logits = logits[torch.cat([rows for rows, _ in batches]).argsort()]
        loss = None if labels is None else cross_entropy(logits.float(), labels)
        return SequenceClassifierOutput(loss=loss, logits=logits)  # pyright: ignore[reportArgumentType]

    @torch.no_grad()
    def represent(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Represents clips by what the last layer gets, (B, H)."""
        seen: list[Tensor] = []
        hook = self._last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        batches = list(self._encoder.inputs(waveforms, lengths))
        try:
            for _, inputs in batches:
                self._classify(inputs)
        finally:
            hook.remove()
        return torch.cat(seen)[torch.cat([rows for rows, _ in batches]).argsort()]

    def fingerprint(self) -> dict[str, Any]:
        """Identifies weights, settings and features."""
        return model_fingerprint(self.hub) | {"extractor": self.extractor.to_dict()}

    def train(self, mode: bool = True) -> Self:
        """Sets training mode, but of batch norm: clips of one length are too few to estimate statistics."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, _BatchNorm):  # SyncBatchNorm is one, too
                module.eval()
        return self

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Returns the model's, with its names."""
        return self.hub.state_dict(*args, **kwargs)

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Takes what `state_dict` gave."""
        return self.hub.load_state_dict(state_dict, *args, **kwargs)

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes the model with the names of `state_dict`, from which training resumes."""
        self.hub.save_pretrained(folder, save_original_format=False)

    def _classify(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Returns the logits of inputs; clips of fewer frames than one mask takes are not masked."""
        config = self.config
        if not isinstance(self._encoder, WaveformEncoder) or not self.training:
            return self.hub(**inputs).logits
        frames, masked = self._encoder.num_frames(inputs["input_values"].shape[1]), config.apply_spec_augment
        config.apply_spec_augment = masked and frames >= config.mask_time_length
        try:
            return self.hub(**inputs).logits
        finally:
            config.apply_spec_augment = masked
