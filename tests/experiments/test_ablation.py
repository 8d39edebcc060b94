"""An ablation from its recipe to its table and picture."""

import json
from pathlib import Path

import pandas as pd
import pytest
import yaml
from PIL import Image

import run_finetune
import run_pretrain
from mbt_speech.__main__ import main
from mbt_speech.command_line import parse_arguments
from mbt_speech.experiments import ablation

ROOT = Path(run_pretrain.__file__).parent
RECIPES = sorted((ROOT / "recipes" / "ablations").glob("*.yaml"))


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
    assert ablation.merged({**shared, "config_overrides": '{"a": 1}'}, cell) == ablation.merged(shared, cell)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"tasks": ["speaker"]}, "`tasks` names label columns"),
        ({"vary": {"seed": 3}, "axis": "seed"}, "`vary` names arguments, each with a list"),
        ({"vary": {"seed": []}, "axis": "seed"}, "`vary` names arguments, each with a list"),
        ({"vary": {"density": [None, 0.5]}, "axis": "density"}, "Give the values of the axis 'density' names"),
        ({"vary": {"density": [[1], [2]]}, "axis": "density"}, "Give the values of the axis 'density' names"),
        ({"axis": "lambda"}, "The axis 'lambda' is not varied"),
        ({"controls": None}, "`controls` lists encoders"),
        ({"controls": "random"}, "`controls` lists encoders"),
        ({"baseline": 5}, "`baseline` has the arguments"),
        ({"pretrain": "tiny"}, "`pretrain` and `finetune` have arguments"),
        ({"finetune": ["tiny"]}, "`pretrain` and `finetune` have arguments"),
    ],
)
def test_a_grid_that_cannot_be_drawn_is_refused_before_the_work(tmp_path, changes, complaint):
    recipe = {
        "title": "t",
        "axis": "seed",
        "vary": {"seed": [0]},
        "pretrain": {},
        "finetune": {},
        "tasks": {"y": None},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.dump(recipe))
    ablation.read_ablation(tmp_path / "recipe.yaml")
    (tmp_path / "recipe.yaml").write_text(yaml.dump(recipe | changes))
    with pytest.raises(ValueError, match=complaint):
        ablation.read_ablation(tmp_path / "recipe.yaml")


def test_a_recipe_with_an_unvaried_axis_or_unknown_entry_is_refused(tmp_path):
    recipe = yaml.safe_load(RECIPES[0].read_text())
    for change, message in ({"axis": "nothing"}, "nothing"), ({"color": "red"}, "color"):
        (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(recipe | change))
        with pytest.raises(ValueError, match=message):
            ablation.read_ablation(tmp_path / "wrong.yaml")


def test_cells_are_compared_with_the_first_by_the_seed_of_pre_training(tmp_path):
    recipe = {"title": "Which one", "axis": "label_fraction", "vary": {"objective": ["bt", "mbt"], "seed": [0, 1, 2]}}
    which = ablation.Ablation(**recipe, pretrain={"train_dir": "x"}, finetune={}, tasks={"speaker": None})
    encoders = {Path(f"{cell['objective']}{cell['seed']}"): cell for cell in which.cells()}
    rows = [
        {"task": "speaker", "method": str(folder), "label_fraction": fraction, "seed": seed, "chance": 0.1,
         "accuracy": 0.3 + 0.1 * cell["seed"] + 0.01 * seed
         + (fraction + cell["seed"] / 1000 if cell["objective"] == "mbt" else 0)}
        for folder, cell in encoders.items() for fraction in (0.05, 0.5) for seed in (0, 1)
    ]  # fmt: skip
    rows.append({**rows[0], "method": "stats"})
    (tmp_path / "tasks" / "speaker").mkdir(parents=True)
    (tmp_path / "tasks" / "speaker" / "sweep.json").write_text(json.dumps({"results": rows}))
    ablation.report(which, ablation.collect(which, encoders, tmp_path), tmp_path)
    text = (tmp_path / "results.md").read_text()
    assert "| objective mbt | 0.5 | 90.6 ± 9.1 |" in text
    # Differences of 5.0, 5.1 and 5.2 points: the interval is 5.1 +- 4.30 * 0.1 / sqrt(3).
    sentence = "objective mbt - objective bt: +5.1 points [+4.9, +5.3] over 3 seeds: objective mbt is better"
    assert f"- speaker, 5 % of the labels: {sentence}" in text
    assert text.count("- speaker, ") == 2


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
    monkeypatch.chdir(ROOT)
    trained = []

    def counting(main):
        def counted(words):
            trained.append(words)
            main(words)

        return counted

    for script in (run_pretrain, run_finetune):
        monkeypatch.setattr(script, "main", counting(script.main))
    main(["ablation", str(path), "--output_dir", str(tmp_path / "out")])
    assert len(trained) == 5 + 1
    main(["ablation", str(path), "--output_dir", str(tmp_path / "out")])
    assert len(trained) == 5 + 1 + 1
    results = pd.read_csv(tmp_path / "out" / "results.csv")
    assert len(results) == (5 + 1) * 2
    assert set(results["curve"]) == {"sparsity_method static", "baseline", "random"}
    assert sorted(results[results["curve"] == "sparsity_method static"]["position"]) == [0.2] * 4 + [0.5] * 4
    table = (tmp_path / "out" / "results.md").read_text().splitlines()
    assert table[2] == "Baselines, dashed in the picture and the same for every density: baseline; random."
    assert "| | density | labels | label |" in table
    assert len([line for line in table if line.startswith("| sparsity_method static | 0.5 ")]) == 1
    with Image.open(tmp_path / "out" / "accuracy.png") as picture:
        assert picture.width > 400


def test_a_baseline_that_is_named_like_a_curve_is_told_from_it():
    words = {"axis": "density", "vary": {"objective": ["bt"], "density": [0.5]}, "baseline": {"objective": "bt"}}
    one = ablation.Ablation(title="", pretrain={}, finetune={}, tasks={}, **words)
    places = [ablation.locate(one, cell, "", 1.0) for cell in one.cells()]
    assert [place["curve"] for place in places] == ["objective bt", "baseline: objective bt"]


def test_arguments_of_a_recipe_are_shared_and_may_be_overridden(tmp_path):
    (tmp_path / "shared.yaml").write_text("max_steps: 200\nviews: same_crop\n")
    recipe = yaml.safe_load(RECIPES[0].read_text())
    recipe["pretrain"] = {"recipe": str(tmp_path / "shared.yaml"), "max_steps": 100}
    (tmp_path / "ablation.yaml").write_text(yaml.safe_dump(recipe))
    assert ablation.read_ablation(tmp_path / "ablation.yaml").pretrain == {"max_steps": 100, "views": "same_crop"}
