"""Signals to the commands that run others: one line, no process left, and the next call goes on.

The command is a process of its own, as in a terminal.
"""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil
import pytest
import yaml

import run_pretrain
from mbt_speech.stopping import Stopped, stops_in_one_line

ROOT = Path(run_pretrain.__file__).parent
PATIENCE_SECONDS = 600
MARK = "MBT_TEST_OF_STOPPING"


@pytest.fixture
def recipe(speech_folder, tmp_path):
    """An ablation of two encoders and one task."""
    shared = {"train_dir": str(speech_folder), "preset": "tiny"}
    values = {
        "title": "A small one",
        "axis": "redundancy_loss_weight",
        "vary": {"redundancy_loss_weight": [0.005, 0.01]},
        "pretrain": shared | {"max_steps": 60, "per_device_train_batch_size": 8, "logging_steps": 1},
        "finetune": shared | {"seed": list(range(3))},
        "tasks": {"label": None},
        "controls": ["random", "stats"],
    }
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


class Ablation:
    """An ablation under way; its words go to a file."""

    def __init__(self, recipe, folder, number):
        self.folder, self.output = folder, folder.parent / f"{number}.txt"
        words = [sys.executable, "-m", "mbt_speech", "ablation", str(recipe), "--output_dir", str(folder)]
        with self.output.open("w") as file:
            variables = {**os.environ, MARK: str(folder), "PYTHONUNBUFFERED": "1"}
            self.process = subprocess.Popen(
                words,
                cwd=ROOT,
                stdout=file,
                stderr=file,
                env=variables,
                preexec_fn=partial(
                    signal.signal, signal.SIGINT, signal.SIG_DFL
                ),  # a shell's background jobs ignore it
            )

    def said(self) -> str:
        return self.output.read_text()

    def wait_for(self, condition) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition(self):
            assert time.monotonic() < deadline, self.said()
            assert self.process.poll() is None, self.said()
            time.sleep(0.005)


def processes_of(folder) -> list[psutil.Process]:
    """The ablation of a folder and all that it has started."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(MARK) == str(folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def steps_of_first_encoder(run) -> int:
    logs = sorted(run.folder.glob("encoders/*/train_log.jsonl"))
    return len(logs[0].read_text().splitlines()) if logs else 0


MOMENTS = {
    "at its start": (lambda run: True, signal.SIGINT),
    "imports": (lambda run: "$ python run_pretrain.py" in run.said(), signal.SIGTERM),
    "training": (lambda run: steps_of_first_encoder(run) > 3, signal.SIGINT),
    "pictures": (lambda run: list(run.folder.glob("encoders/*/model.safetensors")), signal.SIGTERM),
    "classifiers": (lambda run: "Classifying label" in run.said(), signal.SIGINT),
}


@pytest.fixture
def folder(tmp_path):
    """The results of an ablation, all of whose processes end with the test."""
    yield tmp_path / "out"
    for process in processes_of(tmp_path / "out"):
        process.kill()


@pytest.mark.slow
def test_an_ablation_ends_in_one_line_in_every_phase_and_goes_on(recipe, folder):
    for moment, (condition, number) in MOMENTS.items():
        run = Ablation(recipe, folder, moment)
        run.wait_for(condition)
        run.process.send_signal(number)
        code, lines = run.process.wait(PATIENCE_SECONDS), run.said().splitlines()
        assert "Traceback" not in run.said(), moment
        assert not processes_of(folder), moment
        if moment != "at its start":  # which may be before Python has begun to run
            assert code == 128 + number, moment
            assert lines[-1] == f"Stopped by {number.name}. Call the same command again to go on from there.", moment
            assert run.said().count("Stopped by") <= 2, moment  # with the one of training
        steps = steps_of_first_encoder(run)
        assert steps == 60 or moment not in ("pictures", "classifiers")
    assert 3 < steps <= 60
    last = Ablation(recipe, folder, "last")
    assert last.process.wait(PATIENCE_SECONDS) == 0, last.said()
    assert (folder / "results.md").is_file()
    assert not processes_of(folder)


def test_the_line_says_which_signal_it_was_and_handlers_come_back(capsys):
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with pytest.raises(SystemExit) as end, stops_in_one_line():
        signal.raise_signal(signal.SIGTERM)
    assert end.value.code == 143
    assert capsys.readouterr().err == "Stopped by SIGTERM.\n"
    assert {number: signal.getsignal(number) for number in before} == before
    assert issubclass(Stopped, KeyboardInterrupt)


def test_a_signal_in_the_import_of_a_compiled_module_is_told_as_what_it_is(capsys):
    def import_it():
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt as stopped:
            raise ImportError("initialization failed") from stopped  # as pybind11 does

    with pytest.raises(SystemExit) as end, stops_in_one_line():
        import_it()
    assert end.value.code == 143
    assert capsys.readouterr().err == "Stopped by SIGTERM.\n"


def test_a_signal_in_a_callback_is_not_lost(capsys):
    class Callback:
        def __del__(self):
            signal.raise_signal(signal.SIGTERM)

    def drop_it_and_wait():
        Callback()
        time.sleep(10)

    with pytest.raises(SystemExit) as end, stops_in_one_line():
        drop_it_and_wait()
    assert end.value.code == 143
    assert capsys.readouterr().err == "Stopped by SIGTERM.\n"
