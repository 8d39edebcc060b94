"""The demo's table and pictures."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import run_pretrain
from mbt_speech.__main__ import main
from mbt_speech.arguments import FinetuneArguments, PretrainArguments
from mbt_speech.command_line import parse_arguments, write_recipe
from mbt_speech.experiments import commands, demo
from mbt_speech.experiments.demo import METHOD_NAMES, to_markdown
from mbt_speech.reports.accuracy_pictures import draw_accuracies
from mbt_speech.reports.pictures import draw_cross_correlations, draw_losses


@pytest.fixture
def table():
    rows = [
        {"task": task, "method": method, "accuracy": 0.5 + 0.1 * seed, "chance": 0.25, "seed": seed}
        for task in ("speaker", "gender", "keyword")
        for method in METHOD_NAMES.values()
        for seed in (0, 1, 2)
    ]
    table = pd.DataFrame(rows)
    table["method"] = pd.Categorical(table["method"], list(METHOD_NAMES.values()), ordered=True)
    return table


def test_the_table_gives_mean_and_spread_of_every_method_and_task(table):
    lines = to_markdown(table).splitlines()
    assert lines[2] == "| chance | 25.0 | 25.0 | 25.0 |"
    assert lines[3:] == [f"| {name} | " + " | ".join(["60.0 ± 10.0"] * 3) + " |" for name in METHOD_NAMES.values()]


@pytest.mark.slow
def test_pictures_are_drawn_from_what_was_measured(table, tmp_path):
    log = [
        {"step": step, "loss": 10 / step, "invariance_loss": 8 / step, "redundancy_loss": 9.0} for step in (1, 2, 3)
    ]
    draw_losses(tmp_path / "a.png", {"BT": log, "MBT": log}, "title")
    draw_cross_correlations(tmp_path / "b.png", {"before": np.eye(5), "after": np.eye(5), "third": np.eye(5)}, "title")
    draw_accuracies(tmp_path / "c.png", table, "title")
    for name in "abc":
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert min(picture.size) > 200
            assert len(set(np.asarray(picture.convert("L")).ravel())) > 10


@pytest.mark.slow
def test_every_encoder_is_compared_with_the_controls_on_every_task(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(Path(run_pretrain.__file__).parent)
    monkeypatch.setattr(demo, "OUTPUT_DIR", tmp_path)
    encoders, called = [str(tmp_path / name) for name in ("bt0", "mbt0", "bt1", "mbt1")], []

    def pretrain(*words, output_dir):
        args = parse_arguments(PretrainArguments, [*words, "--output_dir", str(output_dir)])
        assert str(output_dir) == str(tmp_path / f"{args.objective}{args.seed}")
        output_dir.mkdir()
        (output_dir / "README.md").touch()
        line = {"step": 1, "loss": 1.0, "invariance_loss": 0.5, "redundancy_loss": 0.5}
        (output_dir / "train_log.jsonl").write_text(json.dumps(line) + "\n")
        np.savez(output_dir / "cross_correlation.npz", before=np.eye(4), after=np.eye(4))

    def finetune(*words, output_dir):
        args = parse_arguments(FinetuneArguments, [*words, "--output_dir", str(output_dir)])
        called.append((output_dir.name, args.model_name_or_path))
        output_dir.mkdir()
        rows = [
            {"task": args.label_column_name, "method": method, "label_fraction": share, "seed": seed, "chance": 0.04,
             "encoder": "frozen" if args.freeze_encoder else "trained",
             "accuracy": encoders.index(method) / 10 if method in encoders else 0.9}
            for method in args.model_name_or_path
            for share in args.label_fraction
            for seed in args.seed
        ]  # fmt: skip
        (output_dir / "sweep.json").write_text(json.dumps({"results": rows}))

    monkeypatch.setattr(demo, "prepare", lambda *words: None)
    monkeypatch.setattr(commands, "pretrain", pretrain)
    monkeypatch.setattr(demo, "finetune", finetune)
    (tmp_path / "my_test").mkdir()  # of somebody who tries things out
    (tmp_path / "my_test" / "sweep.json").write_text(json.dumps({"results": [{"method": "runs/mine"}]}))
    main(["demo"])
    assert called[:3] == [
        ("speaker_frozen", [*encoders, "random", "stats"]),
        ("speaker_full", encoders[:2]),
        ("speaker_supervised", ["supervised"]),
    ]
    lines = capsys.readouterr().out.splitlines()
    assert "| BT, frozen | 10.0 ± 11.5 | 10.0 ± 11.5 | 10.0 ± 11.5 |" in lines  # 0, 0, 20 and 20 %
    assert "| MBT, frozen | 20.0 ± 11.5 | 20.0 ± 11.5 | 20.0 ± 11.5 |" in lines
    assert "| MBT, fine-tuned | 10.0 | 10.0 | 10.0 |" in lines
    table = pd.read_csv(tmp_path / "results.csv")
    assert table.groupby("method")["pretraining_seed"].nunique()["BT, frozen"] == 2
    assert all((tmp_path / f"{name}.png").is_file() for name in ("loss", "cross_correlation", "accuracy"))


def test_an_encoder_of_another_recipe_is_not_taken_for_the_one_that_is_asked_for(tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(commands, "pretrain", lambda *words, output_dir: started.append(words))
    words = ("--train_dir", "x", "--preset", "tiny", "--max_steps", "80")
    commands.pretrain_once(*words, output_dir=tmp_path)
    assert started == [words]
    args = parse_arguments(PretrainArguments, [*words, "--output_dir", str(tmp_path)])
    write_recipe(args, True)
    (tmp_path / "README.md").touch()
    commands.pretrain_once(*words, "--logging_steps", "1", output_dir=tmp_path)
    assert len(started) == 1
    with pytest.raises(ValueError, match=r"is now to have --max_steps 60 \(before: 80\): delete it, or"):
        commands.pretrain_once(*words[:-1], "60", output_dir=tmp_path)
