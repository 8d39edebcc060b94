"""The convolutional encoder, the projector with its objective, and the classifier.

Axes: B clips, C channels, T input frames, T' output frames, M mel bins, F frequencies, H hidden size, D latents.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.dynamic_module_utils import custom_object_save
from transformers.modeling_outputs import BaseModelOutputWithPooling, SequenceClassifierOutput
from transformers.utils.generic import ModelOutput

from .configuration_mbt import MBTConfig
from .objectives_mbt import ObjectiveOutput, compute_objective, validate_objective

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
        invariance_loss: Its first term, that draws the two views together, ().
        redundancy_loss: Its second term, unweighted, that decorrelates the latents, ().
        projections: Latents of the first view, (B, D).
        projections_b: Latents of the second view, (B, D).
        representations: What the projector was given of the first view, (B, H).
        representations_b: The same of the second view, (B, H).
    """

    loss: Tensor | None = None
    invariance_loss: Tensor | None = None
    redundancy_loss: Tensor | None = None
    projections: Tensor | None = None
    projections_b: Tensor | None = None
    representations: Tensor | None = None
    representations_b: Tensor | None = None


class MBTConvLayer(nn.Module):
    """Convolution without bias, batch norm and, unless it ends a residual branch, ReLU: (B, C, T, F).

    Frames that are padding are set to zero after it, where the convolution of a lone clip would see its own zero
    padding: so a clip has one representation, alone or in a batch of longer ones.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride=(1, 1), *, activation=True):
        super().__init__()
        padding = kernel_size // 2
        self.convolution = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=False)
        self.normalization = nn.BatchNorm2d(out_channels)
        self.activation = nn.ReLU(inplace=True) if activation else nn.Identity()

    def forward(self, hidden_states: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Give the layer's output and the mask of its frames."""
        hidden_states = self.activation(self.normalization(self.convolution(hidden_states)))
        return mask_frames(hidden_states, stride_mask(mask, self.convolution.stride[0]))


