"""The encoder with its heads: the projector with its objective, and the classifier.

Axes: B clips, T input frames, T' output frames, M mel bins, H hidden size, P pooled size, D latents, K predictions of
a frame.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.loss.loss_utils import ForSequenceClassificationLoss
from transformers.modeling_outputs import BaseModelOutputWithPooling, SequenceClassifierOutput
from transformers.utils.generic import ModelOutput

from .configuration_mbt import MBTConfig
from .cpc_mbt import MBTContextNetwork, clip_latents
from .distributed_mbt import ObjectiveOutput
from .encoder_mbt import (
    MBTBottleneckLayer,
    MBTEncoder,
    first_unseen_step,
    kept_statistics,
    stride_mask,
    time_stride,
)
from .named_objectives_mbt import compute_objective, validate_objective
from .pooling_mbt import pool_frames
from .projector_mbt import MBTProjector

AUTO_MAP = {
    "AutoConfig": "configuration_mbt.MBTConfig",
    "AutoModel": "modeling_mbt.MBTModel",
    "AutoModelForPreTraining": "modeling_mbt.MBTForPreTraining",
    "AutoModelForAudioClassification": "modeling_mbt.MBTForSequenceClassification",
}


@dataclass
class MBTForPreTrainingOutput(ModelOutput):
    """Output of [`MBTForPreTraining`].

    Args:
        loss: The objective over the global batch, (), float32; `None` without a second view or with
            `return_loss=False`.
        invariance_loss: Its first term, that draws two views (of `"cpc"` a frame and its predictions) together, ().
        redundancy_loss: Its second term, that decorrelates the latents, (); of `"bt"` and `"mbt"` unweighted.
        projections: Latents of the first view, (B, D); of `"cpc"` those of its frames with what was predicted of them,
            (B, T', 1 + K, D + 1), as `MBTContextNetwork` lays them out.
        projections_b: The same of the second view.
        representations: The pooled frames of the first view, (B, P).
        representations_b: The same of the second view, (B, P).
        hidden_states: On request those of the first view, as [`MBTModel`] gives them.
        hidden_states_b: The same of the second view.
    """

    loss: Tensor | None = None
    invariance_loss: Tensor | None = None
    redundancy_loss: Tensor | None = None
    projections: Tensor | None = None
    projections_b: Tensor | None = None
    representations: Tensor | None = None
    representations_b: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    hidden_states_b: tuple[Tensor, ...] | None = None


class MBTPreTrainedModel(PreTrainedModel):
    """Initialization, loading and saving of the MBT models."""

    config_class = MBTConfig
    config: MBTConfig
    base_model_prefix = "mbt"
    main_input_name = "input_features"
    input_modalities = "audio"
    accepts_loss_kwargs = False  # the losses are means over the batch: Trainer divides by the accumulation steps
    supports_gradient_checkpointing = True
    _no_split_modules = ["MBTPlainLayer", "MBTMaxPoolLayer", "MBTBottleneckLayer"]  # noqa: RUF012 - transformers' own declaration

    def _set_gradient_checkpointing(  # pyright: ignore[reportIncompatibleMethodOverride] - 5.20 has fewer parameters
        self, enable: bool = True, gradient_checkpointing_func=checkpoint, **kwargs
    ):
        """Informs the layers when one is computed anew, so that batch norm does not count its batch twice.

        Torch says so of checkpoints that are not reentrant, and so they are none, whatever was asked for.
        """
        # Of a bound method, as a copy of the model is to freeze its own statistics.
        super()._set_gradient_checkpointing(enable, partial(self._checkpoint, gradient_checkpointing_func), **kwargs)

    def _checkpoint(self, gradient_checkpointing_func, *args, **options):
        # A compiled layer counts its batch once as it is, and takes no contexts.
        contexts = {} if torch.compiler.is_compiling() else {"context_fn": self._contexts}
        return gradient_checkpointing_func(*args, **{**options, "use_reentrant": False}, **contexts)

    def _contexts(self) -> tuple[AbstractContextManager, AbstractContextManager]:
        """Returns the contexts of a layer's forward pass and of its second one, in the backward pass."""
        return nullcontext(), kept_statistics(self)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        if isinstance(module, nn.Conv2d):
            init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            init.kaiming_uniform_(module.weight, a=5**0.5)  # torch's own initialization of a linear layer
            if module.bias is not None:
                bound = module.in_features**-0.5
                init.uniform_(module.bias, -bound, bound)
        elif isinstance(module, nn.GRU):
            for parameter in module.parameters():
                init.uniform_(parameter, -(module.hidden_size**-0.5), module.hidden_size**-0.5)
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            for name, tensor in (*module.named_parameters(), *module.named_buffers()):
                (init.ones_ if name in ("weight", "running_var") else init.zeros_)(tensor)
        elif isinstance(module, MBTBottleneckLayer):
            init.zeros_(module.expansion.normalization.weight)  # a residual branch starts as the identity

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, **kwargs):
        """Opens a model as transformers does, and refuses one that would answer everything with NaN.

        Raises:
            ValueError: A weight is NaN or infinite.
        """
        loaded = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        for name, value in (loaded[0] if isinstance(loaded, tuple) else loaded).state_dict().items():
            if value.is_floating_point() and not value.is_meta and not value.isfinite().all():
                raise ValueError(
                    f"{name} of {pretrained_model_name_or_path} holds values that are no numbers: the file is "
                    "damaged, or its training diverged. Take an earlier checkpoint."
                )
        return loaded

    def save_pretrained(self, save_directory, *args, **kwargs):
        """Saves weights, config and this code, with the map by which every Auto class finds its own class."""
        self.config.auto_map = dict(AUTO_MAP)
        super().save_pretrained(save_directory, *args, **kwargs)


