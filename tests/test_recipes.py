"""Recipes, configurations of accelerate, and the command line that reads them."""

import json
from dataclasses import MISSING, fields
from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file

import run_pretrain
from mbt_speech.arguments import PRESET_NAMES, FinetuneArguments, PretrainArguments
from mbt_speech.command_line import parse_arguments
from mbt_speech.presets import PRESETS

ACCELERATE_CONFIGS = sorted((Path(run_pretrain.__file__).parent / "recipes" / "accelerate").glob("*.yaml"))
RECIPES = sorted((Path(run_pretrain.__file__).parent / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_names_arguments_that_differ_from_the_defaults(recipe):
    values = yaml.safe_load(recipe.read_text())
    pretraining = "label_fraction" not in values
    arguments_class = PretrainArguments if pretraining else FinetuneArguments
    words = [str(recipe), *(() if "output_dir" in values else ("--output_dir", "x"))]
    words += () if {"train_dir", "dataset_name"} & set(values) else ("--train_dir", "x")
    args = parse_arguments(arguments_class, words if pretraining else [*words, "--model_name_or_path", "m"])
    defaults = {
        f.name: f.default if f.default_factory is MISSING else f.default_factory() for f in fields(arguments_class)
    }
    for name, value in values.items():
        assert getattr(args, name) == (json.dumps(value) if isinstance(value, dict) else value)
        assert value != defaults[name], f"{recipe.name}: {name} is the default"


@pytest.mark.parametrize("path", ACCELERATE_CONFIGS, ids=lambda path: path.stem)
def test_accelerate_reads_every_configuration_without_a_warning(path):
    config = load_config_from_file(str(path))
    assert config.num_processes >= config.num_machines >= 1
    assert config.use_cpu == path.stem.startswith("cpu")


def test_what_help_names_is_what_there_is():
    assert sorted(PRESET_NAMES) == sorted(PRESETS)
