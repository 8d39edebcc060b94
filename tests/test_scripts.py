"""Both scripts from the command line's words to what they leave, on recordings of a few seconds."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch
from accelerate import Accelerator
from datasets import Dataset, DatasetDict
from huggingface_hub import ModelCard
from safetensors.torch import save_file
from transformers import AutoFeatureExtractor, AutoModel, AutoModelForAudioClassification, AutoModelForPreTraining

import run_finetune
import run_pretrain
from feature_extraction.speech import BadAudioError, to_waveform
from mbt_speech.__main__ import main as mbt_main
from mbt_speech.arguments import PretrainArguments
from mbt_speech.data.crops import ClipDataset
from mbt_speech.data.labeled_speech import load_labeled_speech
from mbt_speech.probing.online_probe import probe_arguments
from mbt_speech.training.checkpoints import CheckpointError
from mbt_speech.training.run_log import read_log
from mbt_speech.training.sparsity import encoder_cost
from tests.support.runs import TINY_RUN


def pretrain(output_dir, *words):
    run_pretrain.main([*TINY_RUN, "--output_dir", str(output_dir), "--max_steps", "4", *map(str, words)])
    return Path(output_dir)


def finetune(output_dir, model, *words):
    run_finetune.main(
        ["--model_name_or_path", *map(str, np.atleast_1d(model)), "--output_dir", str(output_dir), "--logging_steps",
         "1", "--per_device_train_batch_size", "8", "--preset", "tiny", *map(str, words)]
    )  # fmt: skip
    return Path(output_dir)


def losses(output_dir):
    return [line["loss"] for line in read_log(output_dir)]


def results(output_dir):
    return [json.loads(line) for line in (output_dir / "results.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def pretrained(speech_folder, tmp_path_factory):
    return pretrain(tmp_path_factory.mktemp("pretrained"), "--train_dir", speech_folder, "--objective", "mbt")


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
    words = ["--train_dir", speech_folder, "--objective", "mbt", "--eval_steps", "2", "--probe_train_dir"]
    run = pretrain(tmp_path, *words, speech_folder)
    probes = [line for line in read_log(run) if "eval_frozen_knn20_accuracy" in line]
    assert [line["step"] for line in probes] == [2, 4]
    best = json.loads((run / "best" / "probe.json").read_text())
    assert best["eval_frozen_linear_accuracy"] == max(line["eval_frozen_linear_accuracy"] for line in probes)
    assert AutoModelForPreTraining.from_pretrained(run / "best").config.objective == "mbt"
    assert AutoFeatureExtractor.from_pretrained(run / "best").feature_size == 32
    arguments = probe_arguments(
        PretrainArguments(output_dir=str(run), train_dir="x", eval_steps=1, probe_train_dir=str(speech_folder))
    )
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


def run_snippet(folder, monkeypatch):
    """Runs the code of a card as it is printed, where the run's folder has the name that the card gives it."""
    card = ModelCard.load(folder / "README.md", ignore_metadata_errors=False)
    monkeypatch.chdir(folder.parent)
    names: dict = {}
    exec(card.content.split("```python\n")[1].split("```")[0], names)
    return card, names


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


@pytest.mark.slow
def test_the_card_of_a_classifier_holds_its_results_and_its_code_runs(
    speech_folder, pretrained, tmp_path, monkeypatch, capsys
):
    words = ["--train_dir", speech_folder, "--freeze_encoder", "--seed", "0", "1", "--hub_license", "cc-by-4.0"]
    run = finetune(tmp_path / "run", [pretrained, "stats"], *words)
    card, _ = run_snippet(run, monkeypatch)
    assert "'label': 'low'" in capsys.readouterr().out
    assert card.data.pipeline_tag == "audio-classification"
    assert card.data.license == "cc-by-4.0"
    assert "one of its 2 classes" in card.content.split("## Limits")[1]
    (evaluation,) = card.data.eval_results
    accuracies = [line["accuracy"] for line in results(run) if line["method"] == str(pretrained)]
    assert evaluation.metric_value == pytest.approx(np.mean(accuracies))
    assert f"| {pretrained.name} | frozen | 100 % | {100 * np.mean(accuracies):.1f} ± " in card.content
    assert str(speech_folder.parent) not in card.content