class MBTModel(MBTPreTrainedModel):
    """The encoder f with pooling over time: what is kept after pre-training."""

    # Heads, which stay in the file.
    _keys_to_ignore_on_load_unexpected = [r"^projector\.", r"^classifier\."]  # noqa: RUF012 - transformers' own

    def __init__(self, config: MBTConfig):
        super().__init__(config)
        self.encoder = MBTEncoder(config)
        self.post_init()

    def forward(
        self,
        input_features: Tensor,
        attention_mask: Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **kwargs,
    ) -> BaseModelOutputWithPooling | tuple[Tensor, ...]:
        """Represents a batch of clips.

        Args:
            input_features: Features of `MBTFeatureExtractor`, (B, T, M).
            attention_mask: 1 for real frames, 0 for padding, which stands behind them, (B, T); without it every frame
                is real.
            output_hidden_states: Also return what the layers give; by default as the config says.
            return_dict: Return a tuple if `False`.
            kwargs: Ignored (`output_attentions` and the like: a convolutional encoder has none).

        Returns:
            `last_hidden_state` (B, T', H), zero in padding frames, `pooler_output` (B, P), and on request
            `hidden_states`: of each stage of convolutions (B, T_s, F_s C_s) at the stage's own rate, of each linear
            layer but the last (B, T', H_l), and `last_hidden_state`.

        Raises:
            ValueError: The features do not have the config's `num_mel_bins`, there is no frame, or the mask is not of
                the features' frames.
        """
        shape = input_features.shape
        if len(shape) != 3 or shape[1] == 0 or shape[2] != self.config.num_mel_bins:
            raise ValueError(
                f"This model takes features of shape (batch, frames, {self.config.num_mel_bins}) and was given "
                f"{tuple(shape)}: use the feature extractor saved beside it."
            )
        if attention_mask is not None and attention_mask.shape != shape[:2]:
            raise ValueError(
                f"`attention_mask` must be of shape {tuple(shape[:2])}, one number for each frame, and is of "
                f"{tuple(attention_mask.shape)}: pass that of the feature extractor."
            )
        convolution = next(module for module in self.encoder.modules() if isinstance(module, nn.Conv2d))
        input_features = input_features.to(convolution.weight.dtype)  # replicas of `DataParallel` have no parameters
        hidden_states = [] if _wants_hidden_states(self, output_hidden_states) else None
        frames, mask = self.encoder(input_features, attention_mask, hidden_states)
        if mask is not None:
            frames = frames * mask.unsqueeze(-1).to(frames.dtype)
        pooled = pool_frames(frames, input_features, attention_mask, self.config)
        output = BaseModelOutputWithPooling(
            last_hidden_state=frames,
            pooler_output=pooled,
            hidden_states=None if hidden_states is None else (*hidden_states, frames),
        )
        return output if _wants_dict(self, return_dict) else output.to_tuple()


