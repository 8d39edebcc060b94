"""What `--model_name_or_path` names: MBT checkpoints, other audio encoders of the Hub, and controls."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accelerate.utils import set_seed
from transformers import AutoConfig, AutoFeatureExtractor

from mbt_speech.arguments import CONTROLS, STATS, FinetuneArguments
from mbt_speech.model_files import damage_named
from mbt_speech.presets import PRESETS
from mbt_speech.user_errors import check_model_name
from modeling_mbt import MBTConfig, MBTForSequenceClassification, MBTModel

from .classification import class_names, put_on
from .encoders import ClipEncoder, FrozenEncoder, LogMelStatistics, MBTFrozenEncoder
from .hub_classifiers import HubClassifier, check_trainable, open_hub_classifier
from .hub_encoders import open_hub_encoder
from .linear_fits import LinearHead

WEIGHTS = "model.safetensors"
MODEL_FILES = (WEIGHTS, "config.json", "preprocessor_config.json")
# Fields of a config that say nothing of its encoder.
PRETRAINING = ("projector_sizes", "context_size", "prediction_steps", "objective", "redundancy_loss_weight",
               "latent_normalization", "latent_normalization_strength", "objective_kwargs",
               "verification_threshold")  # fmt: skip


class Methods:
    """The methods that a run compares, by the names that it gives them; their models are opened as they are needed.

    Controls have the features and the architecture of the first MBT model; without one, those of the preset.

    Raises:
        ValueError: The models expect different sampling rates, or one cannot be trained, or not with these arguments.
    """

    def __init__(self, args: FinetuneArguments):
        self.args = args
        others = [name for name in args.model_name_or_path if name not in CONTROLS]
        for name in others:
            check_model_name(name)
        self.configs = {name: AutoConfig.from_pretrained(name, token=args.hub_token) for name in others}
        if not args.freeze_encoder:
            self._check_trainable([name for name in others if not self.is_mbt(name)])
        extractors = {name: AutoFeatureExtractor.from_pretrained(name, token=args.hub_token) for name in others}
        self._first_mbt = next(filter(self.is_mbt, others), None)
        of_controls = extractors[self._first_mbt] if self._first_mbt else PRESETS[args.preset].extractor()
        self.extractors = {name: extractors.get(name, of_controls) for name in args.model_name_or_path}
        rates = {name: extractor.sampling_rate for name, extractor in self.extractors.items()}
        if len(set(rates.values())) > 1:
            each = ", ".join(f"{name} {rate} Hz" for name, rate in rates.items())
            raise ValueError(f"The models expect different sampling rates: compare them in separate runs ({each}).")
        self.sampling_rate: int = next(iter(rates.values()))

    def model_type(self, name: str) -> str:
        """Returns the `model_type` of a method's config, or `stats`."""
        if name in self.configs:
            return self.configs[name].model_type
        return name if name == STATS else MBTConfig.model_type

    def is_mbt(self, name: str) -> bool:
        """Whether the encoder of a method is one of ours."""
        return self.model_type(name) == MBTConfig.model_type

    def digest(self, name: str) -> str:
        """Returns what changes with a method: with the files in its folder, or with what makes a control."""
        files = [path for path in (Path(name, file) for file in MODEL_FILES) if path.is_file()]
        has_weights = Path(name, WEIGHTS) in files
        if name in CONTROLS:
            config = self._config_of_controls()
            shape = {field: getattr(config, field) for field in MBTConfig.__annotations__ if field not in PRETRAINING}
            identity = json.dumps([shape, self.extractors[name].to_dict()], sort_keys=True).encode()
        else:
            identity = b"".join(path.read_bytes() for path in files) + (b"" if has_weights else name.encode())
        return hashlib.sha256(identity).hexdigest()[:8]

    def frozen_encoder(self, name: str, seed: int) -> FrozenEncoder:
        """Opens the encoder of a method; `seed` makes the weights of `random`.

        Raises:
            ValueError: The model is of no kind that is known here, or its file lacks weights.
        """
        extractor = self.extractors[name]
        if name == STATS:
            return LogMelStatistics(extractor)
        if not self.is_mbt(name):
            return open_hub_encoder(name, extractor, self.args.hub_token)
        if name in CONTROLS:
            set_seed(seed)
            return MBTFrozenEncoder(MBTModel(self._config_of_controls()), extractor)
        with damage_named(name):
            model, loading = MBTModel.from_pretrained(  # pyright: ignore[reportGeneralTypeIssues]
                name, dtype="float32", output_loading_info=True, token=self.args.hub_token
            )
        if lacking := loading["missing_keys"]:
            raise ValueError(f"{name} holds no MBT encoder: it lacks {min(lacking)}.")
        return MBTFrozenEncoder(model, extractor)

    def clip_encoder(self, name: str, seed: int) -> ClipEncoder:
        """Opens what represents clips for the head of a method.

        It is the frozen encoder, or, of a model of the Hub that is to be trained, the model with its classifier.

        Raises:
            ValueError: The model is of no kind that is known here, or its file lacks weights.
        """
        if self.args.freeze_encoder or self.is_mbt(name):
            return self.frozen_encoder(name, seed)
        return open_hub_classifier(name, self.extractors[name], self.args.hub_token)

    def with_head(
        self, name: str, seed: int, head: LinearHead, label_names: Sequence[str]
    ) -> MBTForSequenceClassification | HubClassifier:
        """Opens a method's encoder with the head that was fitted on its representations of clips."""
        encoder = self.clip_encoder(name, seed)
        if isinstance(encoder, HubClassifier):
            return encoder.put_on(head, label_names)
        assert isinstance(encoder, MBTFrozenEncoder)
        return put_on(encoder.model, head, label_names)

    def new_classifier(self, label_names: Sequence[str]) -> MBTForSequenceClassification:
        """Returns a network as it is initialized, encoder and head, to be trained from scratch."""
        return MBTForSequenceClassification(self._config_of_controls(**class_names(label_names)))

    def _check_trainable(self, foreign: Sequence[str]) -> None:
        for name in foreign:
            check_trainable(name, self.configs[name])
        if foreign and self.args.augmentation is not None:
            raise ValueError(
                f"--augmentation distorts the features of MBT models: leave it out to train {foreign[0]}, whose own "
                "config.json says what is masked in training."
            )

    def _config_of_controls(self, **overrides: Any) -> MBTConfig:
        if self._first_mbt is None:
            return PRESETS[self.args.preset].config(**overrides)
        overrides = {"encoder_density": 1.0, **overrides}
        return MBTConfig.from_pretrained(self._first_mbt, token=self.args.hub_token, **overrides)
