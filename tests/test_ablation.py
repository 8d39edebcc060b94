"""An ablation from its recipe to its table and picture."""

from pathlib import Path

import pandas as pd
import pytest
import yaml
from PIL import Image

import run_finetune
import run_pretrain
from training_mbt import ablation
from training_mbt.arguments import parse_arguments

RECIPES = sorted((Path(ablation.__file__).parent.parent / "recipes" / "ablations").glob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_cell_of_every_recipe_is_a_command_that_the_scripts_take(path):
    recipe = ablation.read_ablation(path)
    for cell in recipe.cells():
        args = parse_arguments(
            run_pretrain.PretrainArguments, [*ablation.as_words(recipe.arguments(cell)), "--output_dir", "x"]
        )
        run_pretrain.build(args)
    words = ["--model_name_or_path", "x", "--freeze_encoder", "--output_dir", "x"]
    parse_arguments(run_finetune.FinetuneArguments, [*words, *ablation.as_words(recipe.finetune)])


def test_a_dotted_argument_is_an_entry_of_a_json_object():
    shared = {"config_overrides": {"a": 1}, "max_steps": 2}
    cell = {"config_overrides.b": [3, 4], "seed": 1}
    assert ablation.merged(shared, cell) == {"config_overrides": {"a": 1, "b": [3, 4]}, "max_steps": 2, "seed": 1}
    assert shared == {"config_overrides": {"a": 1}, "max_steps": 2}
    words = ["--config_overrides", '{"a": 1, "b": [3, 4]}', "--max_steps", "2", "--seed", "1"]
    assert ablation.as_words(ablation.merged(shared, cell)) == words


def test_a_recipe_whose_axis_is_not_varied_or_with_an_unknown_entry_is_refused(tmp_path):
    recipe = yaml.safe_load(RECIPES[0].read_text())
    for change, message in ({"axis": "nothing"}, "nothing"), ({"colour": "red"}, "colour"):
        (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(recipe | change))
        with pytest.raises(ValueError, match=message):
            ablation.read_ablation(tmp_path / "wrong.yaml")


@pytest.mark.slow
def test_an_ablation_trains_every_cell_once_and_leaves_table_and_picture(speech_folder, tmp_path, monkeypatch):
    shared = {"train_dir": str(speech_folder), "preset": "tiny"}
    recipe = {
        "title": "A small one",
        "axis": "density",
        "vary": {"sparsity_method": ["static"], "density": [0.5, 0.2], "seed": [0, 1]},
        "baseline": {},
        "pretrain": shared | {"max_steps": 2, "per_device_train_batch_size": 8, "logging_steps": 1},
        "finetune": shared | {"seed": [0, 1]},
        "tasks": {"label": None},
        "controls": ["random"],
    }
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(recipe))
    trained = []

    def in_process(script):
        def command(*words, output_dir):
            trained.append(output_dir)
            script.main([*words, "--output_dir", str(output_dir)])

        return command

    monkeypatch.setattr(ablation, "pretrain", in_process(run_pretrain))
    monkeypatch.setattr(ablation, "finetune", in_process(run_finetune))
    ablation.main([str(path), "--output_dir", str(tmp_path / "out")])
    assert len(trained) == 5 + 1
    ablation.main([str(path), "--output_dir", str(tmp_path / "out")])
    assert len(trained) == 5 + 1 + 1
    results = pd.read_csv(tmp_path / "out" / "results.csv")
    assert len(results) == (5 + 1) * 2
    assert set(results["curve"]) == {"sparsity_method static", "baseline", "random"}
    assert sorted(results[results["curve"] == "sparsity_method static"]["position"]) == [0.2] * 4 + [0.5] * 4
    table = (tmp_path / "out" / "results.md").read_text().splitlines()
    assert table[2] == "|  | density | labels | label |"
    assert len([line for line in table if line.startswith("| sparsity_method static | 0.5 ")]) == 1
    with Image.open(tmp_path / "out" / "accuracy.png") as picture:
        assert picture.width > 400
