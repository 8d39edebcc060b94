"""Arguments of the two scripts."""

import math
from dataclasses import dataclass, field, fields

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
# The least value of each number that may not be any.
LEAST = {
    "per_device_train_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "logging_steps": 1,
    "save_total_limit": 1,
    "shuffle_buffer_size": 1,
    "max_train_frames": 1,
    "save_steps": 0,
    "eval_steps": 0,
    "warmup_steps": 0,
    "dataloader_num_workers": 0,
    "learning_rate": 0,
    "layerwise_lr_decay": 0,
    "weight_decay": 0,
    "max_grad_norm": 0,
    "num_train_epochs": 0,
    "redundancy_loss_weight": 0,
    "interleave_probabilities": 0,
    "label_fraction": 0,
    "crop_seconds": 0.05,
    "max_length_seconds": 0.05,
    "seed": 0,
}


@dataclass(kw_only=True)
class DataArguments:
    """Where recordings come from."""

    dataset_name: str | None = field(
        default=None,
        metadata={"help": "A data set on the Hub, a local folder of parquet files or of `save_to_disk`, or "
                  "`synthetic`, the built-in corpus."},
    )  # fmt: skip
    dataset_config_name: str | None = field(
        default=None, metadata={"help": "Its configuration; for `synthetic` the size: tiny, small or base."}
    )
    dataset_revision: str | None = field(default=None, metadata={"help": "Its revision on the Hub."})
    train_dir: str | None = field(
        default=None, metadata={"help": "A folder of recordings (wav, flac, mp3, ogg), nested at will."}
    )
    train_split_name: str | None = field(
        default=None, metadata={"help": "The split to learn from, where the data set has several."}
    )
    audio_column_name: str | None = field(
        default=None, metadata={"help": "The column that holds the audio; found by itself where there is only one."}
    )
    allow_outside_paths: bool = field(
        default=False,
        metadata={"help": "Let metadata files name recordings outside of their own folder; only if you trust them."},
    )
    on_bad_audio: str = field(
        default="raise",
        metadata={"help": "What to do with a file that cannot be read: stop, or skip it and list it in bad_audio.txt.",
                  "choices": ["raise", "skip"]},
    )  # fmt: skip
    dataloader_num_workers: int = field(default=0, metadata={"help": "Processes that read audio; 0: threads do."})


@dataclass(kw_only=True)
class OptimizationArguments:
    """How weights are learned."""

    max_steps: int = field(default=-1, metadata={"help": "Optimizer steps; overrides num_train_epochs if positive."})
    num_train_epochs: float = field(default=50.0, metadata={"help": "Passes over the data."})
    per_device_train_batch_size: int = field(
        default=128,
        metadata={"help": "Clips that a process runs through the network at a time; of faithful presets 64."},
    )
    gradient_accumulation_steps: int = field(
        default=1, metadata={"help": "So many of these batches make the batch of one step; exact for every objective."}
    )
    sync_batch_norm: bool = field(
        default=True,
        metadata={"help": "Batch norm over the clips of all processes instead of each process's; on several GPUs."},
    )
    optim: str = field(
        default="adamw_torch",
        metadata={"help": "Optimizer; LARS is for batches of thousands and wants rates of 0.2 and more.",
                  "choices": ["adamw_torch", "lars"]},
    )  # fmt: skip
    learning_rate: float = field(default=1e-3, metadata={"help": "Peak learning rate."})
    layerwise_lr_decay: float = field(
        default=1.0, metadata={"help": "Learning rate of a layer, relative to that of the layer above; 1 is the same."}
    )
    weight_decay: float = field(default=0.01, metadata={"help": "Weight decay; none on biases and norms."})
    warmup_steps: int = field(
        default=100, metadata={"help": "Steps of linear warm-up before the cosine decay; at most a tenth of the run."}
    )
    max_grad_norm: float = field(default=1.0, metadata={"help": "Gradient clipping; 0 is none."})
    mixed_precision: str | None = field(
        default=None,
        metadata={"help": "Precision of the network; by default what `accelerate launch` was told. The objective is "
                  "always computed in float32.", "choices": ["no", "fp16", "bf16"]},
    )  # fmt: skip
    torch_compile: bool = field(default=False, metadata={"help": "Compile the network with torch.compile."})


