"""Checkpoints from the Hub and from a folder, with and without our packages."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from safetensors.torch import save_file

from feature_extraction import MBTFeatureExtractor
from mbt_speech.training.run_log import read_log
from modeling_mbt import MBTConfig, MBTForPreTraining, MBTForSequenceClassification
from tests.support import open_checkpoint
from tests.support.hub_runs import heard_pretrain
from tests.support.models import TINY, stir
from tests.support.open_checkpoint import describe, differences

CLASSES = ["MBTModel", "MBTForPreTraining", "MBTForSequenceClassification"]
SAVED = {
    "pretrained": (MBTForPreTraining, {}),
    "predictive": (MBTForPreTraining, {"objective": "cpc", "context_size": 5}),
    "classifier": (MBTForSequenceClassification, {"num_labels": 3}),
}
# What the first version wrote, before there were sparse encoders.
FIRST_CONFIG = """{
  "architectures": ["MBTForPreTraining"], "depths": [1, 1], "dtype": "float32", "embedding_size": null,
  "frame_hidden_sizes": [12], "frequency_strides": [2, 2], "hidden_dropout_prob": 0.0, "hidden_sizes": [4, 8],
  "latent_normalization": null, "latent_normalization_strength": 1.0, "layer_type": "plain", "model_type": "mbt",
  "num_mel_bins": 16, "objective": "mbt", "objective_kwargs": {}, "pooling_mode": "mean_max",
  "projector_sizes": [10, 6], "redundancy_loss_weight": 0.005, "time_strides": [2, 1],
  "transformers_version": "5.23.0"
}"""


def write_checkpoints(folder):
    """Saves pre-trained models and a fine-tuned one whose every tensor is its own, with what they compute."""
    extractor = MBTFeatureExtractor(feature_size=16)
    waveform = 0.1 * torch.randn(16000, generator=torch.Generator().manual_seed(0))
    for name, (model_class, settings) in SAVED.items():
        model = stir(model_class(MBTConfig(**TINY, **settings)))
        save_file({**describe(model, extractor, waveform), "waveform": waveform}, folder / f"{name}.safetensors")
        model.save_pretrained(folder / name)
        extractor.save_pretrained(folder / name)


def read(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def checkpoints(hub, in_hub_process, tmp_path_factory):
    """All checkpoints in a folder and on the Hub, where the fine-tuned one is private."""
    folder = tmp_path_factory.mktemp("checkpoints")
    in_hub_process(write_checkpoints, folder)
    for name in SAVED:
        hub.add("model", f"me/{name}", read(folder / name), private=name == "classifier")
    return folder


def open_with_token(name, expected_path):
    return differences(name, expected_path, token="hf_reader")


@pytest.mark.slow
@pytest.mark.parametrize("name", SAVED)
@pytest.mark.parametrize("place", ["hub", "folder"])
def test_every_auto_class_opens_every_checkpoint_where_mbt_is_installed(checkpoints, in_hub_process, name, place):
    source = f"me/{name}" if place == "hub" else str(checkpoints / name)
    assert in_hub_process(open_with_token, source, checkpoints / f"{name}.safetensors") == ([], CLASSES)


@pytest.mark.slow
def test_every_auto_class_opens_every_checkpoint_by_its_remote_code(checkpoints, hub_environment, tmp_path):
    sources = [f"me/{name}" for name in SAVED] + [str(checkpoints / "classifier")]
    words = [(source, str(checkpoints / f"{Path(source).name}.safetensors")) for source in sources]
    script = [sys.executable, "-I", open_checkpoint.__file__, json.dumps(words)]
    environment = {**hub_environment, "HF_TOKEN": "hf_reader"}
    done = subprocess.run(script, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == 4 * [[[], CLASSES]]


@pytest.mark.slow
def test_a_checkpoint_of_the_first_version_opens_as_it_was_saved(checkpoints, hub, in_hub_process):
    files = read(checkpoints / "pretrained") | {"config.json": FIRST_CONFIG.encode()}
    hub.add("model", "me/first", {name: files[name] for name in files if not name.endswith(".py")})
    assert in_hub_process(open_with_token, "me/first", checkpoints / "pretrained.safetensors") == ([], CLASSES)


@pytest.mark.slow
@pytest.mark.parametrize("private", [False, True])
def test_pre_training_reads_a_parquet_data_set_of_the_hub(hub, in_hub_process, speech_folder, tmp_path, private):
    recordings = [{"bytes": path.read_bytes(), "path": path.name} for path in sorted(speech_folder.rglob("*.flac"))]
    Dataset.from_dict({"audio": recordings}).to_parquet(tmp_path / "train.parquet")
    name = f"me/speech-{'private' if private else 'public'}"
    parquet = (tmp_path / "train.parquet").read_bytes()
    hub.add("dataset", name, {"data/train-00000-of-00001.parquet": parquet}, private=private)
    words = ["--dataset_name", name, "--per_device_train_batch_size", "4", *(["--hub_token", "hf_reader"] * private)]
    in_hub_process(heard_pretrain, tmp_path / "run", *words)
    assert [line["step"] for line in read_log(tmp_path / "run")] == [1, 2, 3, 4]
    assert not any(b"hf_reader" in content for content in read(tmp_path / "run").values())
