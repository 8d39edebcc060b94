"""Pre-training from the command line's words to what it leaves, on recordings of a few seconds."""

import json
import re

import numpy as np
import pytest
import soundfile as sf
from accelerate import Accelerator
from datasets import Dataset, DatasetDict
from safetensors.torch import load_file
from transformers import AutoFeatureExtractor, AutoModel, AutoModelForPreTraining

import run_pretrain
from mbt_speech.arguments import PretrainArguments
from mbt_speech.data.crops import ClipDataset
from mbt_speech.data.labeled_speech import load_labeled_speech
from mbt_speech.probing.online_probe import probe_arguments
from mbt_speech.training.run_log import read_log
from tests.support.runs import losses, pretrain, run_snippet


def test_pre_training_leaves_a_model_to_open_and_the_record_of_its_making(pretrained):
    model = AutoModelForPreTraining.from_pretrained(pretrained)
    assert model.config.objective == "mbt"
    extractor = AutoFeatureExtractor.from_pretrained(pretrained)
    features = extractor(np.zeros(8000, np.float32), sampling_rate=16000, return_tensors="pt")
    assert AutoModel.from_pretrained(pretrained)(**features).pooler_output.isfinite().all()
    log = read_log(pretrained)
    assert [line["step"] for line in log] == [1, 2, 3, 4]
    weight = model.config.redundancy_loss_weight
    for line in log:
        assert 1 < line["effective_rank"] < 8
        assert 0 < line["representation_effective_rank"] < 8
        assert abs(line["mean_correlation"]) <= 1
        assert line["loss"] > line["loss_floor"] > 0
        assert line["loss"] == pytest.approx(line["invariance_loss"] + weight * line["redundancy_loss"], rel=1e-4)
    with np.load(pretrained / "cross_correlation.npz") as matrices:
        assert matrices["before"].shape == matrices["after"].shape == (48, 48)
    for name in ("loss.png", "cross_correlation.png", "augmentation.json", "recipe.yaml"):
        assert (pretrained / name).stat().st_size > 0


