"""Arguments of the two scripts."""

from dataclasses import dataclass, field

from .run_arguments import RunArguments

# Named here, so that --help need not import what they name.
PRESET_NAMES = ("faithful", "faithful_small", "strong", "tiny")
# Arguments of pre-training whose defaults are a preset's: the batch of arXiv 2309.03619.
PRESET_DEFAULTS = {name: {"per_device_train_batch_size": 64} for name in ("faithful", "faithful_small")}
SPARSITY_METHODS = ("static", "magnitude", "rigl", "set")
# Methods without a pre-trained encoder: as initialized and frozen, trained from scratch, statistics of log-mels.
RANDOM, SUPERVISED, STATS = CONTROLS = ("random", "supervised", "stats")
FROZEN_CONTROLS = (RANDOM, STATS)
SYNTHETIC = "synthetic"
"""The data set name of the built-in corpus."""
OBJECTIVE_NAMES = ("bt", "mbt", "vicreg", "infonce", "tcr", "hsic", "wmse", "mmcr", "sigreg", "cpc")


@dataclass(kw_only=True)
class StreamArguments:
    """Data sets read as they come, and mixtures of several."""

    streaming: bool = field(
        default=False,
        metadata={"help": "Read --dataset_name during training without downloading it first; needs --max_steps."},
    )
    shuffle_buffer_size: int = field(
        default=1000, metadata={"help": "With --streaming, the number of recordings from which the next one is drawn."}
    )
    interleave_datasets: list[str] = field(
        default_factory=list,
        metadata={"help": "Further data sets (names or folders) to mix with the first one.", "nargs": "+"},
    )
    interleave_probabilities: list[float] = field(
        default_factory=list,
        metadata={
            "help": "Share of recordings from each data set, the first one included; they add up to 1.",
            "nargs": "+",
        },
    )


@dataclass(kw_only=True)
class ProbeArguments:
    """Probes of the representations while they are learned."""

    eval_steps: int = field(default=0, metadata={"help": "Steps between two probes of the representations; 0: none."})
    probe_dataset_name: str | None = field(
        default=None, metadata={"help": "Labeled data set for the probes; its test split is not used."}
    )
    probe_dataset_config_name: str | None = field(default=None, metadata={"help": "Configuration of that data set."})
    probe_train_dir: str | None = field(
        default=None, metadata={"help": "A folder of labeled recordings for the probes, instead of a data set."}
    )
    probe_label_column_name: str = field(default="label", metadata={"help": "The column that the probes predict."})
    probe_split_column_name: str | None = field(
        default=None, metadata={"help": "The column that says train, validation or test; by default `split`."}
    )


@dataclass(kw_only=True)
class SparsityArguments:
    """Encoders of few weights."""

    sparsity_method: str | None = field(
        default=None,
        metadata={"help": "Train a sparse encoder: a fixed random mask (static), pruning (magnitude), or a mask that "
                  "changes (rigl, set).",
                  "choices": SPARSITY_METHODS},
    )  # fmt: skip
    density: float = field(
        default=1.0, metadata={"help": "With --sparsity_method, the share of the encoder's weights that remain."}
    )


@dataclass(kw_only=True)
class PretrainArguments(SparsityArguments, ProbeArguments, StreamArguments, RunArguments):
    """Pre-train an encoder on unlabeled recordings."""

    preset: str = field(
        default="strong", metadata={"help": "Model, features, crops and distortions.", "choices": PRESET_NAMES}
    )
    objective: str = field(
        default="bt",
        metadata={"help": "Objective that compares the views (docs/objectives.md).", "choices": OBJECTIVE_NAMES},
    )
    redundancy_loss_weight: float | None = field(
        default=None,
        metadata={"help": "Lambda, the weight of the redundancy term of bt and mbt; by default the preset's."},
    )
    views: str | None = field(
        default=None,
        metadata={"help": "Distort one crop twice, or two crops of a recording; by default the preset's.",
                  "choices": ["same_crop", "two_crops"]},
    )  # fmt: skip
    crop_seconds: float | None = field(
        default=None, metadata={"help": "Length of a crop in seconds; by default the preset's."}
    )
    config_overrides: str | None = field(
        default=None, metadata={"help": "JSON object of MBTConfig arguments that replace the preset's."}
    )
    feature_overrides: str | None = field(
        default=None, metadata={"help": "JSON object of MBTFeatureExtractor arguments that replace the preset's."}
    )
    augmentation: str | None = field(
        default=None,
        metadata={"help": "JSON object of MBTAugmentation arguments that replaces the preset's distortions."},
    )
    seed: int = field(default=0, metadata={"help": "Seed of weights, data order and distortions."})

    def __post_init__(self):
        super().__post_init__()
        if self.streaming and (self.max_steps < 1 or self.dataset_name in (None, SYNTHETIC)):
            raise ValueError(
                "A stream has no known end and comes from a data set: --streaming needs --max_steps and "
                "--dataset_name (a name on the Hub, or a local folder of parquet or tar files)."
            )
        if len(self.interleave_probabilities) not in (0, 1 + len(self.interleave_datasets)):
            raise ValueError(
                f"Give --interleave_probabilities one number for each of {1 + len(self.interleave_datasets)} data "
                f"sets, not {len(self.interleave_probabilities)}, or leave them out."
            )
        if self.interleave_probabilities and abs(sum(self.interleave_probabilities) - 1) > 1e-6:
            raise ValueError(f"--interleave_probabilities add up to {sum(self.interleave_probabilities):g}, not to 1.")
        if self.per_device_train_batch_size < 2:
            raise ValueError("--per_device_train_batch_size must be at least 2: one pair has nothing to compare with.")
        if self.probe_dataset_name is not None and self.probe_train_dir is not None:
            raise ValueError("Give --probe_train_dir or --probe_dataset_name, not both.")
        has_probe = self.probe_dataset_name is not None or self.probe_train_dir is not None
        if has_probe != (self.eval_steps > 0):
            raise ValueError(
                "Probes need both --eval_steps and labeled recordings: --probe_train_dir or --probe_dataset_name."
            )
        if self.density != 1 and self.sparsity_method is None:
            raise ValueError(f"--density {self.density} needs a --sparsity_method: {', '.join(SPARSITY_METHODS)}.")
        if self.sparsity_method is not None and not 0 < self.density < 1:
            raise ValueError(
                f"--sparsity_method {self.sparsity_method} needs the --density that is left, between 0 and 1, not "
                f"{self.density:g}."
            )


