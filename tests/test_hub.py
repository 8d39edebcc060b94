"""Uploading a finished run."""

from types import SimpleNamespace

import pytest

from run_pretrain import PretrainArguments
from training_mbt import hub


@pytest.fixture
def args(tmp_path):
    (tmp_path / "run").mkdir()
    return PretrainArguments(
        output_dir=str(tmp_path / "run"),
        train_dir="x",
        push_to_hub=True,
        hub_model_id="me/model",
        hub_private_repo=True,
    )


def test_the_run_is_uploaded_without_checkpoints_and_file_names_of_recordings(args, monkeypatch, capsys):
    calls = []

    class Api:
        def create_repo(self, repository, **kwargs):
            calls.append((repository, kwargs))
            return SimpleNamespace(repo_id=repository)

        def upload_folder(self, **kwargs):
            calls.append(kwargs)

    monkeypatch.setattr(hub, "HfApi", Api)
    hub.push_to_hub(args)
    assert calls[0] == ("me/model", {"private": True, "exist_ok": True})
    assert calls[1]["folder_path"] == args.output_dir
    assert {"checkpoint-*", "bad_audio.txt"} <= set(calls[1]["ignore_patterns"])
    assert "Uploaded" in capsys.readouterr().out


def test_without_a_network_the_run_ends_well_and_says_how_to_push_later(args, capsys):
    hub.push_to_hub(args)
    assert f"hf upload me/model {args.output_dir}" in capsys.readouterr().err


def test_nothing_is_uploaded_unless_asked(args, monkeypatch):
    monkeypatch.setattr(hub, "HfApi", None)
    args.push_to_hub = False
    hub.push_to_hub(args)