class MBTForPreTraining(MBTPreTrainedModel):
    """Encoder, projector g (of `"cpc"` the context network) and the objective over two views."""

    def __init__(self, config: MBTConfig):
        super().__init__(config)
        validate_objective(**_objective_arguments(config), num_dims=config.projector_sizes[-1])
        self.mbt = MBTModel(config)
        if config.objective == "cpc":
            first = first_unseen_step(config)
            steps = range(first, first + config.prediction_steps)
            self.projector = MBTContextNetwork(config.hidden_size, config.context_size, steps)
        else:
            self.projector = MBTProjector(config)
        self.post_init()

    def forward(
        self,
        input_features: Tensor,
        input_features_b: Tensor | None = None,
        attention_mask: Tensor | None = None,
        attention_mask_b: Tensor | None = None,
        return_loss: bool = True,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **kwargs,
    ) -> MBTForPreTrainingOutput | tuple[Tensor, ...]:
        """Projects two views of a batch of crops and compares them.

        Args:
            input_features: The first view, (B, T, M).
            input_features_b: The second view of the same crops, (B, T, M); without it there is no loss.
            attention_mask: 1 for real frames of the first view, (B, T).
            attention_mask_b: 1 for real frames of the second view, (B, T).
            return_loss: Compute the objective.
            output_hidden_states: Also return the encoder's `hidden_states` of both views, as `MBTModel` does.
            return_dict: Return a tuple if `False`, the loss first.
            kwargs: Ignored (`output_attentions` and the like).

        Raises:
            ValueError: Fewer than two clips in the global batch, or in training in the batch of this process: batch
                statistics need two. Or, of `"cpc"`, clips too short to predict anything. Or the model is a replica of
                `torch.nn.DataParallel`, which has no part in a global batch.
        """
        if return_loss and input_features_b is not None and getattr(self, "_is_replica", False):
            raise ValueError(
                "Under torch.nn.DataParallel each GPU would compare a part of the batch alone: start one process for "
                "each GPU, with accelerate launch or torchrun."
            )
        hidden = _wants_hidden_states(self, output_hidden_states)
        representations, projections, hidden_states = self._view(input_features, attention_mask, hidden)
        values = {"projections": projections, "representations": representations, "hidden_states": hidden_states}
        if input_features_b is not None:
            view = self._view(input_features_b, attention_mask_b, hidden)
            values |= dict(zip(("representations_b", "projections_b", "hidden_states_b"), view, strict=True))
            if return_loss:
                values |= self.compare(projections, view[1])._asdict()
        output = MBTForPreTrainingOutput(**values)
        return output if _wants_dict(self, return_dict) else output.to_tuple()

    def compare(self, projections: Tensor, projections_b: Tensor) -> ObjectiveOutput:
        """Computes the config's objective on the projections of two views; each process brings its own rows.

        Raises:
            ValueError: Fewer than two clips in the global batch.
        """
        return compute_objective(
            z_a=projections,
            z_b=projections_b,
            redundancy_loss_weight=self.config.redundancy_loss_weight,
            **_objective_arguments(self.config),
        )

    def project(self, input_features: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Computes z = g(f(y)): (B, T, M) -> (B, D); of `"cpc"` the mean over the latents of a clip's frames."""
        return clip_latents(self._view(input_features, attention_mask, False)[1])

    def _view(
        self, input_features: Tensor, attention_mask: Tensor | None, output_hidden_states: bool
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...] | None]:
        """Computes representations, projections and, on request, hidden states."""
        output = self.mbt(input_features, attention_mask, output_hidden_states, return_dict=True)
        if isinstance(self.projector, MBTProjector):
            projections = self.projector(output.pooler_output[:, : self.config.projected_size])
        else:
            mask = stride_mask(attention_mask, time_stride(self.config))
            projections = self.projector(output.last_hidden_state, mask)
        return output.pooler_output, projections, output.hidden_states


