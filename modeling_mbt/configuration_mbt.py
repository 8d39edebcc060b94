"""Every number of an MBT model: encoder, projector, objective."""

import math
from dataclasses import field
from itertools import pairwise
from numbers import Integral
from typing import Any, Literal

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

# Far beyond what speech needs, and within what a machine can open.
MAX_LAYERS = 1_000
MAX_LABELS = 100_000
MAX_WEIGHTS = 2**30


@strict
class MBTConfig(PreTrainedConfig):
    r"""Configuration of the convolutional encoder, the projector and the redundancy-reduction objective.

    The defaults are four strided 3x3 convolutions that keep the time axis, the frequency axis flattened into two
    linear layers per frame, and mean + max pooling over time; checkpoints that lack a field mean its default. The
    `strong` preset sets the shape that did best on real speech (docs/recipe.md), after arXiv 2204.07402; `faithful`
    the one-channel ResNet-50 layout that fits the 2048 latents of arXiv 2309.03619.

    Args:
        num_mel_bins (`int`, *optional*, defaults to 64):
            Frequency bins M of the input features, (B, T, M): the extractor's `feature_size`.
        embedding_size (`int`, *optional*):
            Channels of a 7x7 stem convolution followed by a 3x3 max pooling, each of stride 2 in time and frequency.
            `None` leaves the stem out.
        layer_type (`str`, *optional*, defaults to `"plain"`):
            `"plain"` (one 3x3 convolution a layer, with the stride), `"max_pool"` (one 3x3 convolution of stride 1,
            then max pooling by the stride) or `"bottleneck"` (the residual layer of ResNet-50).
        hidden_sizes (`list[int]`, *optional*, defaults to `[32, 64, 128, 128]`):
            Channels of each stage.
        depths (`list[int]`, *optional*, defaults to `[1, 1, 1, 1]`):
            Layers of each stage.
        time_strides (`list[int]`, *optional*, defaults to `[2, 2, 1, 1]`):
            Stride along time of each stage's first layer; their product (times 4 with a stem) is the number of input
            frames per output frame.
        frequency_strides (`list[int]`, *optional*, defaults to `[2, 2, 2, 2]`):
            Stride along frequency of each stage's first layer.
        frame_hidden_sizes (`list[int]`, *optional*, defaults to `[512, 512]`):
            Widths of the linear layers over each frame's flattened channels and frequencies. Empty: the mean over
            frequency instead, without linear layers.
        concatenate_local_features (`bool`, *optional*, defaults to `False`):
            Whether a frame holds the flattened convolutional features beside the output of the linear layers, as in
            arXiv 2204.07402.
        pooling_mode (`str`, *optional*, defaults to `"mean_max"`):
            How frames become one vector for a clip: `"mean_max"` (the sum of mean and maximum over time), `"mean"`, or
            `"statistics"` (mean, deviation and maximum of what is speech, and its order in time, side by side).
        pooling_cosines (`int`, *optional*, defaults to 0):
            Of `"statistics"` alone: coefficients of a cosine transform over time that tell in which order things are
            said, of the local features where frames hold them, else of whole frames.
        pooling_bands (`int`, *optional*, defaults to 4):
            Bands of neighboring frequencies over which local features are averaged for the cosines.
        pool_input_features (`bool`, *optional*, defaults to `False`):
            Of `"statistics"` alone: whether statistics of the input features and of their slopes stand beside those of
            the frames, `pooling_mbt.input_statistics`. The projector does not read them.
        hidden_dropout_prob (`float`, *optional*, defaults to 0.0):
            Dropout in front of each per-frame linear layer and in front of the classifier.
        encoder_density (`float`, *optional*, defaults to 1.0):
            Share of the weights of convolutions and linear layers, the first one aside, that sparse training left in
            the encoder. The rest is zero, and fine-tuning keeps it so.
        projector_sizes (`list[int]`, *optional*, defaults to `[1024, 1024, 1024]`):
            Widths of the projector's linear layers; the last one is D, the dimension of the latents. `"cpc"` has a
            context network instead.
        context_size (`int`, *optional*, defaults to 256):
            Of `"cpc"` alone: width of the recurrent network that reads the frames, and dimension of their latents.
        prediction_steps (`int`, *optional*, defaults to 4):
            Of `"cpc"` alone: frames K that are predicted from each frame. The first is the nearest one that shares no
            input with it, which `encoder_mbt.first_unseen_step` derives.
        objective (`str`, *optional*, defaults to `"bt"`):
            Name of the objective: `"bt"`, `"mbt"` or another of `named_objectives_mbt.OBJECTIVES`, of which `"cpc"`
            works on frames.
        redundancy_loss_weight (`float`, *optional*, defaults to 0.005):
            lambda, the weight of the off-diagonal (redundancy) term of BT and MBT.
        latent_normalization (`str`, *optional*):
            What is done to the latents in front of the objective: `"none"`, `"batch"`, `"l2"`, `"layer"`, `"group"`
            or `"whitening"`. `None` takes the objective's own.
        latent_normalization_strength (`float`, *optional*, defaults to 1.0):
            alpha in z / ||z||^alpha of the `"l2"` normalization: 0 is BT, 1 is MBT.
        objective_kwargs (`dict`, *optional*):
            Further arguments of the objective, by the names of its function.
        verification_threshold (`float`, *optional*):
            Cosine of two representations from which on their recordings count as one speaker's.

    Raises:
        ValueError: The lists of the stages differ in length, or a size or a stride is not positive; it comes as
            `StrictDataclassClassValidationError`.
    """

    model_type = "mbt"

    num_mel_bins: int = 64
    embedding_size: int | None = None
    layer_type: Literal["plain", "max_pool", "bottleneck"] = "plain"
    hidden_sizes: list[int] = field(default_factory=lambda: [32, 64, 128, 128])
    depths: list[int] = field(default_factory=lambda: [1, 1, 1, 1])
    time_strides: list[int] = field(default_factory=lambda: [2, 2, 1, 1])
    frequency_strides: list[int] = field(default_factory=lambda: [2, 2, 2, 2])
    frame_hidden_sizes: list[int] = field(default_factory=lambda: [512, 512])
    concatenate_local_features: bool = False
    pooling_mode: Literal["mean_max", "mean", "statistics"] = "mean_max"
    pooling_cosines: int = 0
    pooling_bands: int = 4
    pool_input_features: bool = False
    hidden_dropout_prob: float | int = 0.0
    encoder_density: float | int = 1.0
    projector_sizes: list[int] = field(default_factory=lambda: [1024, 1024, 1024])
    context_size: int = 256
    prediction_steps: int = 4
    objective: str = "bt"
    redundancy_loss_weight: float | int = 0.005
    latent_normalization: str | None = None
    latent_normalization_strength: float | int = 1.0
    objective_kwargs: dict[str, Any] = field(default_factory=dict)
    verification_threshold: float | int | None = None

    def __post_init__(self, **kwargs):
        """Refuses what transformers would take: any number of classes to name, and sizes that follow from others.

        Raises:
            ValueError: `num_labels` is no number of classes, or a size is given that has no value of its own.
        """
        num_labels = kwargs.get("num_labels")
        if num_labels is not None and not (isinstance(num_labels, Integral) and 1 <= int(num_labels) <= MAX_LABELS):
            raise ValueError(f"`num_labels` must be a whole number from 1 to {MAX_LABELS} and is {num_labels!r}.")
        if given := sorted({"hidden_size", "pooled_size", "projected_size", "ordered_size", "local_size"} & {*kwargs}):
            raise ValueError(f"`{given[0]}` follows from `hidden_sizes`, `frame_hidden_sizes` and pooling: set these.")
        super().__post_init__(**kwargs)

    @property
    def hidden_size(self) -> int:
        """Returns the width H of a frame of `last_hidden_state`."""
        if not self.frame_hidden_sizes:
            return self.hidden_sizes[-1]
        return self.frame_hidden_sizes[-1] + (self.local_size if self.concatenate_local_features else 0)

    @property
    def pooled_size(self) -> int:
        """Returns the width P of the pooled representation."""
        input_size = 5 * self.num_mel_bins if self.pool_input_features else 0
        return self.projected_size + self.pooling_cosines * self.ordered_size + input_size

    @property
    def projected_size(self) -> int:
        """Returns how much of the pooled representation, from its beginning, the projector reads: frame statistics.

        Two crops of an utterance say different things, so that there is nothing in the order of them to agree on.
        """
        return self.hidden_size * (3 if self.pooling_mode == "statistics" else 1)

    @property
    def ordered_size(self) -> int:
        """Returns the width of what the cosines over time are of: the local features in bands, or a whole frame."""
        return self.hidden_sizes[-1] * self.pooling_bands if self.concatenate_local_features else self.hidden_size

    @property
    def local_size(self) -> int:
        """Returns the width of the last convolution's output with channels and frequencies flattened."""
        num_frequencies = self.num_mel_bins if self.embedding_size is None else -(-self.num_mel_bins // 4)
        for stride in self.frequency_strides:
            num_frequencies = -(-num_frequencies // stride)
        return self.hidden_sizes[-1] * num_frequencies

    def validate_encoder(self):
        """Checks the encoder; part of `@strict`, runs at construction and at save."""
        stages = [self.hidden_sizes, self.depths, self.time_strides, self.frequency_strides]
        if len({len(stage) for stage in stages}) != 1 or not self.hidden_sizes:
            raise ValueError(
                "`hidden_sizes`, `depths`, `time_strides` and `frequency_strides` need one entry for each stage, "
                f"and have {[len(stage) for stage in stages]}: give lists of one length."
            )
        sizes = [*stages, self.frame_hidden_sizes, self.projector_sizes]
        sizes += [[self.num_mel_bins, self.pooling_bands, self.context_size, self.prediction_steps]]
        sizes += [[1 if self.embedding_size is None else self.embedding_size]]
        if min(min(values, default=1) for values in sizes) < 1 or not self.projector_sizes:
            raise ValueError("Every size, depth and stride must be at least 1, and the projector needs a layer.")
        if self.pooling_cosines < 0 or (self.pooling_cosines and self.pooling_mode != "statistics"):
            raise ValueError('`pooling_cosines` must be at least 0, and belongs to `pooling_mode="statistics"`.')
        if self.pool_input_features and self.pooling_mode != "statistics":
            raise ValueError('`pool_input_features` belongs to `pooling_mode="statistics"`.')
        if self.concatenate_local_features and not self.frame_hidden_sizes:
            raise ValueError(
                "`concatenate_local_features` needs linear layers to stand beside: set `frame_hidden_sizes`."
            )
        if not 0 < self.encoder_density <= 1:
            raise ValueError(f"`encoder_density` must lie in (0, 1] and is {self.encoder_density}.")
        if not 0 <= self.hidden_dropout_prob < 1:
            raise ValueError(f"`hidden_dropout_prob` must lie in [0, 1) and is {self.hidden_dropout_prob}.")

    def validate_bounds(self):
        """Checks that a config asks for finite numbers, and for memory that there is; part of `@strict`."""
        self.validate_encoder()  # what follows counts on it, and `@strict` goes by the alphabet
        for name in ("redundancy_loss_weight", "latent_normalization_strength", "verification_threshold"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise ValueError(f"`{name}` must be a finite number and is {value}.")
        if self.redundancy_loss_weight < 0:
            raise ValueError(f"`redundancy_loss_weight` must be at least 0 and is {self.redundancy_loss_weight}.")
        if sum(self.depths) > MAX_LAYERS or max(*self.time_strides, *self.frequency_strides) > MAX_LAYERS:
            raise ValueError(f"`depths` {self.depths} and strides may not go beyond {MAX_LAYERS}: use smaller ones.")
        channels = [self.embedding_size or 1, *self.hidden_sizes]
        num_weights = sum(9 * size * (before + depth * size) for (before, size), depth in
                          zip(pairwise(channels), self.depths, strict=True))  # fmt: skip
        for widths in ([self.local_size, *self.frame_hidden_sizes], [self.pooled_size, *self.projector_sizes],
                       [self.pooled_size, self.num_labels]):  # fmt: skip
            num_weights += sum(before * size for before, size in pairwise(widths))
        num_weights += self.context_size * (self.hidden_size + 3 * self.context_size) * self.prediction_steps
        if num_weights > MAX_WEIGHTS:
            raise ValueError(
                f"This network would have {num_weights:.3g} weights, beyond {MAX_WEIGHTS:.3g}: shrink it."
            )
