"""Uploads beside the training and after it, to a Hub on the loopback address that is not always well."""

import json
import shlex
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from mbt_speech.arguments import PretrainArguments
from mbt_speech.training import hub_uploads as uploads
from modeling_mbt.modeling_mbt import AUTO_MAP
from tests.support.hub_runs import heard, heard_finetune, heard_pretrain
from tests.support.hub_server import Fault

MODEL = {"config.json", "model.safetensors", "preprocessor_config.json", "configuration_mbt.py", "modeling_mbt.py",
         "encoder_mbt.py", "objectives_mbt.py", "alternatives_mbt.py", "normalizations_mbt.py",
         "named_objectives_mbt.py", "distributed_mbt.py", "cpc_mbt.py", "pooling_mbt.py",
         "projector_mbt.py", "feature_extraction_mbt.py", "spectrogram_mbt.py"}  # fmt: skip
PUSH = ["--push_to_hub", "--hub_token", "hf_writer", "--hub_model_id"]
MAIN = SimpleNamespace(is_main_process=True)


def arguments(output_dir, **changed):
    given = {"push_to_hub": True, "hub_model_id": "me/model", "hub_token": "hf_writer", **changed}
    return PretrainArguments(output_dir=str(output_dir), train_dir="x", **given)


def push(output_dir, changed):
    """Uploads a folder at the end of a run; returns what is printed and the seconds."""
    with heard() as text:
        start = time.monotonic()
        uploads.HubUploads(arguments(output_dir, **changed), MAIN).finish()
        return text.getvalue(), time.monotonic() - start


def stop_while_the_hub_says_to_wait(output_dir, changed):
    """Pushes more checkpoints than may wait, then is told to stop; returns seconds, both snapshots, words."""
    uploads.STOP_SECONDS = 0.2
    with heard() as text:
        run = uploads.HubUploads(arguments(output_dir, hub_strategy="every_save", **changed), MAIN)
        for _ in range(2 * uploads.MAX_WAITING):
            run.push_checkpoint(output_dir / "checkpoint-1")
        before, start = len(list(output_dir.glob(".upload-*"))), time.monotonic()
        run.give_up()
        return time.monotonic() - start, before, len(list(output_dir.glob(".upload-*"))), text.getvalue()


@pytest.fixture
def run(tmp_path):
    """What a run leaves, of which some must not be uploaded."""
    for name in ("model.safetensors", "README.md", "train_log.jsonl", "bad_audio.txt", ".checkpoint-3.partial/masks",
                 "checkpoint-1/masks.safetensors", "checkpoint-1/model.safetensors", "runs/a/checkpoint-2/masks",
                 "runs/a/train_log.jsonl", "pretrain/events.out.tfevents.1"):  # fmt: skip
        path = tmp_path / "my run" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"\0" * 100_000 + name.encode())
    (tmp_path / "my run" / "README.md").write_text("---\nlicense: mit\n---\n")
    return tmp_path / "my run"


UPLOADED = {"model.safetensors", "README.md", "train_log.jsonl", "runs/a/train_log.jsonl"}


@pytest.fixture
def name(hub):
    """A new repository, and no faults but those of the test."""
    for kept in (hub.faults, hub.requests, hub.blobs):
        kept.clear()
    yield f"me/model-{len(hub.repositories)}"
    hub.faults.clear()