class MBTForSequenceClassification(MBTPreTrainedModel):
    """Encoder and a linear classifier on the pooled representation."""

    def __init__(self, config: MBTConfig):
        super().__init__(config)
        self.mbt = MBTModel(config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.classifier = nn.Linear(config.pooled_size, len(config.id2label or {}))
        self.post_init()

    def freeze_base_model(self):
        """Freezes all but the classifier; batch norm keeps its pre-trained statistics, in training mode too."""
        self.mbt.requires_grad_(False)
        self.mbt.eval()

    def freeze_feature_encoder(self):
        """Freezes the whole encoder, which is convolutional: the name that speech scripts call."""
        self.freeze_base_model()

    def train(self, mode: bool = True):
        """Sets training mode, except for a frozen encoder."""
        super().train(mode)
        if not any(parameter.requires_grad for parameter in self.mbt.parameters()):
            self.mbt.eval()
        return self

    def forward(
        self,
        input_features: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **kwargs,
    ) -> SequenceClassifierOutput | tuple[Tensor, ...]:
        """Classifies a batch of clips.

        Args:
            input_features: Features of `MBTFeatureExtractor`, (B, T, M).
            attention_mask: 1 for real frames, 0 for padding behind them, (B, T).
            labels: Class ids, (B,), values to regress on, (B,) or (B, num_labels), or for several labels a clip 0. or
                1. for each, (B, num_labels). The config's `problem_type` says which; while it is `None`, the labels'
                type and number decide, as in transformers' own classifiers.
            output_hidden_states: Also return the encoder's `hidden_states`, as `MBTModel` does.
            return_dict: Return a tuple if `False`.
            kwargs: Ignored (`output_attentions` and the like).

        Returns:
            `logits` (B, num_labels) and, with labels, the `loss`: mean cross-entropy, squared error, or binary
            cross-entropy.
        """
        hidden = _wants_hidden_states(self, output_hidden_states)
        encoded = self.mbt(input_features, attention_mask, hidden, return_dict=True)
        logits = self.classifier(self.dropout(encoded.pooler_output))
        loss = None
        if labels is not None:
            wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
            loss = ForSequenceClassificationLoss(labels, wide, self.config)
        output = SequenceClassifierOutput(loss=loss, logits=logits, hidden_states=encoded.hidden_states)
        return output if _wants_dict(self, return_dict) else output.to_tuple()


def _objective_arguments(config: MBTConfig) -> dict:
    return {
        "objective": config.objective,
        "latent_normalization": config.latent_normalization,
        "latent_normalization_strength": config.latent_normalization_strength,
        "objective_kwargs": config.objective_kwargs,
    }


def _wants_hidden_states(model: PreTrainedModel, output_hidden_states: bool | None) -> bool:
    return bool(model.config.output_hidden_states if output_hidden_states is None else output_hidden_states)


def _wants_dict(model: PreTrainedModel, return_dict: bool | None) -> bool:
    return bool(model.config.return_dict if return_dict is None else return_dict)


MBTConfig.register_for_auto_class()
MBTModel.register_for_auto_class("AutoModel")
MBTForPreTraining.register_for_auto_class("AutoModelForPreTraining")
MBTForSequenceClassification.register_for_auto_class("AutoModelForAudioClassification")
