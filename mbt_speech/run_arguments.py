"""What both scripts take: where recordings come from, how weights are learned, what is written and uploaded."""

import math
import os
from dataclasses import asdict, dataclass, field, fields
from typing import Any

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
    "encoder_learning_rate": 0,
    "supervised_learning_rates": 0,
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

FOLDERS = {"output_dir", "train_dir", "probe_train_dir", "dataset_name", "resume_from_checkpoint"}

# What changes neither what is learned nor how.
NEUTRAL = {
    "output_dir", "resume_from_checkpoint", "overwrite_output_dir", "allow_outside_paths", "dataloader_num_workers",
    "logging_steps", "eval_steps", "save_steps", "save_total_limit", "report_to",
}  # fmt: skip


@dataclass(kw_only=True)
class DataArguments:
    """Where recordings come from."""

    dataset_name: str | None = field(
        default=None,
        metadata={"help": "A data set on the Hub, a local folder of parquet files or written by `save_to_disk`, "
                  "or `synthetic`, the built-in corpus."},
    )  # fmt: skip
    dataset_config_name: str | None = field(
        default=None, metadata={"help": "Configuration of the data set; size of `synthetic`: tiny, small or base."}
    )
    dataset_revision: str | None = field(
        default=None, metadata={"help": "Branch, tag or commit of the data set on the Hub."}
    )
    train_dir: str | None = field(
        default=None, metadata={"help": "A folder of recordings (wav, flac, mp3, ogg, ...), sub-folders included."}
    )
    train_split_name: str | None = field(
        default=None, metadata={"help": "The split to train on, if the data set has several."}
    )
    audio_column_name: str | None = field(
        default=None, metadata={"help": "The column with the audio; found automatically if there is only one."}
    )
    allow_outside_paths: bool = field(
        default=False,
        metadata={"help": "Let metadata files name recordings outside their own folder; only if you trust them."},
    )
    on_bad_audio: str = field(
        default="raise",
        metadata={"help": "What to do with a file that cannot be read: stop, or skip it and list it in bad_audio.txt.",
                  "choices": ["raise", "skip"]},
    )  # fmt: skip
    dataloader_num_workers: int = field(default=0, metadata={"help": "Processes that read audio; with 0, threads do."})


@dataclass(kw_only=True)
class OptimizationArguments:
    """How weights are learned."""

    max_steps: int = field(default=-1, metadata={"help": "Optimizer steps; overrides --num_train_epochs if positive."})
    num_train_epochs: float = field(default=50.0, metadata={"help": "Passes over the data."})
    per_device_train_batch_size: int = field(
        default=128,
        metadata={"help": "Clips in one forward pass of each process; 64 for the faithful presets."},
    )
    gradient_accumulation_steps: int = field(
        default=1, metadata={"help": "Forward passes that make the batch of one step; exact for every objective."}
    )
    sync_batch_norm: bool = field(
        default=True,
        metadata={"help": "On several GPUs, compute batch norm over the clips of all processes."},
    )
    optim: str = field(
        default="adamw_torch",
        metadata={"help": "Optimizer; LARS is for batches of thousands, with learning rates of 0.2 and more.",
                  "choices": ["adamw_torch", "lars"]},
    )  # fmt: skip
    learning_rate: float = field(default=1e-3, metadata={"help": "Peak learning rate."})
    layerwise_lr_decay: float = field(
        default=1.0,
        metadata={"help": "Learning rate of each layer, relative to the layer above; 1: the same for all."},
    )
    weight_decay: float = field(default=0.01, metadata={"help": "Weight decay, not applied to biases and norms."})
    warmup_steps: int = field(
        default=100, metadata={"help": "Steps of linear warm-up before the cosine decay; at most a tenth of the run."}
    )
    max_grad_norm: float = field(
        default=1.0, metadata={"help": "Largest gradient norm; larger gradients are clipped. 0 turns clipping off."}
    )
    mixed_precision: str | None = field(
        default=None,
        metadata={"help": "Precision of the network; by default that of `accelerate launch`. The objective is "
                  "always computed in float32.", "choices": ["no", "fp16", "bf16"]},
    )  # fmt: skip
    torch_compile: bool = field(default=False, metadata={"help": "Compile the network with torch.compile."})


@dataclass(kw_only=True)
class CheckpointArguments:
    """What a run writes on its way, and where it continues."""

    output_dir: str = field(metadata={"help": "Folder for the model, its card, logs and checkpoints."})
    overwrite_output_dir: bool = field(
        default=False,
        metadata={"help": "Overwrite a model in output_dir, delete its checkpoints and results, and begin anew."},
    )
    logging_steps: int = field(default=10, metadata={"help": "Steps between two lines of train_log.jsonl."})
    report_to: str = field(
        default="none",
        metadata={"help": "Tracker, a package to install; `all` is every tracker that is installed.",
                  "choices": ["none", "tensorboard", "trackio", "wandb", "all"]},
    )  # fmt: skip
    save_steps: int = field(
        default=500, metadata={"help": "Steps between two checkpoints; 0 saves none during training."}
    )
    save_total_limit: int = field(
        default=2, metadata={"help": "Number of checkpoints to keep; older ones are deleted."}
    )
    resume_from_checkpoint: str | None = field(
        default=None, metadata={"help": "A checkpoint folder, or `auto`: the newest in output_dir, if there is one."}
    )


@dataclass(kw_only=True)
class HubArguments:
    """Uploads."""

    push_to_hub: bool = field(default=False, metadata={"help": "Upload output_dir to the Hub, without checkpoints."})
    hub_model_id: str | None = field(
        default=None, metadata={"help": "Repository on the Hub; by default the name of output_dir."}
    )
    hub_private_repo: bool = field(default=False, metadata={"help": "Create the repository as private."})
    hub_license: str | None = field(
        default=None, metadata={"help": "License of the weights, for the model card, such as apache-2.0."}
    )
    hub_strategy: str = field(
        default="end",
        metadata={"help": "Upload at the end, or also the model of every checkpoint.",
                  "choices": ["end", "every_save"]},
    )  # fmt: skip
    hub_token: str | None = field(
        default=None,
        repr=False,
        metadata={"help": "Token for the Hub, also for private data sets and models; by default that of "
                  "`hf auth login` or HF_TOKEN. It is never written to a file."},
    )  # fmt: skip


@dataclass(kw_only=True)
class RunArguments(HubArguments, CheckpointArguments, OptimizationArguments, DataArguments):
    """What pre-training and fine-tuning have in common; names and meanings are those of `transformers`' trainers."""

    def __post_init__(self):
        for one in fields(self):
            if one.name in FOLDERS and getattr(self, one.name) is not None:  # of a recipe, where no shell does it
                setattr(self, one.name, os.path.expanduser(getattr(self, one.name)))
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


def decisive(args: RunArguments) -> dict[str, Any]:
    """Returns the arguments that decide what is learned: name -> value."""
    return {name: value for name, value in asdict(args).items() if name not in NEUTRAL and "hub" not in name}