@pytest.mark.slow
def test_every_checkpoint_reaches_the_hub_while_training_goes_on(hub, in_hub_process, name, speech_folder, tmp_path):
    # The first upload waits a second: by then training is over, and checkpoint-1 deleted.
    hub.faults.append(Fault("preupload", status=503))
    words = ["--train_dir", speech_folder, "--save_steps", "1", "--save_total_limit", "1", *PUSH, name]
    words += ["--hub_strategy", "every_save", "--hub_private_repo"]
    text = in_hub_process(heard_pretrain, tmp_path / "run", *words)
    repository = hub.repositories[f"models/{name}"]
    assert repository.private
    messages = [message for message, _ in repository.commits[1:]]
    assert messages == [*(f"Model of checkpoint-{step}" for step in (1, 2, 3)), "Upload MBT model"]
    assert all(set(files) == MODEL for _, files in repository.commits[1:4])
    configs = [json.loads(files["config.json"][0]) for _, files in repository.commits[1:]]
    assert all(config["auto_map"] == AUTO_MAP for config in configs)
    assert all(config["architectures"] == ["MBTForPreTraining"] for config in configs)
    assert len({files["model.safetensors"] for _, files in repository.commits[1:]}) == 4
    assert str(tmp_path).encode() not in repository.files["recipe.yaml"]
    files = set(repository.files) - {"recipe.yaml"}
    assert all(repository.files[file] == (tmp_path / "run" / file).read_bytes() for file in files)
    assert {*MODEL, "README.md", "recipe.yaml", "loss.png"} < set(repository.files)
    assert [path.name for path in (tmp_path / "run").glob("*checkpoint-*")] == ["checkpoint-3"]
    assert not list((tmp_path / "run").glob(".upload-*"))
    assert "Uploaded to" in text
    written = [path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert not any(b"hf_writer" in content for content in (text.encode(), *written))
    words = ["--train_dir", speech_folder, "--save_steps", "2", "--hub_strategy", "every_save"]
    few = ["--label_fraction", "0.3"]  # with which the probe is kept
    in_hub_process(heard_finetune, tmp_path / "tuned", name, *words, *few, *PUSH, f"{name}-tuned")
    commits = hub.repositories[f"models/{name}-tuned"].commits
    assert [message for message, _ in commits[1:]] == ["Upload MBT model"]
    assert set(commits[-1][1]) > MODEL
    assert b"hf_writer" not in (tmp_path / "tuned" / "recipe.yaml").read_bytes()
    words += ["--supervised_learning_rates", "1e-3"]
    in_hub_process(heard_finetune, tmp_path / "new", "supervised", *words, *PUSH, f"{name}-new")
    messages = [message for message, _ in hub.repositories[f"models/{name}-new"].commits[1:]]
    assert messages == ["Model of checkpoint-2", "Upload MBT model"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault",
    [
        Fault("/commit/"),
        Fault("/commit/", after=True),
        Fault("/repos/create", times=3),
        Fault("PUT /lfs/"),
        Fault("/commit/", status=503, times=2),
        Fault("/preupload/", status=500),
    ],
    ids=lambda fault: f"{fault.status or ('answer lost' if fault.after else 'dropped')} {fault.pattern}",
)
def test_a_fault_that_passes_leaves_one_commit_of_what_may_be_shown(hub, in_hub_process, name, run, fault):
    hub.faults.append(fault)
    text, _ = in_hub_process(push, run, {"hub_model_id": name})
    assert fault.times == 0
    assert "Uploaded to" in text
    assert len(hub.repositories[f"models/{name}"].commits) == 2
    assert set(hub.repositories[f"models/{name}"].files) == UPLOADED


@pytest.mark.slow
def test_too_many_requests_are_followed_by_the_wait_that_the_hub_asks_for(hub, in_hub_process, name, run):
    hub.faults.append(Fault("/commit/", status=429, retry_after=1))
    text, seconds = in_hub_process(push, run, {"hub_model_id": name})
    assert "Uploaded to" in text
    assert seconds > 1


@pytest.mark.parametrize(
    ("token", "reason"), [("hf_expired_secret", "does not know the token"), ("hf_reader", "may not do this")]
)
def test_a_refused_token_is_not_tried_again_nor_told(hub, in_hub_process, name, run, token, reason):
    text, _ = in_hub_process(push, run, {"hub_model_id": name, "hub_token": token})
    assert text.count(reason) == 2  # at the start, and at the end
    assert hub.requests["POST /api/repos/create"] == 2
    assert "hf upload" in text
    assert token not in text


@pytest.mark.slow
def test_a_hub_that_stays_away_is_given_up_with_the_command_for_later(hub, in_hub_process, hub_environment, name, run):
    hub.faults.append(Fault("/commit/", status=502, times=99))
    text, _ = in_hub_process(push, run, {"hub_model_id": name, "hub_private_repo": True})
    hub.faults.clear()
    assert len(hub.repositories[f"models/{name}"].commits) == 1
    (sentence,) = [line for line in text.splitlines() if "failed" in line]
    assert "the Hub answered 502 Bad Gateway" in sentence
    command, *words = shlex.split(sentence.split("push it later with: ")[1])
    done = subprocess.run(
        [str(Path(sys.executable).parent / command), *words], env={**hub_environment, "HF_TOKEN": "hf_writer"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert set(hub.repositories[f"models/{name}"].files) == UPLOADED


def test_a_run_that_is_told_to_stop_does_not_wait_for_the_hub(hub, in_hub_process, name, run):
    hub.faults.append(Fault("/repos/create", status=429, retry_after=30, times=99))
    found = in_hub_process(stop_while_the_hub_says_to_wait, run, {"hub_model_id": name})
    seconds, before, after, text = found
    assert seconds < 20  # the Hub says to wait for 30
    assert before <= uploads.MAX_WAITING + 1
    assert after == 0
    assert "Not every checkpoint has reached" in text


def push_to_a_hub_that_is_slow(output_dir, changed):
    uploads.FINISH_SECONDS = 0.3
    try:
        return push(output_dir, changed)
    finally:
        uploads.FINISH_SECONDS = 1_800.0


def test_a_run_does_not_wait_longer_at_its_end_than_the_limit(hub, in_hub_process, name, run):
    hub.faults.append(Fault("/commit/", status=429, retry_after=30, times=99))
    text, seconds = in_hub_process(push_to_a_hub_that_is_slow, run, {"hub_model_id": name})
    assert seconds < 20  # the Hub says to wait for 30
    assert "has not ended within" in text
    assert f"hf upload {name}" in text
    assert not list(run.glob(".upload-*"))


@pytest.mark.parametrize(("wanted", "is_main_process"), [(False, True), (True, False)])
def test_nothing_is_uploaded_unless_asked_and_by_no_other_process(run, monkeypatch, wanted, is_main_process):
    monkeypatch.setattr(uploads, "HfApi", None)
    off = uploads.HubUploads(arguments(run, push_to_hub=wanted), SimpleNamespace(is_main_process=is_main_process))
    off.push_checkpoint(run / "checkpoint-1")
    off.give_up()
    off.finish()


def test_a_token_in_an_error_is_not_told(run):
    run = uploads.HubUploads(arguments(run, push_to_hub=False, hub_token="hf_secret"), MAIN)
    assert run._reason(RuntimeError("no route\nfor hf_secret.")) == "RuntimeError: no route for ***"
    assert "hf_secret" not in repr(run.args)