@pytest.mark.slow
def test_the_same_seed_gives_the_same_run_and_another_seed_another(speech_folder, pretrained, tmp_path):
    again = pretrain(tmp_path / "again", "--train_dir", speech_folder, "--objective", "mbt")
    other = pretrain(tmp_path / "other", "--train_dir", speech_folder, "--objective", "mbt", "--seed", "1")
    assert losses(again) == losses(pretrained)
    assert losses(other) != losses(pretrained)
    assert (again / "model.safetensors").read_bytes() == (pretrained / "model.safetensors").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_that_stops_and_resumes_is_bit_for_bit_the_run_that_did_not(
    speech_folder, pretrained, tmp_path, workers
):
    words = [
        "--train_dir",
        speech_folder,
        "--objective",
        "mbt",
        "--save_steps",
        "1",
        "--dataloader_num_workers",
        workers,
    ]
    whole = pretrain(tmp_path / "run", *words)
    assert sorted(path.name for path in whole.glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-3"]
    (whole / "model.safetensors").unlink()
    log = read_log(whole)
    resumed = pretrain(whole, *words, "--resume_from_checkpoint", whole / "checkpoint-2")
    assert (resumed / "model.safetensors").read_bytes() == (pretrained / "model.safetensors").read_bytes()
    timeless = [{name: value for name, value in line.items() if name != "clips_per_second"} for line in log]
    assert [{name: line[name] for name in timeless[0]} for line in read_log(resumed)] == timeless


def test_bfloat16_trains_to_weights_in_float32_and_about_the_same_loss(
    speech_folder, pretrained, tmp_path, monkeypatch, capsys, fresh_accelerator
):
    monkeypatch.setattr(run_pretrain, "cpu_multiplies_bfloat16", lambda: True)
    words = ["--train_dir", speech_folder, "--objective", "mbt"]
    run = pretrain(tmp_path / "bf16", *words, "--mixed_precision", "bf16")
    assert "--mixed_precision bf16" not in capsys.readouterr().out, "advice that was already taken"
    assert losses(run) == pytest.approx(losses(pretrained), rel=0.05)
    assert losses(run) != losses(pretrained)
    assert {str(weight.dtype) for weight in load_file(run / "model.safetensors").values()} <= {
        "torch.float32",
        "torch.int64",
    }
    assert "bf16" in (run / "README.md").read_text()


@pytest.mark.slow
def test_a_half_written_checkpoint_is_not_taken_for_one(speech_folder, tmp_path):
    run = pretrain(tmp_path, "--train_dir", speech_folder, "--save_steps", "2", "--max_steps", "3")
    assert AutoModelForPreTraining.from_pretrained(run / "checkpoint-2").config.objective == "bt"
    (run / ".checkpoint-9.partial").mkdir()
    resumed = pretrain(tmp_path, "--train_dir", speech_folder, "--max_steps", "3", "--resume_from_checkpoint", "auto")
    assert [line["step"] for line in read_log(resumed)] == [1, 2, 3]


@pytest.mark.slow
def test_probes_are_logged_keep_the_best_model_and_read_no_test_clips(
    speech_folder, pretrained, tmp_path, monkeypatch
):
    read = []
    original = ClipDataset._item
    monkeypatch.setattr(
        ClipDataset, "_item", lambda self, item, *args: read.append(item) or original(self, item, *args)
    )
    (tmp_path / "best").mkdir()  # of a better run that was here before
    (tmp_path / "best" / "probe.json").write_text('{"step": 9, "eval_frozen_linear_accuracy": 2.0}')
    words = ["--train_dir", speech_folder, "--objective", "mbt", "--eval_steps", "2", "--probe_train_dir"]
    run = pretrain(tmp_path, *words, speech_folder)
    assert "| loss | " in (run / "README.md").read_text().split("## At step 4")[1]
    probes = [line for line in read_log(run) if "eval_frozen_knn20_accuracy" in line]
    assert [line["step"] for line in probes] == [2, 4]
    best = json.loads((run / "best" / "probe.json").read_text())
    assert best["eval_frozen_linear_accuracy"] == max(line["eval_frozen_linear_accuracy"] for line in probes)
    assert AutoModelForPreTraining.from_pretrained(run / "best").config.objective == "mbt"
    assert AutoFeatureExtractor.from_pretrained(run / "best").feature_size == 32
    arguments = probe_arguments(
        PretrainArguments(
            output_dir=str(run),
            train_dir="x",
            eval_steps=1,
            probe_train_dir=str(speech_folder),
            allow_outside_paths=True,
            hub_token="secret",
        )
    )
    assert (arguments.allow_outside_paths, arguments.hub_token) == (True, "secret")
    speech = load_labeled_speech(arguments, Accelerator(cpu=True), 16000)
    assert sorted(read) == sorted([*speech.rows["train"], *speech.rows["validation"]] * 2)
    assert (run / "model.safetensors").read_bytes() == (pretrained / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_predictive_coding_trains_and_resumes_bit_for_bit(speech_folder, tmp_path, monkeypatch):
    words = ["--train_dir", speech_folder, "--objective", "cpc", "--save_steps", "2", "--config_overrides"]
    words += ['{"context_size": 16}', "--eval_steps", "2", "--probe_train_dir", speech_folder]
    run = pretrain(tmp_path / "run", *words)
    log, weights = read_log(run), (run / "model.safetensors").read_bytes()
    steps = [line for line in log if "loss" in line]
    resumed = pretrain(run, *words, "--resume_from_checkpoint", run / "checkpoint-2")
    assert [line["loss"] for line in read_log(resumed) if "loss" in line] == [line["loss"] for line in steps]
    assert (run / "model.safetensors").read_bytes() == weights
    assert AutoModelForPreTraining.from_pretrained(run / "checkpoint-2").projector.steps == (4, 5, 6, 7)
    assert all(1 < line["effective_rank"] < 8 for line in steps)
    assert [line["step"] for line in log if "eval_frozen_knn20_accuracy" in line] == [2, 4]
    with np.load(run / "cross_correlation.npz") as matrices:
        assert matrices["after"].shape == (16, 16)
    card, names = run_snippet(run, monkeypatch)
    assert "contrastive predictive coding" in card.content
    assert "two views of each crop" not in card.content
    assert names["embedding"].shape == (1, 32)


def test_two_crops_of_an_utterance_and_json_overrides_change_the_run(speech_folder, tmp_path):
    run = pretrain(
        tmp_path, "--train_dir", speech_folder, "--views", "two_crops", "--crop_seconds", "0.3",
        "--config_overrides", '{"projector_sizes": [20]}', "--feature_overrides", '{"feature_size": 24}',
        "--augmentation", '{"waveform": [{"name": "gain"}]}',
    )  # fmt: skip
    model = AutoModelForPreTraining.from_pretrained(run)
    assert model.config.projector_sizes == [20]
    assert model.config.num_mel_bins == AutoFeatureExtractor.from_pretrained(run).feature_size == 24
    assert json.loads((run / "augmentation.json").read_text())["waveform"] == [{"name": "gain"}]


def test_the_card_of_an_encoder_tells_what_was_measured_and_its_code_runs(pretrained, monkeypatch):
    card, names = run_snippet(pretrained, monkeypatch)
    assert names["embedding"].shape == (1, 32)
    assert card.data.pipeline_tag == "feature-extraction"
    last = read_log(pretrained)[-1]
    for name in ("loss", "loss_floor", "mean_correlation", "off_diagonal_rms", "representation_effective_rank"):
        assert f"| {last[name]:.4g} |" in card.content
    assert "At step 4" in card.content
    assert "4 of 8 pairs" in card.content
    assert str(pretrained.parent) not in card.content
    assert "sparse" not in card.content
    assert card.data.license is None
    assert "at 16000 Hz" in card.content.split("## Limits")[1]


def test_a_recipe_comes_first_and_the_command_line_overrides_it(speech_folder, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"train_dir: {speech_folder}\noutput_dir: {tmp_path / 'run'}\npreset: tiny\nmax_steps: 2\n"
        "learning_rate: 1e-3\nper_device_train_batch_size: 8\nlogging_steps: 1\n"
        "config_overrides: {projector_sizes: [12]}\n"
    )
    run_pretrain.main([str(recipe), "--max_steps", "1"])
    assert len(read_log(tmp_path / "run")) == 1
    assert AutoModelForPreTraining.from_pretrained(tmp_path / "run").config.projector_sizes == [12]


def test_a_run_repeats_from_the_recipe_that_it_leaves(pretrained, tmp_path):
    run_pretrain.main([str(pretrained / "recipe.yaml"), "--output_dir", str(tmp_path)])
    assert (tmp_path / "model.safetensors").read_bytes() == (pretrained / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--train_dir", "nowhere"], "nowhere"),
        (["--train_dir", "{folder}", "--per_device_train_batch_size", "500"], "per_device_train_batch_size"),
        (["--train_dir", "{folder}", "--config_overrides", "[1]"], "JSON object"),
        (["--train_dir", "{folder}", "--gradient_accumulation_steps", "9"], "gradient_accumulation_steps"),
        (["--train_dir", "{folder}", "--train_split_name", "other"], "no split other"),
    ],
)
def test_a_wrong_argument_of_pre_training_is_refused_in_one_sentence(speech_folder, tmp_path, words, message):
    with pytest.raises(ValueError, match=message):
        pretrain(tmp_path, *(word.format(folder=speech_folder) for word in words))


def test_a_saved_dataset_is_read_by_its_split_and_column(speech_folder, tmp_path):
    values = [{"bytes": path.read_bytes(), "path": path.name} for path in sorted(speech_folder.rglob("*.flac"))]
    recordings = Dataset.from_dict({"sound": values})
    DatasetDict({"left": recordings.select([0]), "right": recordings}).save_to_disk(tmp_path / "data")
    words = ["--dataset_name", tmp_path / "data", "--audio_column_name", "sound", "--max_steps", "1"]
    words += ["--per_device_train_batch_size", "4", "--train_split_name"]
    assert len(losses(pretrain(tmp_path / "run", *words, "right"))) == 1
    with pytest.raises(ValueError, match="fewer than one batch"):
        pretrain(tmp_path / "other", *words, "left")


def test_silence_is_sound_and_a_log_without_a_terminal_has_plain_lines(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(run_pretrain, "cpu_multiplies_bfloat16", lambda: True)
    folder = tmp_path / "silence"
    folder.mkdir()
    for number in range(8):
        sf.write(folder / f"{number}.wav", np.zeros(16000, np.float32), 16000)
    run = pretrain(tmp_path / "run", "--train_dir", folder, "--max_steps", "1")
    assert np.isfinite(losses(run)).all()
    printed = capsys.readouterr()
    assert re.search(r"^bt: step 1/1, loss [\d.]+, \d+ clips/s, 0 s left$", printed.err, re.MULTILINE)
    assert "--mixed_precision bf16 makes a step faster" in printed.out


@pytest.mark.slow
def test_a_run_that_goes_on_says_what_has_changed_and_needs_steps_that_are_left(speech_folder, tmp_path, capsys):
    words = ["--train_dir", speech_folder, "--save_steps", "2"]
    run = pretrain(tmp_path / "run", *words, "--max_steps", "3")
    checkpoint = ["--resume_from_checkpoint", run / "checkpoint-2"]
    capsys.readouterr()
    pretrain(run, *words, "--max_steps", "3", "--logging_steps", "2", *checkpoint)
    assert "with other arguments" not in capsys.readouterr().out
    pretrain(run, *words, "--max_steps", "3", "--learning_rate", "0.5", *checkpoint)
    assert "other arguments than it began with: --learning_rate 0.5 (before: 0.001)." in capsys.readouterr().out
    for folder, steps in ((run, "1"), (tmp_path / "new", "1"), (tmp_path / "newer", "2")):
        with pytest.raises(ValueError, match=f"has 2 steps, and the run is to have {steps}: .* Raise --max_steps"):
            pretrain(folder, *words, "--max_steps", steps, *checkpoint)


def test_what_has_an_option_of_its_own_is_no_entry_of_the_overrides():
    for name, option in run_pretrain.OPTIONS_OF_THEIR_OWN.items():
        args = PretrainArguments(train_dir="x", output_dir="y", config_overrides=json.dumps({name: 1}))
        with pytest.raises(ValueError, match=f"--config_overrides has an entry {name}: use {re.escape(option)}"):
            run_pretrain.build(args)