@dataclass(kw_only=True)
class FinetuneArguments(RunArguments):
    """Train a classifier on labeled recordings, and measure it."""

    model_name_or_path: list[str] = field(
        default_factory=list,
        metadata={"help": "Pre-trained models (folders or names on the Hub: MBT, wav2vec 2.0, HuBERT, WavLM and "
                  "similar, AST, Whisper), and the controls `random` (an encoder with random weights), "
                  "`supervised` (trained from scratch) and `stats` (log-mel statistics).",
                  "nargs": "+"},
    )  # fmt: skip
    label_column_name: str = field(
        default="label",
        metadata={"help": "The column to predict: a label for each recording, or segments with start, end and label, "
                  "whose frames are then classified."},
    )  # fmt: skip
    label_map: str | None = field(
        default=None,
        metadata={"help": "JSON object, or a file with one, from labels to new names; null leaves a class out, and "
                  "\"*\" stands for all other labels."},
    )  # fmt: skip
    segment_unit: str = field(
        default="seconds",
        metadata={"help": "Unit of the start and end of segments.", "choices": ["seconds", "samples"]},
    )
    max_train_frames: int = field(
        default=100_000,
        metadata={
            "help": "With segments: at most about so many frames of the training and of the validation split, "
            "chosen at random within each class."
        },
    )
    split_column_name: str | None = field(
        default=None, metadata={"help": "The column that says train, validation or test; by default `split`."}
    )
    label_fraction: list[float] = field(
        default_factory=lambda: [1.0],
        metadata={
            "help": "Shares of the labels to use, of the training and the validation split; 1 is all.",
            "nargs": "+",
        },
    )
    seed: list[int] = field(
        default_factory=lambda: [0], metadata={"help": "Seeds of the choice of labels, new weights and data order."}
    )
    freeze_encoder: bool = field(
        default=False,
        metadata={"help": "Only fit a linear classifier on the frozen encoder, its kind chosen on validation, instead "
                  "of also training the whole network. Options of training, such as steps, then have no effect."},
    )  # fmt: skip
    max_length_seconds: float = field(default=20.0, metadata={"help": "Longer clips are cut to this length."})
    preset: str = field(
        default="strong",
        metadata={"help": "Architecture of the controls, if --model_name_or_path names no MBT model.",
                  "choices": PRESET_NAMES},
    )  # fmt: skip
    augmentation: str | None = field(
        default=None,
        metadata={"help": "JSON object of MBTAugmentation arguments; by default there are no distortions, and for "
                  "`supervised` an equalizer, a fader and masks. Only for MBT models: others are masked as their own "
                  "config says."},
    )  # fmt: skip
    eval_steps: int = field(default=0, metadata={"help": "Steps between two measurements on validation; 0 is none."})
    num_train_epochs: float = field(
        default=0.0,
        metadata={"help": "Passes over the data; with 0, the number of labels decides."},
    )
    encoder_learning_rate: float | None = field(
        default=None,
        metadata={"help": "Learning rate of the encoder; --learning_rate is that of the classifier. By default 3e-4 "
                  "for MBT and 3e-5 for other models."},
    )  # fmt: skip
    supervised_learning_rates: list[float] = field(
        default_factory=lambda: [1e-3, 3e-3],
        metadata={"help": "Learning rates to try for `supervised`; validation chooses one.", "nargs": "+"},
    )
    per_device_train_batch_size: int = field(default=32, metadata={"help": "Clips per process and step."})

    def __post_init__(self):
        super().__post_init__()
        if not self.model_name_or_path:
            raise ValueError("Say what to fine-tune: --model_name_or_path FOLDER, a name on the Hub, or a control.")
        if not all(0 < fraction <= 1 for fraction in self.label_fraction):
            raise ValueError("--label_fraction takes shares of the training labels, above 0 and up to 1: 1 is all.")
        if self.freeze_encoder and SUPERVISED in self.model_name_or_path:
            raise ValueError("`supervised` trains its encoder: leave out --freeze_encoder, or name `random` instead.")
        if not self.freeze_encoder and STATS in self.model_name_or_path:
            raise ValueError("`stats` has no encoder to train: add --freeze_encoder, or leave it out.")
