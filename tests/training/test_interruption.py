"""Runs that are killed, told to stop, or find a full disk, and go on as if nothing had happened.

Each run is a process of its own, forked from a server that has imported the scripts.
"""

import json
import multiprocessing
import os
import resource
import signal
import socket
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

import run_finetune
import run_pretrain
from mbt_speech.training.checkpoints import (
    CheckpointError,
    checkpoint_fault,
    list_checkpoints,
    read_progress,
    write_progress,
)
from mbt_speech.training.interruption import StopSignals
from mbt_speech.training.loop import TrainingRun
from mbt_speech.training.run_log import read_lines, read_log

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["run_pretrain", "run_finetune"])
PATIENCE_SECONDS = 600


def run_script(script, words, environment, output, file_bytes):
    """Body of a process: a script's main, its words and errors in a file."""
    import torch

    with Path(output).open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    multiprocessing.set_start_method("fork", force=True)  # of the data loader's workers, as for any run on Linux
    os.environ.update(environment)
    torch.set_num_threads(1)
    if file_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, resource.RLIM_INFINITY))
    __import__(script).main(words)


class Run:
    """A script under way in W processes."""

    def __init__(self, script, words, output_dir, *, num_processes=1, file_bytes=None):
        self.output_dir, self.output = Path(output_dir), Path(f"{output_dir}.txt")
        words = [*map(str, words), "--output_dir", str(output_dir), "--logging_steps", "1", "--save_steps", "2"]
        environments = [{}]
        if num_processes > 1:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = probe.getsockname()[1]
            environments = [
                {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(num_processes), "OMP_NUM_THREADS": "1",
                 "LOCAL_WORLD_SIZE": str(num_processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
                 "ACCELERATE_USE_CPU": "true"}
                for rank in range(num_processes)
            ]  # fmt: skip
        self.processes = [
            CONTEXT.Process(target=run_script, args=(script, words, environment, str(self.output), file_bytes))
            for environment in environments
        ]
        for process in self.processes:
            process.start()

    def signal_when(self, condition, number):
        """Sends a signal to every process as soon as the condition holds."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition(self.output_dir):
            assert time.monotonic() < deadline, self.output.read_text()
            assert all(process.is_alive() for process in self.processes), self.output.read_text()
            time.sleep(0.002)
        for process in self.processes:
            os.kill(process.pid, number)
        return self.end()

    def end(self):
        """Waits for the end; returns the exit codes."""
        for process in self.processes:
            process.join(PATIENCE_SECONDS)
        return [process.exitcode for process in self.processes]


def steps_logged(number):
    return lambda folder: len(read_log(folder)) >= number


def saving(number):
    """In the middle of writing the checkpoint of a step."""
    return lambda folder: (folder / f".checkpoint-{number}.partial").is_dir()


def without_times(folder):
    return [{name: value for name, value in line.items() if name != "clips_per_second"} for line in read_log(folder)]


def assert_same(interrupted, whole):
    assert (interrupted / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert without_times(interrupted) == without_times(whole)


def pretraining(folder, *words):
    return ["--train_dir", folder, "--preset", "tiny", "--per_device_train_batch_size", 4, "--max_steps", 9, *words]


@pytest.fixture(scope="module")
def finetuning(speech_folder, tmp_path_factory):
    model = tmp_path_factory.mktemp("pretrained")
    run_pretrain.main(
        ["--train_dir", str(speech_folder), "--preset", "tiny", "--max_steps", "1", "--output_dir", str(model),
         "--per_device_train_batch_size", "8", "--config_overrides", '{"hidden_dropout_prob": 0.2}']
    )  # fmt: skip
    return ["--train_dir", speech_folder, "--model_name_or_path", model, "--per_device_train_batch_size", 3,
            "--max_steps", 9, "--eval_steps", 4]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("num_processes", "words", "moments"),
    [(1, ["--gradient_accumulation_steps", 2], [steps_logged(1), saving(2), saving(4), steps_logged(7)]),
     (1, ["--dataloader_num_workers", 2], [saving(4), steps_logged(7)]),
     (2, ["--gradient_accumulation_steps", 2], [steps_logged(1), saving(2), saving(4), steps_logged(7)])],
    ids=["accumulation", "workers", "two-processes"],
)  # fmt: skip
def test_killed_pre_training_ends_bit_for_bit_as_if_it_had_not_been(
    speech_folder, tmp_path, num_processes, words, moments
):
    words = pretraining(speech_folder, *words, "--config_overrides", '{"hidden_dropout_prob": 0.2}')
    whole = Run("run_pretrain", words, tmp_path / "whole", num_processes=num_processes)
    words += ["--resume_from_checkpoint", "auto"]
    for condition in moments:
        run = Run("run_pretrain", words, tmp_path / "killed", num_processes=num_processes)
        assert run.signal_when(condition, signal.SIGKILL) == [-signal.SIGKILL] * num_processes
    last = Run("run_pretrain", words, tmp_path / "killed", num_processes=num_processes)
    assert last.end() == [0] * num_processes
    assert "Resuming from" in last.output.read_text()
    assert whole.end() == [0] * num_processes
    assert_same(last.output_dir, whole.output_dir)


@pytest.mark.slow
def test_killed_fine_tuning_ends_bit_for_bit_as_if_it_had_not_been(finetuning, tmp_path):
    words = [*finetuning, "--dataloader_num_workers", 2, "--gradient_accumulation_steps", 2]
    whole = Run("run_finetune", words, tmp_path / "whole")
    words += ["--resume_from_checkpoint", "auto"]
    for condition in (saving(4), steps_logged(8)):
        run = Run("run_finetune", words, tmp_path / "killed")
        assert run.signal_when(condition, signal.SIGKILL) == [-signal.SIGKILL]
    last = Run("run_finetune", words, tmp_path / "killed")
    assert last.end() == whole.end() == [0]
    assert_same(last.output_dir, whole.output_dir)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "num_processes"), [(signal.SIGTERM, 2), (signal.SIGINT, 1), (signal.SIGHUP, 1)])
def test_a_run_that_is_told_to_stop_saves_says_so_and_ends_well(speech_folder, tmp_path, number, num_processes):
    if signal.getsignal(number) is signal.SIG_IGN:
        pytest.skip(f"{number.name} is ignored here, as by nohup, and so it is in runs")
    words = [*pretraining(speech_folder, "--dataloader_num_workers", 1), "--max_steps", 400]
    run = Run("run_pretrain", words, tmp_path / "run", num_processes=num_processes)
    assert run.signal_when(steps_logged(3), number) == [0] * num_processes
    last = list_checkpoints(run.output_dir)[-1]
    assert f"Stopped by {number.name} after step" in run.output.read_text()
    assert len(read_log(run.output_dir)) == int(last.name.split("-")[1])
    assert not (run.output_dir / "model.safetensors").exists()
    assert checkpoint_fault(last) is None


def test_signals_that_are_ignored_stay_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignals() as signals:
            signal.raise_signal(signal.SIGHUP)
            assert signals.received is None
            signal.raise_signal(signal.SIGTERM)
            assert signals.received == signal.SIGTERM
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.slow
def test_a_signal_in_the_last_step_of_a_training_stops_a_sweep(finetuning, tmp_path, monkeypatch, capsys):
    update = TrainingRun.update

    def stop_at_the_end(run, losses):
        update(run, losses)
        if run.step == run.max_steps:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(TrainingRun, "update", stop_at_the_end)
    words = [*map(str, finetuning), "--seed", "0", "1", "--output_dir", str(tmp_path / "run")]
    with pytest.raises(SystemExit) as stopped:
        run_finetune.main(words)
    assert stopped.value.code == 0
    assert "Stopped by SIGINT after step 9 of 9" in capsys.readouterr().out
    monkeypatch.setattr(TrainingRun, "update", update)
    run_finetune.main([*words, "--resume_from_checkpoint", "auto"])
    assert len(read_lines(tmp_path / "run" / "results.jsonl")) == 2


@pytest.mark.slow
def test_a_full_disk_ends_the_run_and_leaves_the_last_checkpoint_alone(speech_folder, tmp_path):
    words = [*pretraining(speech_folder), "--max_steps", 3]
    first = Run("run_pretrain", words, tmp_path / "run")
    assert first.end() == [0]
    before = {path.name: path.read_bytes() for path in (tmp_path / "run" / "checkpoint-2").iterdir()}
    words = [*pretraining(speech_folder), "--resume_from_checkpoint", "auto"]
    run = Run("run_pretrain", words, tmp_path / "run", file_bytes=20_000)
    assert run.end() == [1]
    assert "CheckpointError: The checkpoint of step 4 cannot be written" in run.output.read_text()
    assert f"The last good checkpoint is {tmp_path / 'run' / 'checkpoint-2'}." in run.output.read_text()
    assert {path.name: path.read_bytes() for path in (tmp_path / "run" / "checkpoint-2").iterdir()} == before
    assert not list((tmp_path / "run").glob(".checkpoint*"))


def test_a_folder_that_cannot_be_written_to_is_refused_at_once(speech_folder, tmp_path):
    (tmp_path / "file").write_text("")
    words = ["--train_dir", str(speech_folder), "--preset", "tiny", "--output_dir", str(tmp_path / "file" / "run")]
    with pytest.raises(CheckpointError, match=r"--output_dir .* cannot be written to"):
        run_pretrain.main(words)


def poisoned(speech_folder, folder):
    """Returns a checkpoint whose first weights are not numbers."""
    words = [*pretraining(speech_folder), "--output_dir", folder, "--save_steps", 2, "--logging_steps", 1]
    run_pretrain.main([*map(str, words), "--max_steps", "3"])
    path = folder / "checkpoint-2" / "model.safetensors"
    weights = load_file(path)
    next(value for value in weights.values() if value.ndim == 4).fill_(float("nan"))
    save_file(weights, path, metadata={"format": "pt"})
    write_progress(path.parent, read_progress(path.parent))
    return [str(word) for word in words]


@pytest.mark.slow
def test_five_steps_in_a_row_that_are_not_finite_name_their_recordings(speech_folder, tmp_path, capsys):
    words = poisoned(speech_folder, tmp_path)
    with pytest.raises(FloatingPointError, match=r"up to step 7, .* The last batch held .*\.(wav|flac|mp3|ogg)"):
        run_pretrain.main([*words, "--resume_from_checkpoint", "auto"])
    assert "Step 3 is skipped" in capsys.readouterr().out
    log = read_log(tmp_path)
    assert [line.get("skipped_steps", 0) for line in log] == [0, 0, 1, 2, 3, 4]
    weights = load_file(tmp_path / "checkpoint-6" / "model.safetensors")
    buffers = [value for name, value in weights.items() if "running" in name]
    assert all(bool(buffer.isfinite().all()) for buffer in buffers)
    assert json.loads((tmp_path / "checkpoint-6" / "progress.json").read_text())["skipped_steps"] == 4


@pytest.mark.slow
def test_a_gradient_that_is_not_finite_moves_neither_weights_nor_masks(speech_folder, tmp_path, monkeypatch):
    original, calls = run_pretrain.backpropagate_views, []

    def backpropagate_views(accelerator, network, views):
        output = original(accelerator, network, views)
        calls.append(output)
        if len(calls) == 3:
            next(network.parameters()).grad.fill_(float("nan"))
        return output

    monkeypatch.setattr(run_pretrain, "backpropagate_views", backpropagate_views)
    words = [*pretraining(speech_folder), "--output_dir", tmp_path, "--save_steps", 1, "--save_total_limit", 9]
    words += ["--max_grad_norm", 0, "--sparsity_method", "magnitude", "--density", 0.5]
    run_pretrain.main([*map(str, words), "--max_steps", "4", "--logging_steps", "1"])
    assert [line.get("skipped_steps", 0) for line in read_log(tmp_path)] == [0, 0, 1, 1]
    before, after = (load_file(tmp_path / f"checkpoint-{step}" / "model.safetensors") for step in (2, 3))
    assert all(bool((before[name] == after[name]).all()) for name in before)


@pytest.mark.slow
def test_one_step_that_is_not_finite_leaves_the_weights_alone(speech_folder, tmp_path, monkeypatch):
    original = run_pretrain.make_views
    calls = []

    def make_views(*args):
        calls.append(args)
        view_a, view_b = original(*args)
        return (view_a * float("nan"), view_b) if len(calls) == 4 else (view_a, view_b)

    monkeypatch.setattr(run_pretrain, "make_views", make_views)
    words = [*pretraining(speech_folder), "--output_dir", tmp_path, "--save_steps", 1, "--save_total_limit", 9]
    run_pretrain.main([*map(str, words), "--max_steps", "5", "--logging_steps", "1"])
    assert [line.get("skipped_steps", 0) for line in read_log(tmp_path)] == [0, 0, 1, 1, 1]
    before, after = (load_file(tmp_path / f"checkpoint-{step}" / "model.safetensors") for step in (2, 3))
    assert all(bool((before[name] == after[name]).all()) for name in before)
    assert all(bool(value.isfinite().all()) for value in load_file(tmp_path / "model.safetensors").values())
