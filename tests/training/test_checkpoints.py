"""Checkpoints as files that somebody else may have written, or a broken disk."""

import json
import os
import pickle
import shutil
from pathlib import Path

import pytest
from safetensors import safe_open

import run_pretrain
from mbt_speech.training.checkpoints import (
    CheckpointError,
    find_checkpoint,
    list_checkpoints,
    read_progress,
    write_progress,
)
from mbt_speech.training.run_log import LOG_NAME, append_line, read_lines, read_log


def words(speech_folder, output_dir, *more):
    return ["--train_dir", str(speech_folder), "--preset", "tiny", "--per_device_train_batch_size", "4", "--max_steps",
            "3", "--save_steps", "1", "--logging_steps", "1", "--sparsity_method", "set", "--density", "0.5",
            "--output_dir", str(output_dir), *more]  # fmt: skip


@pytest.fixture(scope="module")
def finished(speech_folder, tmp_path_factory):
    run = tmp_path_factory.mktemp("finished")
    run_pretrain.main(words(speech_folder, run))
    return run


@pytest.fixture
def run(finished, tmp_path):
    return Path(shutil.copytree(finished, tmp_path / "run"))


class Listener:
    """Stands in for an accelerator that prints."""

    said = ""

    def print(self, sentence):
        self.said += sentence


@pytest.mark.slow
def test_a_checkpoint_holds_tensors_and_json_and_no_pickle(finished):
    kinds = set()
    for path in (finished / "checkpoint-2").rglob("*"):
        kinds.add(path.suffix)
        if path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                assert file.keys()
        else:
            assert path.suffix == ".py"
    assert kinds == {".json", ".safetensors", ".py"}


class Harm:
    """Unpickling it writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.slow
def test_a_pickle_that_somebody_put_into_a_checkpoint_is_not_opened(speech_folder, finished, run, tmp_path):
    checkpoint = run / "checkpoint-2"
    for name in ("custom_checkpoint_0.pkl", "custom_checkpoint_1.pkl", "random_states_0.pkl", "optimizer.bin"):
        (checkpoint / name).write_bytes(pickle.dumps(Harm(tmp_path / "harm")))
    write_progress(checkpoint, read_progress(checkpoint))
    run_pretrain.main(words(speech_folder, run, "--resume_from_checkpoint", str(checkpoint)))
    assert not (tmp_path / "harm").exists()
    assert (run / "model.safetensors").read_bytes() == (finished / "model.safetensors").read_bytes()


def truncate(path):
    path.write_bytes(path.read_bytes()[:-9])


def zero(path):
    path.write_bytes(bytes(path.stat().st_size))


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.slow
@pytest.mark.parametrize("damage", [truncate, zero, flip, Path.unlink])
@pytest.mark.parametrize(
    "name",
    ["model.safetensors", "optimizer.safetensors", "masks.safetensors", "random_states_0.json", "progress.json"],
)
def test_a_damaged_checkpoint_is_passed_over_and_refused_by_name(run, name, damage):
    last, before = list_checkpoints(run)[::-1]
    listener = Listener()
    assert find_checkpoint(listener, run, "auto") == last
    assert listener.said == ""
    damage(last / name)
    assert find_checkpoint(listener, run, "auto") == before
    assert f"{last} " in listener.said
    assert name in listener.said
    assert "taking the one before it" in listener.said
    for checkpoint in list_checkpoints(run):
        damage(checkpoint / name) if checkpoint != last else None
    assert find_checkpoint(listener, run, "auto") is None
    assert "there is none before it, so training begins anew" in listener.said
    with pytest.raises(CheckpointError, match="name a whole checkpoint"):
        find_checkpoint(listener, run, str(last))


@pytest.mark.slow
@pytest.mark.parametrize("content", ["[]", "{}", '{"checksum": 1, "files": 3}', "null", "[" * 100_000, "\xff"])
def test_progress_that_is_something_else_is_a_fault(run, content):
    last, before = list_checkpoints(run)[::-1]
    (last / "progress.json").write_text(content, encoding="latin-1")
    assert find_checkpoint(Listener(), run, "auto") == before


@pytest.mark.slow
def test_a_checkpoint_of_another_network_ends_in_a_sentence(speech_folder, run):
    more = ["--resume_from_checkpoint", "auto", "--config_overrides", '{"hidden_sizes": [8, 12, 8]}']
    with pytest.raises(CheckpointError, match=r"cannot be resumed: its weight .* Give the arguments of the run"):
        run_pretrain.main(words(speech_folder, run, *more))


@pytest.mark.slow
def test_a_checkpoint_without_masks_ends_a_sparse_run_in_a_sentence(speech_folder, run):
    checkpoint = run / "checkpoint-2"
    (checkpoint / "masks.safetensors").unlink()
    write_progress(checkpoint, read_progress(checkpoint))
    with pytest.raises(CheckpointError, match=r"its mask .* is absent"):
        run_pretrain.main(words(speech_folder, run, "--resume_from_checkpoint", str(checkpoint)))


@pytest.mark.slow
def test_a_checkpoint_gets_its_name_once_its_content_is_on_the_disk(speech_folder, tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(
        os, "fsync", lambda number: calls.append(os.readlink(f"/proc/self/fd/{number}")) or fsync(number)
    )
    monkeypatch.setattr(os, "replace", lambda *names: calls.append(str(names[1])) or replace(*names))
    run_pretrain.main(words(speech_folder, tmp_path, "--max_steps", "2"))
    renamed = calls.index(str(tmp_path / "checkpoint-1"))
    partial = tmp_path / ".checkpoint-1.partial"
    synchronized = set(calls[:renamed])
    assert {str(partial / path.name) for path in (tmp_path / "checkpoint-1").iterdir()} <= synchronized
    assert str(partial) in synchronized
    assert str(tmp_path) in calls[renamed:]


@pytest.mark.parametrize("half", ['{"step": 2, "lo', "\0\0\0\0\0", '{"step": 2}\n\0\0', '"words"\n', "\xff\n"])
def test_a_half_written_line_is_dropped_with_a_warning(tmp_path, caplog, half):
    path = tmp_path / LOG_NAME
    path.write_bytes(b'{"step": 1}\n' + half.encode("latin-1"))
    assert [line["step"] for line in read_log(tmp_path)] == ([1, 2] if '{"step": 2}' in half else [1])
    assert f"of {path} is no line of JSON and is left out" in caplog.text
    append_line(path, {"step": 3})
    assert read_lines(path)[-1] == {"step": 3}


def test_a_log_without_its_last_line_break_loses_nothing(tmp_path, caplog):
    path = tmp_path / LOG_NAME
    path.write_text('{"step": 1}')
    append_line(path, {"step": 2})
    assert [line["step"] for line in read_log(tmp_path)] == [1, 2]
    assert not caplog.text
