"""Runs of a few steps of the scripts, and what they leave."""

import json
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import ModelCard

import run_finetune
import run_pretrain
from mbt_speech.training.run_log import read_log

TINY_RUN = ["--preset", "tiny", "--per_device_train_batch_size", "8", "--logging_steps", "1", "--warmup_steps", "0"]


def pretrain(output_dir: str | Path, *words: object) -> Path:
    """Pre-trains for four steps, where the words say nothing else; returns the folder."""
    run_pretrain.main([*TINY_RUN, "--output_dir", str(output_dir), "--max_steps", "4", *map(str, words)])
    return Path(output_dir)


def finetune(output_dir: str | Path, model: object, *words: object) -> Path:
    """Fine-tunes one or several models; returns the folder."""
    run_finetune.main(
        ["--model_name_or_path", *map(str, np.atleast_1d(model)), "--output_dir", str(output_dir), "--logging_steps",
         "1", "--per_device_train_batch_size", "8", "--preset", "tiny", *map(str, words)]
    )  # fmt: skip
    return Path(output_dir)


def losses(output_dir: Path) -> list[float]:
    """Returns the logged losses, one a step."""
    return [line["loss"] for line in read_log(output_dir)]


def results(output_dir: Path) -> list[dict]:
    """Returns the lines of a fine-tuning's results."""
    return [json.loads(line) for line in (output_dir / "results.jsonl").read_text().splitlines()]


def run_snippet(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[ModelCard, dict]:
    """Runs the code of a card as it is printed, where the run's folder has the name that the card gives it."""
    card = ModelCard.load(folder / "README.md", ignore_metadata_errors=False)
    monkeypatch.chdir(folder.parent)
    names: dict = {}
    exec(card.content.split("```python\n")[1].split("```")[0], names)
    return card, names
