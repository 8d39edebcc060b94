"""The ways to start a run: `python`, `accelerate launch` and `torchrun`, of one process and of two."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch
from transformers import AutoModelForPreTraining

import run_pretrain
from mbt_speech.arguments import PretrainArguments
from mbt_speech.training import launch
from mbt_speech.training.checkpoints import whole_checkpoint
from tests.support.processes import run_in_two_processes, tell_accelerate
from tests.support.runs import TINY_RUN, losses

PATIENCE_SECONDS = 600
ROOT = Path(run_pretrain.__file__).parent
ACCELERATE = ["-m", "accelerate.commands.launch", "--cpu", "--num_machines", "1", "--mixed_precision", "no",
              "--dynamo_backend", "no", "--main_process_port", "0", "--num_processes"]  # fmt: skip
LAUNCHERS = {"accelerate": ACCELERATE, "torchrun": ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]}


def start(launcher, speech_folder, output_dir, *words):
    """Runs to the end; returns what was printed."""
    script = [str(ROOT / "run_pretrain.py"), *TINY_RUN, "--train_dir", str(speech_folder), "--max_steps", "3"]
    script += ["--per_device_train_batch_size", "3", "--output_dir", str(output_dir), *words]
    done = subprocess.run(
        [sys.executable, *launcher, *script], cwd=ROOT, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def alone(speech_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    assert "3 steps of 12 pairs" in start([], speech_folder, folder, "--gradient_accumulation_steps", "4")
    assert len(losses(folder)) == 3
    return folder


@pytest.mark.parametrize(
    ("parent", "words"),
    [
        (["python3", "/opt/bin/accelerate", "launch", "--cpu", "run.py"], ["--cpu", "run.py"]),
        (["python3", "/opt/bin/accelerate-launch", "run.py"], ["run.py"]),
        (["python3", "-m", "accelerate.commands.launch", "run.py"], ["run.py"]),
        (["python3", "/lib/accelerate/commands/launch.py", "run.py"], ["run.py"]),
        (["/bin/bash", "./launch", "all"], None),
        (["python3", "launch.py", "all"], None),
        ([], None),
        (psutil.AccessDenied(), None),
        (psutil.NoSuchProcess(1), None),
    ],
)
def test_the_launcher_is_accelerates_and_no_script_of_that_name(monkeypatch, parent, words):
    def command_line():
        if isinstance(parent, Exception):
            raise parent
        return parent

    process = SimpleNamespace(parent=lambda: SimpleNamespace(cmdline=command_line))
    monkeypatch.setattr(launch.psutil, "Process", lambda: process)
    assert launch._words_of_launcher() == words


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_two_processes_train_as_one_with_twice_the_micro_batches(launcher, alone, speech_folder, tmp_path):
    words = ["--gradient_accumulation_steps", "2"]
    assert "3 steps of 12 pairs" in start([*LAUNCHERS[launcher], "2"], speech_folder, tmp_path, *words)
    # One network, one batch: float32 sums in another order. Adam's first steps have the size of the learning rate
    # however small a gradient is, so that they enlarge that rounding. Statistics of each process alone would change
    # the first loss by a fifth, gradients of each process alone the second by a twenty-fifth.
    np.testing.assert_allclose(losses(tmp_path)[0], losses(alone)[0], rtol=1e-5)
    np.testing.assert_allclose(losses(tmp_path), losses(alone), rtol=1e-3)
    assert AutoModelForPreTraining.from_pretrained(tmp_path).num_parameters() > 0


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_launcher_of_one_process_changes_nothing(launcher, alone, speech_folder, tmp_path):
    start([*LAUNCHERS[launcher], "1"], speech_folder, tmp_path, "--gradient_accumulation_steps", "4")
    assert (tmp_path / "model.safetensors").read_bytes() == (alone / "model.safetensors").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("to_all", [False, True], ids=["SIGTERM to the launcher", "Ctrl-C"])
def test_a_run_saves_and_ends_when_its_launcher_does(to_all, speech_folder, tmp_path):
    words = [*ACCELERATE, "1", str(ROOT / "run_pretrain.py"), *TINY_RUN, "--train_dir", str(speech_folder)]
    words += ["--max_steps", "100000", "--save_steps", "0", "--output_dir", str(tmp_path)]
    launcher = subprocess.Popen(
        [sys.executable, *words], cwd=ROOT, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        wait_for(lambda: len(losses(tmp_path)) > 2)
        (run,) = (one for one in psutil.Process(launcher.pid).children() if "run_pretrain.py" in one.cmdline()[1])
        if to_all:
            os.killpg(launcher.pid, signal.SIGINT)
        else:
            launcher.terminate()
        wait_for(lambda: has_ended(run.pid))
        (checkpoint,) = tmp_path.glob("checkpoint-*")
        assert whole_checkpoint(checkpoint) == checkpoint
    finally:
        with suppress(ProcessLookupError):
            os.killpg(launcher.pid, signal.SIGKILL)
        launcher.communicate()


def has_ended(pid):
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_for(condition):
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def end_a_run(rank, results):
    tell_accelerate(rank)
    args = PretrainArguments(output_dir=os.environ["OUTPUT_DIR"], train_dir="x")
    group = torch.distributed.group.WORLD
    accelerator = launch.create_accelerator(args, "pretrain", 0)
    accelerator.end_training()
    results[rank] = torch.distributed.is_initialized(), launch.KEPT_GROUPS[-1] is group


@pytest.mark.slow
def test_a_network_is_never_the_last_owner_of_the_group_of_processes(tmp_path, monkeypatch):
    # Or else about one run in eight, on a machine with much to do, would never end.
    monkeypatch.setenv("OUTPUT_DIR", str(tmp_path))
    assert run_in_two_processes(end_a_run) == {0: (False, True), 1: (False, True)}
