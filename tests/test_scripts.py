"""What both scripts have in common, and what one hands to the other."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoModel

import run_finetune
import run_pretrain
from feature_extraction.speech import BadAudioError
from mbt_speech.__main__ import main as mbt_main
from mbt_speech.training.checkpoints import CheckpointError
from mbt_speech.training.sparsity import encoder_cost
from tests.support.runs import finetune, pretrain, results


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


def test_a_folder_that_is_no_checkpoint_is_refused(speech_folder, pretrained, tmp_path):
    words = ["--train_dir", speech_folder, "--resume_from_checkpoint", "nowhere"]
    with pytest.raises(CheckpointError, match="no checkpoint of this script"):
        pretrain(tmp_path, *words)
    with pytest.raises(CheckpointError, match="no checkpoint of this script"):
        finetune(tmp_path, pretrained, *words)


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