class MBTBottleneckLayer(nn.Module):
    """Residual layer of ResNet-50 (arXiv 1512.03385), the stride in its 3x3 convolution: (B, C, T, F)."""

    def __init__(self, in_channels: int, out_channels: int, stride=(1, 1)):
        super().__init__()
        reduced = max(1, out_channels // 4)
        self.shortcut = None
        if in_channels != out_channels or stride != (1, 1):
            self.shortcut = MBTConvLayer(in_channels, out_channels, 1, stride, activation=False)
        self.reduction = MBTConvLayer(in_channels, reduced, 1)
        self.convolution = MBTConvLayer(reduced, reduced, 3, stride)
        self.expansion = MBTConvLayer(reduced, out_channels, 1, activation=False)

    def forward(self, hidden_states: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Give the layer's output and the mask of its frames."""
        residual = hidden_states if self.shortcut is None else self.shortcut(hidden_states, mask)[0]
        for layer in (self.reduction, self.convolution, self.expansion):
            hidden_states, mask = layer(hidden_states, mask)
        return torch.relu(hidden_states + residual), mask


class MBTEncoder(nn.Module):
    """Features to frames: (B, T, M), (B, T) -> (B, T', H), (B, T')."""

    def __init__(self, config: MBTConfig):
        super().__init__()
        self.stem, channels, num_frequencies = None, 1, config.num_mel_bins
        if config.embedding_size is not None:
            self.stem = MBTConvLayer(1, config.embedding_size, 7, (2, 2))
            channels, num_frequencies = config.embedding_size, -(-num_frequencies // 4)
        layer_class = {"plain": _plain_layer, "bottleneck": MBTBottleneckLayer}[config.layer_type]
        layers = []
        for stage, size in enumerate(config.hidden_sizes):
            stride = (config.time_strides[stage], config.frequency_strides[stage])
            num_frequencies = -(-num_frequencies // stride[1])
            for depth in range(config.depths[stage]):
                layers.append(layer_class(channels, size, stride if depth == 0 else (1, 1)))
                channels = size
        self.layers = nn.ModuleList(layers)
        widths = [channels * num_frequencies, *config.frame_hidden_sizes]
        self.frame_layers = nn.ModuleList(nn.Linear(i, o) for i, o in pairwise(widths))
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, input_features: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Give the frames and their mask."""
        hidden_states, mask = mask_frames(input_features.unsqueeze(1), mask)
        if self.stem is not None:
            hidden_states, mask = self.stem(hidden_states, mask)
            # Values are >= 0 here, so that a frame of zeros never wins over a real one.
            hidden_states = nn.functional.max_pool2d(hidden_states, 3, stride=2, padding=1)
            hidden_states, mask = mask_frames(hidden_states, stride_mask(mask, 2))
        for layer in self.layers:
            hidden_states, mask = layer(hidden_states, mask)
        if not self.frame_layers:
            return hidden_states.mean(dim=3).transpose(1, 2), mask
        frames = hidden_states.permute(0, 2, 3, 1).flatten(2)
        for layer in self.frame_layers:
            frames = torch.relu(layer(self.dropout(frames)))
        return frames, mask


def _plain_layer(in_channels: int, out_channels: int, stride) -> MBTConvLayer:
    return MBTConvLayer(in_channels, out_channels, 3, stride)


def stride_mask(mask: Tensor | None, stride: int) -> Tensor | None:
    """Mask (B, T) behind a "same" convolution or pooling of this stride: an output frame is real if its centre is."""
    if mask is None or stride == 1:
        return mask
    # Indices, not a slice: to torch.export, a slice with a step ties the graph to even or to odd lengths.
    return mask[:, torch.arange(0, mask.shape[1], stride, device=mask.device)]


def mask_frames(hidden_states: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Set the padding frames of (B, C, T, F) to zero; without a mask every frame is real."""
    if mask is not None:
        hidden_states = hidden_states * mask[:, None, :, None].to(hidden_states.dtype)
    return hidden_states, mask


def pool_frames(frames: Tensor, mask: Tensor | None, pooling_mode: str) -> Tensor:
    """Pool the real frames over time: (B, T', H), (B, T') -> (B, H)."""
    if mask is None:
        mask = frames.new_ones(frames.shape[:2])
    weights = mask.unsqueeze(-1).to(frames.dtype)
    mean = (frames * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)
    if pooling_mode == "mean":
        return mean
    # Frames come out of a ReLU: padding set to zero never exceeds a real maximum.
    return mean + (frames * weights).amax(dim=1)


class MBTProjector(nn.Module):
    """Representation to latents, (B, H) -> (B, D): linear without bias, batch norm, ReLU; the last linear is bare.

    As in arXiv 2103.03230.
    """

    def __init__(self, config: MBTConfig):
        super().__init__()
        widths = [config.hidden_size, *config.projector_sizes]
        layers = []
        for i, o in pairwise(widths[:-1]):
            layers += [nn.Linear(i, o, bias=False), nn.BatchNorm1d(o), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-2], widths[-1], bias=False))

    def forward(self, representations: Tensor) -> Tensor:
        """Give the latents."""
        return self.layers(representations)


class MBTPreTrainedModel(PreTrainedModel):
    """Initialisation, loading and saving of the MBT models."""

    config_class = MBTConfig
    config: MBTConfig
    base_model_prefix = "mbt"
    main_input_name = "input_features"
    input_modalities = "audio"
    accepts_loss_kwargs = False  # the losses are means over the batch: Trainer divides by the accumulation steps
    _no_split_modules = ["MBTConvLayer", "MBTBottleneckLayer"]  # noqa: RUF012 - transformers' own declaration

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        if isinstance(module, nn.Conv2d):
            init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            init.kaiming_uniform_(module.weight, a=5**0.5)  # torch's own initialisation of a linear layer
            if module.bias is not None:
                bound = module.in_features**-0.5
                init.uniform_(module.bias, -bound, bound)
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            for name, tensor in (*module.named_parameters(), *module.named_buffers()):
                (init.ones_ if name in ("weight", "running_var") else init.zeros_)(tensor)
        elif isinstance(module, MBTBottleneckLayer):
            init.zeros_(module.expansion.normalization.weight)  # a residual branch starts as the identity

    def save_pretrained(self, save_directory, *args, **kwargs):
        """Save weights, config and this code, with the map by which every Auto class finds its own class."""
        self.config.auto_map = dict(AUTO_MAP)
        super().save_pretrained(save_directory, *args, **kwargs)

    def save_config_and_code(self, save_directory):
        """Save what `save_pretrained` does beside the weights, for a folder to which another hand writes those."""
        self.config.auto_map = dict(AUTO_MAP)
        self.config.architectures = [type(self).__name__]
        custom_object_save(self, save_directory, config=self.config)  # pyright: ignore[reportArgumentType]
        self.config.save_pretrained(save_directory)


class MBTModel(MBTPreTrainedModel):
    """The encoder f with pooling over time: what is kept after pre-training."""

    def __init__(self, config: MBTConfig):
        super().__init__(config)
        self.encoder = MBTEncoder(config)
        self.post_init()

    def forward(
        self,
        input_features: Tensor,
        attention_mask: Tensor | None = None,
        return_dict: bool | None = None,
        **kwargs,
    ) -> BaseModelOutputWithPooling | tuple[Tensor, ...]:
        """Represent a batch of clips.

        Args:
            input_features: Features of `MBTFeatureExtractor`, (B, T, M).
            attention_mask: 1 for real frames, 0 for padding, (B, T); without it every frame is real.
            return_dict: Return a tuple if `False`.
            kwargs: Ignored (`output_attentions` and the like: a convolutional encoder has none).

        Returns:
            `last_hidden_state` (B, T', H), zero in padding frames, and `pooler_output` (B, H).

        Raises:
            ValueError: The features do not have the config's `num_mel_bins`.
        """
        if input_features.ndim != 3 or input_features.shape[-1] != self.config.num_mel_bins:
            raise ValueError(
                f"This model takes features of shape (batch, frames, {self.config.num_mel_bins}) and was given "
                f"{tuple(input_features.shape)}: use the feature extractor saved beside it."
            )
        frames, mask = self.encoder(input_features.to(self.dtype), attention_mask)
        if mask is not None:
            frames = frames * mask.unsqueeze(-1).to(frames.dtype)
        pooled = pool_frames(frames, mask, self.config.pooling_mode)
        output = BaseModelOutputWithPooling(last_hidden_state=frames, pooler_output=pooled)
        return output if _wants_dict(self, return_dict) else output.to_tuple()


class MBTForPreTraining(MBTPreTrainedModel):
    """Encoder, projector g and the objective over two views."""

    def __init__(self, config: MBTConfig):
        super().__init__(config)
        validate_objective(**_objective_arguments(config), num_dims=config.projector_sizes[-1])
        self.mbt = MBTModel(config)
        self.projector = MBTProjector(config)
        self.post_init()

    def forward(
        self,
        input_features: Tensor,
        input_features_b: Tensor | None = None,
        attention_mask: Tensor | None = None,
        attention_mask_b: Tensor | None = None,
        return_loss: bool = True,
        return_dict: bool | None = None,
        **kwargs,
    ) -> MBTForPreTrainingOutput | tuple[Tensor, ...]:
        """Project two views of a batch of crops and compare them.

        Args:
            input_features: The first view, (B, T, M).
            input_features_b: The second view of the same crops, (B, T, M); without it there is no loss.
            attention_mask: 1 for real frames of the first view, (B, T).
            attention_mask_b: 1 for real frames of the second view, (B, T).
            return_loss: Compute the objective.
            return_dict: Return a tuple if `False`.
            kwargs: Ignored (`output_attentions` and the like).

        Raises:
            ValueError: Fewer than two clips in the global batch: batch statistics need two.
        """
        output = MBTForPreTrainingOutput()
        output["representations"] = self.mbt(input_features, attention_mask, return_dict=True).pooler_output
        output["projections"] = self.projector(output["representations"])
        if input_features_b is not None:
            output["representations_b"] = self.mbt(input_features_b, attention_mask_b, return_dict=True).pooler_output
            output["projections_b"] = self.projector(output["representations_b"])
            if return_loss:
                objective = self.compare(output["projections"], output["projections_b"])
                for name, value in objective._asdict().items():
                    output[name] = value
        return output if _wants_dict(self, return_dict) else output.to_tuple()

    def compare(self, projections: Tensor, projections_b: Tensor) -> ObjectiveOutput:
        """The config's objective on latents (B, D) of two views; in several processes each gives its own rows.

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
        """Z = g(f(y)): (B, T, M) -> (B, D)."""
        return self.projector(self.mbt(input_features, attention_mask, return_dict=True).pooler_output)


class MBTForSequenceClassification(MBTPreTrainedModel):
    """Encoder and a linear classifier on the pooled representation."""

    def __init__(self, config: MBTConfig):
        super().__init__(config)
        self.mbt = MBTModel(config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.classifier = nn.Linear(config.hidden_size, len(config.id2label or {}))
        self.post_init()

    def freeze_base_model(self):
        """Let only the classifier learn; batch norm keeps its pre-trained statistics, in training mode too."""
        self.mbt.requires_grad_(False)
        self.mbt.eval()

    def freeze_feature_encoder(self):
        """Let only the classifier learn: the whole encoder is convolutional, the name that speech scripts call."""
        self.freeze_base_model()

    def train(self, mode: bool = True):
        """Set training mode, except for a frozen encoder."""
        super().train(mode)
        if not any(parameter.requires_grad for parameter in self.mbt.parameters()):
            self.mbt.eval()
        return self

    def forward(
        self,
        input_features: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        return_dict: bool | None = None,
        **kwargs,
    ) -> SequenceClassifierOutput | tuple[Tensor, ...]:
        """Classify a batch of clips.

        Args:
            input_features: Features of `MBTFeatureExtractor`, (B, T, M).
            attention_mask: 1 for real frames, 0 for padding, (B, T).
            labels: Class ids, (B,), for the cross-entropy loss.
            return_dict: Return a tuple if `False`.
            kwargs: Ignored (`output_attentions` and the like).

        Returns:
            `logits` (B, num_labels) and, with labels, the mean cross-entropy `loss`.
        """
        pooled = self.mbt(input_features, attention_mask, return_dict=True).pooler_output
        logits = self.classifier(self.dropout(pooled))
        loss = None if labels is None else nn.functional.cross_entropy(logits.float(), labels)
        output = SequenceClassifierOutput(loss=loss, logits=logits)
        return output if _wants_dict(self, return_dict) else output.to_tuple()


def _objective_arguments(config: MBTConfig) -> dict:
    return {
        "objective": config.objective,
        "latent_normalization": config.latent_normalization,
        "latent_normalization_strength": config.latent_normalization_strength,
        "objective_kwargs": config.objective_kwargs,
    }


def _wants_dict(model: PreTrainedModel, return_dict: bool | None) -> bool:
    return bool(model.config.return_dict if return_dict is None else return_dict)


MBTConfig.register_for_auto_class()
MBTModel.register_for_auto_class("AutoModel")
MBTForPreTraining.register_for_auto_class("AutoModelForPreTraining")
MBTForSequenceClassification.register_for_auto_class("AutoModelForAudioClassification")