@pytest.fixture
def spoilt_folder(speech_folder, tmp_path):
    """The folder with three bad recordings beside the good ones."""
    folder = tmp_path / "spoilt"
    for path in speech_folder.rglob("*.*"):
        target = folder / path.relative_to(speech_folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    (folder / "low" / "text.wav").write_text("This is no sound.")
    (folder / "low" / "nothing.flac").write_bytes(b"")
    whole = (folder / "high" / "00.wav").read_bytes()
    (folder / "high" / "half.wav").write_bytes(whole[: len(whole) // 2])
    return folder


def test_a_bad_recording_stops_pre_training_with_its_name(spoilt_folder, tmp_path):
    with pytest.raises(BadAudioError, match=r"(text\.wav|nothing\.flac|half\.wav)"):
        pretrain(tmp_path / "run", "--train_dir", spoilt_folder)


@pytest.mark.slow
def test_bad_recordings_are_skipped_and_listed_by_both_scripts_when_asked(spoilt_folder, pretrained, tmp_path):
    run = pretrain(tmp_path / "pretrain", "--train_dir", spoilt_folder, "--on_bad_audio", "skip")
    tuned = finetune(
        tmp_path / "finetune", pretrained, "--train_dir", spoilt_folder, "--on_bad_audio", "skip", "--freeze_encoder"
    )
    for folder in (run, tuned):
        names = sorted(Path(line.split("\t")[0]).name for line in (folder / "bad_audio.txt").read_text().splitlines())
        assert names == ["half.wav", "nothing.flac", "text.wav"]
    assert sum(result["num_train"] for result in results(tuned)) > 0


@pytest.mark.slow
@pytest.mark.parametrize("words", [["--freeze_encoder"], ["--max_steps", "30", "--learning_rate", "0.01"]])
def test_fine_tuning_learns_sub_folder_names_and_leaves_a_classifier(speech_folder, pretrained, tmp_path, words):
    run = finetune(tmp_path, pretrained, "--train_dir", speech_folder, *words)
    (result,) = results(run)
    assert result["accuracy"] == 1.0
    assert result["chance"] == 0.5
    model = AutoModelForAudioClassification.from_pretrained(run).eval()
    assert model.config.id2label == {0: "high", 1: "low"}
    extractor = AutoFeatureExtractor.from_pretrained(run)
    for label in ("high", "low"):
        waveform = to_waveform(speech_folder / label / "01.flac", 16000)
        with torch.no_grad():
            logits = model(**extractor(waveform, sampling_rate=16000, return_tensors="pt")).logits
        assert model.config.id2label[int(logits.argmax())] == label


@pytest.mark.slow
def test_a_sweep_compares_methods_and_does_nothing_twice(speech_folder, pretrained, tmp_path, capsys):
    words = ["--train_dir", speech_folder, "--freeze_encoder", "--label_fraction", "0.5", "1", "--seed", "0", "1"]
    run = finetune(tmp_path, [pretrained, "random", "stats"], *words)
    lines = results(run)
    assert len(lines) == 3 * 2 * 2
    assert len({line["run"] for line in lines}) == len(lines)
    assert sorted({line["num_train"] for line in lines}) == [10, 20]
    finetune(tmp_path, [pretrained, "random", "stats"], *words, "--seed", "0", "1", "2")
    assert results(run)[: len(lines)] == lines
    assert len(results(run)) == 3 * 2 * 3
    assert "| random | frozen | " in capsys.readouterr().out
    for name in ("label_fractions.png", "embeddings.png", "spectra.png"):
        assert (run / name).stat().st_size > 0


@pytest.mark.slow
def test_full_fine_tuning_resumes_bit_for_bit(speech_folder, pretrained, tmp_path):
    words = ["--train_dir", speech_folder, "--max_steps", "6", "--save_steps", "2", "--eval_steps", "3"]
    whole = finetune(tmp_path / "whole", pretrained, *words)
    weights = (whole / "model.safetensors").read_bytes()
    assert any("eval_accuracy" in line for line in read_log(whole))
    for name in ("results.jsonl", "model.safetensors"):
        (whole / name).unlink()
    finetune(whole, pretrained, *words, "--resume_from_checkpoint", whole / "checkpoint-2")
    assert (whole / "model.safetensors").read_bytes() == weights


@pytest.mark.slow
def test_labels_come_from_a_metadata_file_and_parts_from_its_split_column(speech_folder, pretrained, tmp_path):
    folder = tmp_path / "flat"
    folder.mkdir()
    rows = ["file_name,pitch,split"]
    for path in sorted(speech_folder.rglob("*.*")):
        name = f"{path.parent.name}_{path.name}"
        (folder / name).write_bytes(path.read_bytes())
        part = "test" if path.stem in ("00", "01") else "dev" if path.stem in ("02", "03") else "train"
        rows.append(f"{name},{300 if path.parent.name == 'high' else 100},{part}")
    (folder / "metadata.csv").write_text("\n".join(rows))
    run = finetune(
        tmp_path / "run", pretrained, "--train_dir", folder, "--label_column_name", "pitch", "--freeze_encoder"
    )
    (result,) = results(run)
    assert (result["num_train"], result["num_test"]) == (16, 4)
    assert AutoModelForAudioClassification.from_pretrained(run).config.label2id == {"100": 0, "300": 1}
    # Labels that were corrected make results that have not been there yet.
    rows[-1] = rows[-1].replace(",100,", ",300,") if ",100," in rows[-1] else rows[-1].replace(",300,", ",100,")
    (folder / "metadata.csv").write_text("\n".join(rows))
    for _ in range(2):
        finetune(run, pretrained, "--train_dir", folder, "--label_column_name", "pitch", "--freeze_encoder")
    assert len(results(run)) == 2


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


def test_a_folder_that_is_no_checkpoint_is_refused(speech_folder, pretrained, tmp_path):
    words = ["--train_dir", speech_folder, "--resume_from_checkpoint", "nowhere"]
    with pytest.raises(CheckpointError, match="no checkpoint of this script"):
        pretrain(tmp_path, *words)
    with pytest.raises(CheckpointError, match="no checkpoint of this script"):
        finetune(tmp_path, pretrained, *words)


def test_fine_tuning_does_not_resume_in_another_folder(speech_folder, pretrained, tmp_path):
    words = ["--train_dir", speech_folder, "--max_steps", "2", "--save_steps", "1"]
    first = finetune(tmp_path / "first", pretrained, *words)
    with pytest.raises(ValueError, match=r"checkpoint-1 is not below .*: a network goes on in the"):
        finetune(tmp_path / "second", pretrained, *words, "--resume_from_checkpoint", first / "checkpoint-1")


@pytest.mark.slow
def test_the_model_is_fitted_again_where_other_settings_have_replaced_it(speech_folder, pretrained, tmp_path):
    words = ["--train_dir", speech_folder, "--freeze_encoder"]
    run = finetune(tmp_path, pretrained, *words)
    weights = (run / "model.safetensors").read_bytes()
    finetune(run, pretrained, *words, "--max_length_seconds", "0.3")
    assert (run / "model.safetensors").read_bytes() != weights
    finetune(run, pretrained, *words)
    assert (run / "model.safetensors").read_bytes() == weights
    assert len(results(run)) == 3


@pytest.mark.parametrize("script", ["run_pretrain.py", "run_finetune.py"])
def test_help_and_mistakes_are_answered_without_importing_torch(script):
    code = f"""import runpy, sys
sys.argv = [{script!r}, {{word!r}}]
try:
    runpy.run_path({script!r}, run_name="__main__")
except SystemExit as end:
    print(end.code, "torch" in sys.modules, "datasets" in sys.modules)"""
    root = Path(run_pretrain.__file__).parent
    for word, expected in ("--help", "0 False False"), ("--sed", "2 False False"):
        words = [sys.executable, "-c", code.format(word=word)]
        done = subprocess.run(words, cwd=root, capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == expected
    assert "--sed: did you mean --seed?" in done.stderr


def test_a_model_without_the_encoder_is_refused(speech_folder, pretrained, tmp_path):
    broken = tmp_path / "broken"
    broken.mkdir()
    for name in ("config.json", "preprocessor_config.json"):
        (broken / name).write_bytes((pretrained / name).read_bytes())
    save_file({"other.weight": torch.zeros(2)}, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="holds no MBT encoder"):
        finetune(tmp_path / "run", broken, "--train_dir", speech_folder, "--freeze_encoder")


@pytest.mark.parametrize(
    ("script", "words", "message"),
    [
        (run_pretrain, ["--output_dir", "x"], "--train_dir"),
        (run_pretrain, ["--output_dir", "x", "--train_dir", "y", "--density", "0.5"], "--sparsity_method"),
        (run_pretrain, ["--output_dir", "x", "--train_dir", "y", "--eval_steps", "5"], "--probe_train_dir"),
        (run_finetune, ["--output_dir", "x", "--train_dir", "y"], "--model_name_or_path"),
        (run_finetune, ["--output_dir", "x", "--train_dir", "y", "--model_name_or_path", "stats"], "--freeze_encoder"),
        (run_pretrain, ["--output_dir", "x", "--train_dir", "y", "--on_bad_audio", "repair"], "repair"),
        (run_pretrain, ["--output_dir", "x", "--learnig_rate", "1"], "--learnig_rate: did you mean --learning_rate?"),
        (run_finetune, ["nowhere.yaml"], "nowhere.yaml cannot be read"),
    ],
)
def test_a_wrong_command_line_is_refused_with_what_to_do(script, words, message, capsys):
    with pytest.raises(SystemExit):
        script.main(words)
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_a_sparse_run_resumes_bit_for_bit_and_stays_sparse_in_fine_tuning(speech_folder, tmp_path):
    words = ["--train_dir", speech_folder, "--sparsity_method", "rigl", "--density", "0.25", "--save_steps", "1"]
    words += ["--gradient_accumulation_steps", "2", "--per_device_train_batch_size", "5"]
    run = pretrain(tmp_path / "run", *words)
    weights = (run / "model.safetensors").read_bytes()
    (run / "model.safetensors").unlink()
    pretrain(run, *words, "--resume_from_checkpoint", run / "checkpoint-2")
    assert (run / "model.safetensors").read_bytes() == weights
    tuned = finetune(tmp_path / "tuned", run, "--train_dir", speech_folder, "--max_steps", "3")
    for folder in (run, run / "checkpoint-3", tuned):
        model = AutoModel.from_pretrained(folder)
        assert model.config.encoder_density == 0.25
        assert encoder_cost(model, num_frames=48).density == pytest.approx(0.25, abs=0.01)
    card = (run / "README.md").read_text()
    assert "| sparse training | rigl, density 0.25 |" in card
    assert re.search(r"25\.\d % of those that are pruned remain, .* MFLOP \(\d\d\.\d %\)", card)


def test_a_saved_dataset_is_read_by_its_split_and_column(speech_folder, tmp_path):
    values = [{"bytes": path.read_bytes(), "path": path.name} for path in sorted(speech_folder.rglob("*.flac"))]
    recordings = Dataset.from_dict({"sound": values})
    DatasetDict({"left": recordings.select([0]), "right": recordings}).save_to_disk(tmp_path / "data")
    words = ["--dataset_name", tmp_path / "data", "--audio_column_name", "sound", "--max_steps", "1"]
    words += ["--per_device_train_batch_size", "4", "--train_split_name"]
    assert len(losses(pretrain(tmp_path / "run", *words, "right"))) == 1
    with pytest.raises(ValueError, match="fewer than one batch"):
        pretrain(tmp_path / "run", *words, "left")


def test_silence_is_sound_and_a_log_without_a_terminal_has_plain_lines(tmp_path, capsys):
    folder = tmp_path / "silence"
    folder.mkdir()
    for number in range(8):
        sf.write(folder / f"{number}.wav", np.zeros(16000, np.float32), 16000)
    run = pretrain(tmp_path / "run", "--train_dir", folder, "--max_steps", "1")
    assert np.isfinite(losses(run)).all()
    assert re.search(r"^bt: step 1/1, loss [\d.]+, \d+ clips/s, 0 s left$", capsys.readouterr().err, re.MULTILINE)


def test_each_script_ends_with_where_its_result_is_and_a_command_that_works_next(speech_folder, tmp_path, capsys):
    run = pretrain(tmp_path / "my run", "--train_dir", speech_folder, "--max_steps", "1")
    where, _, command = capsys.readouterr().out.splitlines()[-1].partition(". Next: ")
    assert where == f"The encoder is in {run}"
    python, script, *words = shlex.split(command)
    assert (python, script) == ("python", "run_finetune.py")
    run_finetune.main([str(speech_folder) if word == "LABELED_FOLDER" else word for word in words])
    where, _, command = capsys.readouterr().out.splitlines()[-1].partition(". Next: ")
    assert where == f"The classifier and its results are in {run}-labels"
    mbt, *words = shlex.split(command)
    assert mbt == "mbt"
    mbt_main([str(speech_folder / "low" / "01.flac") if word == "RECORDING" else word for word in words])
    assert json.loads(capsys.readouterr().out)["predictions"][0]["label"] == "low"


def test_fine_tuning_of_controls_alone_ends_with_the_report(speech_folder, tmp_path, capsys):
    run = finetune(tmp_path / "runs" / "controls", "stats", "--train_dir", speech_folder, "--freeze_encoder")
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"The results are in {run}. Next: mbt report --runs_dir {run.parent}"
