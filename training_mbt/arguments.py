"""Arguments of the two scripts: a YAML recipe first, then the command line that overrides it."""

import json
import sys
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

import yaml
from transformers import HfArgumentParser


@dataclass
class RunArguments:
    """What pre-training and fine-tuning have in common; names and meanings are those of `transformers`' trainers."""

    output_dir: str = field(
        metadata={"help": "Folder for the model (config.json, model.safetensors, preprocessor_config.json)."}
    )
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
    on_bad_audio: str = field(
        default="raise",
        metadata={"help": "What to do with a file that cannot be read: stop, or skip it and list it in bad_audio.txt.",
                  "choices": ["raise", "skip"]},
    )  # fmt: skip
    max_steps: int = field(default=-1, metadata={"help": "Optimizer steps; overrides num_train_epochs if positive."})
    num_train_epochs: float = field(default=50.0, metadata={"help": "Passes over the data."})
    per_device_train_batch_size: int = field(
        default=128, metadata={"help": "Clips that a process runs through the network at a time."}
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
    dataloader_num_workers: int = field(default=0, metadata={"help": "Processes that read audio."})
    mixed_precision: str = field(
        default="no", metadata={"help": "Precision of the network.", "choices": ["no", "fp16", "bf16"]}
    )
    logging_steps: int = field(default=10, metadata={"help": "Steps between two lines of train_log.jsonl."})
    report_to: str = field(
        default="none", metadata={"help": "Tracker.", "choices": ["none", "tensorboard", "wandb", "all"]}
    )
    save_steps: int = field(default=500, metadata={"help": "Steps between two checkpoints; 0 saves none on the way."})
    save_total_limit: int = field(default=2, metadata={"help": "Checkpoints that are kept."})
    resume_from_checkpoint: str | None = field(
        default=None, metadata={"help": "A checkpoint folder, or `auto`: the newest below output_dir, if any."}
    )
    push_to_hub: bool = field(default=False, metadata={"help": "Upload output_dir to the Hub at the end."})
    hub_model_id: str | None = field(default=None, metadata={"help": "Repository, by default output_dir's name."})
    hub_private_repo: bool = field(default=False, metadata={"help": "Create the repository as private."})

    def __post_init__(self):
        for name in (
            "per_device_train_batch_size",
            "gradient_accumulation_steps",
            "logging_steps",
            "save_total_limit",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name} must be at least 1 and is {getattr(self, name)}.")
        if (self.dataset_name is None) == (self.train_dir is None):
            raise ValueError("Say where the audio is: either --train_dir FOLDER or --dataset_name NAME.")


Arguments = TypeVar("Arguments", bound=RunArguments)


def parse_arguments(arguments_class: type[Arguments], argv: list[str] | None = None) -> Arguments:
    """Parse `[recipe.yaml] [--name value ...]`.

    Args:
        arguments_class: The script's dataclass.
        argv: The words of the command line; by default the process's.

    Raises:
        ValueError: The recipe is no mapping, or names an argument that does not exist.
    """
    parser = HfArgumentParser([arguments_class])  # pyright: ignore[reportArgumentType] - bound by RunArguments
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0].endswith((".yaml", ".yml")):
        recipe = read_recipe(words.pop(0), {f.name for f in fields(arguments_class)})
        for action in parser._actions:
            if action.dest in recipe:
                action.required = False
        parser.set_defaults(**recipe)
    try:
        return parser.parse_args_into_dataclasses(words)[0]
    except ValueError as error:
        parser.error(str(error))


def read_recipe(path: str, known: set[str]) -> dict[str, Any]:
    """Read a YAML recipe: a flat mapping from argument names to values."""
    recipe = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    if not isinstance(recipe, dict):
        raise ValueError(f"The recipe {path} must be a mapping from argument names to values.")
    if unknown := sorted(set(recipe) - known):
        raise ValueError(f"The recipe {path} has unknown arguments: {', '.join(unknown)}.")
    # Nested values travel as JSON, the form that they have on the command line.
    return {name: json.dumps(value) if isinstance(value, dict) else value for name, value in recipe.items()}


def parse_overrides(name: str, text: str | None) -> dict[str, Any]:
    """Read an argument whose value is a JSON object."""
    try:
        value = json.loads(text or "{}")
    except json.JSONDecodeError as error:
        raise ValueError(f"--{name} must be a JSON object, such as '{{\"name\": 1}}': {error}.") from None
    if not isinstance(value, dict):
        raise ValueError(f"--{name} must be a JSON object, such as '{{\"name\": 1}}', and is {text!r}.")
    return value