@dataclass(kw_only=True)
class CheckpointArguments:
    """What a run writes on its way, and where it continues."""

    output_dir: str = field(
        metadata={"help": "Folder for the model (config.json, model.safetensors, preprocessor_config.json)."}
    )
    overwrite_output_dir: bool = field(
        default=False, metadata={"help": "Put the model in the place of another one, and start anew over checkpoints."}
    )
    logging_steps: int = field(default=10, metadata={"help": "Steps between two lines of train_log.jsonl."})
    report_to: str = field(
        default="none",
        metadata={"help": "Tracker, a package to install; all is every one that is installed.",
                  "choices": ["none", "tensorboard", "trackio", "wandb", "all"]},
    )  # fmt: skip
    save_steps: int = field(default=500, metadata={"help": "Steps between two checkpoints; 0 saves none on the way."})
    save_total_limit: int = field(default=2, metadata={"help": "Checkpoints that are kept."})
    resume_from_checkpoint: str | None = field(
        default=None, metadata={"help": "A checkpoint folder, or `auto`: the newest below output_dir, if any."}
    )


@dataclass(kw_only=True)
class HubArguments:
    """Uploads."""

    push_to_hub: bool = field(default=False, metadata={"help": "Upload the model to the Hub."})
    hub_model_id: str | None = field(default=None, metadata={"help": "Repository, by default output_dir's name."})
    hub_private_repo: bool = field(default=False, metadata={"help": "Create the repository as private."})
    hub_license: str | None = field(
        default=None, metadata={"help": "License of the weights for the model card, such as apache-2.0."}
    )
    hub_strategy: str = field(
        default="end",
        metadata={"help": "Upload output_dir at the end, or before that also the model of every checkpoint.",
                  "choices": ["end", "every_save"]},
    )  # fmt: skip
    hub_token: str | None = field(
        default=None,
        repr=False,
        metadata={"help": "Token for the Hub, also for private data sets and models; by default that of "
                  "`hf auth login` or HF_TOKEN. It is written nowhere."},
    )  # fmt: skip


@dataclass(kw_only=True)
class StreamArguments:
    """Data sets read as they come, and mixtures of several."""

    streaming: bool = field(
        default=False,
        metadata={"help": "Read the data set as it comes instead of downloading it; needs --max_steps."},
    )
    shuffle_buffer_size: int = field(
        default=1000, metadata={"help": "Recordings of a stream from which the next one is drawn."}
    )
    interleave_datasets: list[str] = field(
        default_factory=list, metadata={"help": "Further data sets (names, or folders) to mix in.", "nargs": "+"}
    )
    interleave_probabilities: list[float] = field(
        default_factory=list,
        metadata={"help": "How often a recording comes from the first data set, the second, ...", "nargs": "+"},
    )


@dataclass(kw_only=True)
class ProbeArguments:
    """Probes of the representations while they are learned."""

    eval_steps: int = field(default=0, metadata={"help": "Steps between two probes of the representations."})
    probe_dataset_name: str | None = field(
        default=None, metadata={"help": "Labeled data set for the probes; its test split is not touched."}
    )
    probe_dataset_config_name: str | None = field(default=None, metadata={"help": "Its configuration."})
    probe_train_dir: str | None = field(default=None, metadata={"help": "A folder of labeled recordings instead."})
    probe_label_column_name: str = field(default="label", metadata={"help": "The column that the probes predict."})
    probe_split_column_name: str | None = field(
        default=None, metadata={"help": "The column that says train, validation or test; by default `split`."}
    )


@dataclass(kw_only=True)
class SparsityArguments:
    """Encoders of few weights."""

    sparsity_method: str | None = field(
        default=None,
        metadata={"help": "Train a sparse encoder: random mask, pruning, or a mask that moves.",
                  "choices": SPARSITY_METHODS},
    )  # fmt: skip
    density: float = field(
        default=1.0, metadata={"help": "Share of the encoder's weights that a sparse one has in the end."}
    )


@dataclass(kw_only=True)
class RunArguments(HubArguments, CheckpointArguments, OptimizationArguments, DataArguments):
    """What pre-training and fine-tuning have in common; names and meanings are those of `transformers`' trainers."""

    def __post_init__(self):
        for one in fields(self):
            given = getattr(self, one.name)
            for value in given if isinstance(given, list) else [given]:
                if isinstance(value, float) and not math.isfinite(value):
                    raise ValueError(f"--{one.name} must be a number and is {value}.")
                if isinstance(value, int | float) and value < LEAST.get(one.name, -math.inf):
                    raise ValueError(f"--{one.name} must be at least {LEAST[one.name]} and is {value}.")
        if self.max_steps < 1 and self.max_steps != -1:
            raise ValueError(
                f"--max_steps must be at least 1, or be left out to count epochs, and is {self.max_steps}."
            )
        if self.hub_token is not None:
            self.hub_token = self.hub_token.strip() or None
        if len((self.hub_token or "").split()) > 1:
            raise ValueError("--hub_token holds a space or a line break: copy it anew.")
        if (self.dataset_name is None) == (self.train_dir is None):
            raise ValueError("Say where the audio is: either --train_dir FOLDER or --dataset_name NAME.")


