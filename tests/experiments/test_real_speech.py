"""The comparison on real speech: its commands, table and picture."""

from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

import run_pretrain
from mbt_speech.__main__ import main
from mbt_speech.arguments import FinetuneArguments, PretrainArguments
from mbt_speech.command_line import parse_arguments
from mbt_speech.experiments import commands, real_speech


@pytest.fixture
def called(tmp_path, monkeypatch):
    """The scripts' command lines, parsed in place of run; each fine-tuning leaves results that its words imply."""
    monkeypatch.setattr(real_speech, "OUTPUT_DIR", tmp_path)
    calls = []

    def prepare(*words):
        calls.append(words)

    def pretrain(*words, output_dir):
        calls.append(parse_arguments(PretrainArguments, [*words, "--output_dir", str(output_dir)]))
        output_dir.mkdir()
        (output_dir / "README.md").touch()

    def finetune(*words, output_dir):
        args = parse_arguments(FinetuneArguments, [*words, "--output_dir", str(output_dir)])
        calls.append(args)
        output_dir.mkdir(exist_ok=True)
        encoder = "frozen" if args.freeze_encoder else "trained"
        rows = [
            {"task": "label", "method": method, "label_fraction": share, "seed": seed, "encoder": encoder,
             "accuracy": 0.1 * seed + 0.1 * len(Path(method).name), "chance": 0.04}
            for method in args.model_name_or_path
            for share in args.label_fraction
            for seed in args.seed
        ]  # fmt: skip
        pd.DataFrame(rows).to_csv(output_dir / "results.csv", index=False)

    monkeypatch.setattr(real_speech, "prepare", prepare)
    monkeypatch.setattr(commands, "pretrain", pretrain)
    monkeypatch.setattr(real_speech, "finetune", finetune)
    return calls


@pytest.mark.parametrize(("multiplies", "precision"), [(True, "bf16"), (False, None)])
def test_encoders_are_trained_in_bfloat16_where_the_processor_has_it(called, monkeypatch, multiplies, precision):
    monkeypatch.chdir(Path(run_pretrain.__file__).parent)
    monkeypatch.setattr(real_speech, "cpu_multiplies_bfloat16", lambda: multiplies)
    main(["real"])
    assert [call.mixed_precision for call in called if isinstance(call, PretrainArguments)] == [precision] * 2


@pytest.mark.slow
def test_real_speech_is_prepared_pretrained_on_and_compared_in_one_table(called, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(Path(run_pretrain.__file__).parent)
    main(["real"])
    prepare, bt, mbt, *sweeps = called
    assert prepare[0] == "debian_speech"
    assert (bt.objective, bt.seed, mbt.objective, mbt.seed) == ("bt", 0, "mbt", 0)
    assert bt.train_dir == f"{real_speech.DATA_DIR}/pool"
    assert (bt.preset, bt.max_steps, bt.per_device_train_batch_size) == ("strong", 1500, 128)
    shares = {Path(args.train_dir).name: args.label_fraction for args in sweeps}
    curve = [0.01, 0.05, 0.1, 0.25, 0.5, 1.0]
    assert shares == {"speaker": curve, "gender": curve, "nato": [1.0], "words": [1.0]}
    for args in sweeps:
        assert args.freeze_encoder
        assert args.seed == [0, 1, 2]
        assert args.model_name_or_path == [str(tmp_path / "bt0"), str(tmp_path / "mbt0"), "stats", "random"]
    lines = (tmp_path / "results.md").read_text().splitlines()
    assert lines[2].startswith("| | speaker 1 % | speaker 5 % | speaker 10 % | speaker 25 % | speaker 50 % |")
    assert lines[4:] == [
        f"| {name} |{f' {cell} |' * 14}"
        for name, cell in {
            "chance": "4.0",
            "log-mel statistics": "60.0 ± 10.0",
            "random encoder, frozen": "70.0 ± 10.0",
            "BT, frozen": "40.0 ± 10.0",
            "MBT, frozen": "50.0 ± 10.0",
        }.items()
    ]
    assert "\n".join(lines) in capsys.readouterr().out
    assert len(pd.read_csv(tmp_path / "results.csv")) == 4 * 14 * 3
    for name in ("accuracy.png", "label_fractions.png"):
        with Image.open(tmp_path / name) as picture:
            assert picture.width > 1_000
    main(["real"])
    assert len(called) == 7 + 5, "an encoder that is there was trained again"


def test_objectives_are_compared_over_seeds_of_pretraining_where_there_are_three(called, tmp_path, monkeypatch):
    monkeypatch.chdir(Path(run_pretrain.__file__).parent)
    main(["real", "--seed", "0", "1"])
    assert "Differences" not in (tmp_path / "results.md").read_text()
    main(["real", "--seed", "0", "1", "2"])
    text = (tmp_path / "results.md").read_text()
    # Of every pre-training, one letter more is 10 points more.
    assert "- nato 100 %: MBT, frozen - BT, frozen: +10.0 points" in text
    assert text.count("MBT, frozen - BT, frozen") == 14


def test_fine_tuned_encoders_and_networks_from_scratch_stand_beside_frozen_ones(called, tmp_path, monkeypatch):
    monkeypatch.chdir(Path(run_pretrain.__file__).parent)
    main(["real", "--finetune", "--seed", "0", "1", "2"])
    sweeps = [call for call in called if isinstance(call, FinetuneArguments)]
    encoders = [str(tmp_path / name) for name in ("bt0", "mbt0", "bt1", "mbt1", "bt2", "mbt2")]
    assert [args.model_name_or_path for args in sweeps[4:]] == [encoders] * 4 + [["supervised"]] * 4
    assert not any(args.freeze_encoder for args in sweeps[4:])
    assert [args.label_fraction for args in sweeps[4:8]] == [[0.05, 0.1, 0.25, 1.0]] * 2 + [[1.0]] * 2
    results = pd.read_csv(tmp_path / "results.csv")
    assert len(results) == 8 * 14 * 3 + 7 * 10 * 3
    lines = (tmp_path / "results.md").read_text().splitlines()
    fine_tuned = next(line for line in lines if line.startswith("| MBT, fine-tuned |"))
    assert fine_tuned.split("|")[2:4] == [" ", " 50.0 ± 8.7 "], "a share that is not trained on has no number"
    text = "\n".join(lines)
    assert text.count("Differences") == 1
    assert text.count("MBT, fine-tuned - BT, fine-tuned") == text.count("MBT, fine-tuned - MBT, frozen") == 10
