"""The examples run as they are: the notebook in a kernel of its own, the script on a folder of sounds."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from modeling_mbt import MBTForPreTraining, MBTForSequenceClassification

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
NOTEBOOK = EXAMPLES / "quickstart.ipynb"


def test_the_notebook_is_small_and_without_errors_and_names_of_this_machine():
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert len(text) < 200_000
    for cell in nbformat.reads(text, as_version=4).cells:
        assert not [output for output in cell.get("outputs", []) if output.output_type == "error"]
        assert not [output for output in cell.get("outputs", []) if output.get("name") == "stderr"]
    assert "/home/" not in text
    assert "/tmp/" not in text


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning:jupyter_client")
def test_the_notebook_runs_to_its_table(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(EXAMPLES.parent))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert any("NUM_STEPS = 60\n" in cell.source for cell in notebook.cells)
    for cell in notebook.cells:
        cell.source = cell.source.replace("NUM_STEPS = 60\n", "NUM_STEPS = 3\n")
    NotebookClient(notebook, kernel_name="python3", timeout=300, resources={"metadata": {"path": tmp_path}}).execute()
    (table,) = (output.data["text/plain"] for output in notebook.cells[-2].outputs)
    for row in ("chance", "random", "bt", "mbt", "log-mel statistics"):
        assert row in table


@pytest.mark.slow
def test_the_trainer_pretrains_and_fine_tunes(speech_folder, tmp_path):
    command = [sys.executable, "-W", "error::FutureWarning", str(EXAMPLES / "trainer.py"), str(speech_folder)]
    options = ["--preset", "tiny", "--max_steps", "40", "--batch_size", "8", "--output_dir", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLES.parent)}
    done = subprocess.run([*command, *options], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    losses = [float(line.split("'")[3]) for line in done.stdout.splitlines() if line.startswith("{'loss'")]
    assert len(losses) == 8
    assert losses[3] < losses[0]
    assert losses[7] < losses[4]
    assert float(done.stdout.split("accuracy ")[1].split()[0]) >= 0.8  # two chirps an octave apart
    encoder = MBTForPreTraining.from_pretrained(tmp_path / "encoder")
    classifier = MBTForSequenceClassification.from_pretrained(tmp_path / "classifier")
    assert encoder.config.objective == "mbt"
    assert classifier.config.id2label == {0: "high", 1: "low"}
