"""What trackers are told, and what a run says of one that is not installed.

Trackio needs an older Pillow than the one that these tests are pinned to: what accelerate calls of it takes its place.
"""

import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator, tracking
from accelerate.utils import LoggerType
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import run_pretrain
from mbt_speech.training.run_log import RunLog, read_log
from mbt_speech.user_errors import explain_user_errors
from tests.support.processes import run_in_two_processes, tell_accelerate
from tests.support.runs import finetune, pretrain


@pytest.fixture
def trackio(monkeypatch):
    """What a run gives to Trackio: (what, values, step)."""
    told = []
    run = SimpleNamespace(
        log=lambda values, step: told.append(("log", values, step)), finish=lambda: told.append(("finish", {}, None))
    )

    def init(project):
        told.append(("init", {"project": project}, None))
        return run

    monkeypatch.setitem(sys.modules, "trackio", SimpleNamespace(init=init))
    monkeypatch.setattr(tracking, "_available_trackers", [LoggerType.TRACKIO])
    return told


def test_trackio_is_told_every_line_of_the_log_and_the_end(trackio, speech_folder, tmp_path):
    pretrain(tmp_path / "run", "--train_dir", speech_folder, "--report_to", "trackio")
    first, *lines, last = trackio
    assert first == ("init", {"project": "pretrain"}, None)
    assert last[0] == "finish"
    logged = {line["step"]: line["loss"] for line in read_log(tmp_path / "run")}
    assert {step: values["train/loss"] for _, values, step in lines} == pytest.approx(logged)


def test_tensorboard_is_told_every_line_of_the_log(speech_folder, tmp_path):
    pretrain(tmp_path / "run", "--train_dir", speech_folder, "--report_to", "tensorboard")
    (events,) = (tmp_path / "run").rglob("*tfevents*")
    found = EventAccumulator(str(events)).Reload().Scalars("train/loss")
    logged = {line["step"]: line["loss"] for line in read_log(tmp_path / "run")}
    assert {one.step: one.value for one in found} == pytest.approx(logged)


def test_tensorboard_is_told_of_the_trainings_of_fine_tuning_one_after_the_other(speech_folder, tmp_path):
    words = ["--train_dir", speech_folder, "--max_steps", "4", "--eval_steps", "2", "--report_to", "tensorboard"]
    run = finetune(tmp_path, "supervised", *words)
    (events,) = run.rglob("*tfevents*")
    accumulator = EventAccumulator(str(events)).Reload()
    folders = ["learning_rate_0.001", "learning_rate_0.003", "all_labels"]
    for before, folder in zip((0, 4, 8), folders, strict=True):
        logged = {before + line["step"]: line["loss"] for line in read_log(run / folder) if "loss" in line}
        found = accumulator.Scalars(f"{folder}/train/loss")
        assert {one.step: one.value for one in found} == pytest.approx(logged)
    assert [one.step for one in accumulator.Scalars(f"{folders[1]}/eval/accuracy")] == [6, 8]


@pytest.mark.parametrize("name", ["trackio", "wandb"])
def test_a_tracker_that_is_not_installed_is_named_with_its_command(name, speech_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tracking, "_available_trackers", [LoggerType.TENSORBOARD])
    words = ["--train_dir", str(speech_folder), "--output_dir", str(tmp_path / "run"), "--report_to", name]
    with pytest.raises(SystemExit) as end, explain_user_errors(words):
        run_pretrain.main(words)
    assert end.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith(f"pip install {name}.")
    assert not (tmp_path / "run").exists()


def log_whole_numbers(rank, results):
    tell_accelerate(rank)
    with tempfile.TemporaryDirectory() as folder:
        log = RunLog(
            Accelerator(cpu=True),
            Path(folder),
            "",
            2,
            start_step=0,
            is_same_run=False,
            logging_steps=1,
            clips_per_step=1,
        )
        log.step(1, {"loss": torch.tensor(1.0), "skipped_steps": 1})
        results[rank] = [line["skipped_steps"] for line in read_log(Path(folder))]


@pytest.mark.slow
def test_two_processes_log_the_number_of_skipped_steps():
    assert run_in_two_processes(log_whole_numbers) == {0: [1.0], 1: []}