@dataclass(kw_only=True)
class PretrainArguments(SparsityArguments, ProbeArguments, StreamArguments, RunArguments):
    """Arguments of pre-training."""

    preset: str = field(
        default="strong", metadata={"help": "Model, features and distortions.", "choices": PRESET_NAMES}
    )
    objective: str = field(default="bt", metadata={"help": "Objective.", "choices": OBJECTIVE_NAMES})
    redundancy_loss_weight: float | None = field(
        default=None, metadata={"help": "lambda of bt and mbt; by default the preset's."}
    )
    views: str | None = field(
        default=None,
        metadata={"help": "Two distortions of one crop, or of two crops of an utterance; by default the preset's.",
                  "choices": ["same_crop", "two_crops"]},
    )  # fmt: skip
    crop_seconds: float | None = field(default=None, metadata={"help": "Length of a crop; by default the preset's."})
    config_overrides: str | None = field(
        default=None, metadata={"help": "JSON object of further MBTConfig arguments."}
    )
    feature_overrides: str | None = field(
        default=None, metadata={"help": "JSON object of further MBTFeatureExtractor arguments."}
    )
    augmentation: str | None = field(
        default=None,
        metadata={"help": "JSON object of MBTAugmentation's arguments instead of the preset's distortions."},
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
    """Arguments of fine-tuning."""

    model_name_or_path: list[str] = field(
        default_factory=list,
        metadata={"help": "Pre-trained models (folders or Hub names; MBT, wav2vec 2.0, HuBERT, WavLM and alike, AST, "
                  "Whisper), and the controls `random` (an encoder as it is initialized), "
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
        metadata={"help": "JSON object, or a file that holds one, of labels and their new names; null leaves out what "
                  "bears a label, and \"*\" names all others."},
    )  # fmt: skip
    segment_unit: str = field(
        default="seconds",
        metadata={"help": "What the times of segments count.", "choices": ["seconds", "samples"]},
    )
    max_train_frames: int = field(
        default=100_000,
        metadata={"help": "Frames that a linear head learns from, about so many at most; a stratified choice."},
    )
    split_column_name: str | None = field(
        default=None, metadata={"help": "The column that says train, validation or test; by default `split`."}
    )
    label_fraction: list[float] = field(
        default_factory=lambda: [1.0],
        metadata={"help": "Shares of the labels, those of training and of validation clips.", "nargs": "+"},
    )
    seed: list[int] = field(
        default_factory=lambda: [0], metadata={"help": "Seeds of label choice, new weights and data order."}
    )
    freeze_encoder: bool = field(
        default=False,
        metadata={"help": "Fit a linear classifier on the frozen encoder, its kind chosen on validation, and "
                  "leave it at that instead of training the whole network from there; steps, learning rates and the "
                  "like then play no part."},
    )  # fmt: skip
    max_length_seconds: float = field(default=20.0, metadata={"help": "Longer clips are cut to this."})
    preset: str = field(
        default="strong",
        metadata={"help": "Architecture of the controls, where no pre-trained model gives it.",
                  "choices": PRESET_NAMES},
    )  # fmt: skip
    augmentation: str | None = field(
        default=None,
        metadata={"help": "JSON object of MBTAugmentation's arguments; by default masks over time and frequency. Only "
                  "for MBT models: others are masked as their own config says."},
    )  # fmt: skip
    eval_steps: int = field(default=0, metadata={"help": "Steps between two measurements on validation; 0 is none."})
    num_train_epochs: float = field(
        default=0.0,
        metadata={"help": "Passes over the data; 0 is as many as the number of labels asks for."},
    )
    encoder_learning_rate: float | None = field(
        default=None,
        metadata={"help": "Learning rate of the encoder, --learning_rate being that of the classifier; by default "
                  "3e-4 for MBT and 3e-5 for other models."},
    )  # fmt: skip
    supervised_learning_rates: list[float] = field(
        default_factory=lambda: [1e-3, 3e-3],
        metadata={"help": "Learning rates of `supervised`, of which validation chooses one.", "nargs": "+"},
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
