"""What `mbt embed`, `predict` and `verify` answer to bad recordings, damaged models and wrong words."""

import shutil

import numpy as np
import pytest
import soundfile as sf
import torch
from safetensors.torch import load_file, save_file

from mbt_speech.__main__ import main
from tests.support.embeddings import files_in
from tests.support.sounds import SAMPLING_RATE, chirp


@pytest.fixture
def with_bad_ones(tmp_path):
    """A folder whose first file is none, by its header, and whose last one holds NaN, which only its samples tell."""
    (tmp_path / "a.wav").write_text("no sound")
    for name, seconds in (("b.wav", 0.6), ("c.wav", 0.7)):
        sf.write(tmp_path / name, chirp(seconds, 150, 0), SAMPLING_RATE)
    sf.write(tmp_path / "d.wav", np.full(9_000, np.nan, np.float32), SAMPLING_RATE, subtype="FLOAT")
    return tmp_path


def refused(words, capsys):
    """Runs what must be refused; returns the last line on stderr."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main(list(map(str, words)))
    assert end.value.code == 2
    err = capsys.readouterr().err
    assert "Traceback" not in err
    return err.splitlines()[-1]


def test_a_bad_header_is_found_before_the_model_is_opened(with_bad_ones, tmp_path, capsys):
    words = ["embed", tmp_path / "no model", with_bad_ones, "--output", tmp_path / "e.npz"]
    assert "a.wav is not audio" in refused(words, capsys)


def test_damage_that_shows_later_costs_nothing_but_its_own_recording(encoder, with_bad_ones, tmp_path, capsys):
    (with_bad_ones / "a.wav").unlink()
    words = ["embed", encoder, with_bad_ones, "--output", tmp_path / "e.npz"]
    assert (
        refused(words, capsys)
        == f"1 recording is bad, as said above, and left out; {tmp_path / 'e.npz'} holds all others."
    )
    assert files_in(tmp_path / "e.npz") == ["b.wav", "c.wav"]


def test_what_is_skipped_is_named_and_counted(encoder, with_bad_ones, tmp_path, capsys):
    main(["embed", str(encoder), str(with_bad_ones), "--output", str(tmp_path / "e.npz"), "--on_bad_audio", "skip"])
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if "a.wav is not audio" in line]
    assert [line for line in lines if "d.wav holds NaN samples" in line]
    assert lines[-1] == "2 recordings are bad, as said above, and left out."
    assert files_in(tmp_path / "e.npz") == ["b.wav", "c.wav"]


@pytest.mark.parametrize("command", ["embed", "predict"])
@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("e.txt", "must end in"),
        ("no/folder/e.csv", "does not exist"),
        ("folder.csv", "is a folder"),
        ("/proc/e.csv", "cannot be written"),
    ],
)
def test_the_output_is_checked_before_the_work(command, output, message, tmp_path, capsys):
    (tmp_path / "folder.csv").mkdir()
    words = [command, tmp_path / "no model", tmp_path / "no file.wav", "--output", tmp_path / output]
    assert message in refused(words, capsys)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["embed", "{model}", "{empty}", "--output", "{empty}/e.npz"], "no sound files"),
        (["embed", "{empty}/nowhere", "{file}", "--output", "{empty}/e.npz"], "There is no model folder"),
        (["embed", "runs/nowhere", "{file}", "--output", "{empty}/e.npz"], "There is no model folder runs/nowhere"),
        (["embed", "nowhere", "{file}", "--output", "{empty}/e.npz"], "There is no model folder nowhere"),
        (["embed", "{empty}", "{file}", "--output", "{empty}/e.npz"], "holds no model: it has no config.json"),
        (["embed", "{file}", "{file}", "--output", "{empty}/e.npz"], "is a file: name the folder"),
        (["embed", "{model}", "{empty}/no.wav", "--output", "{empty}/e.npz"], "no.wav does not exist"),
        (["embed", "{model}", "{file}", "--output", "{empty}/e.npz", "--batch_size", "0"], "at least 1"),
        (["embed", "{model}", "{file}", "--output", "{empty}/e.npz", "--window_seconds", "nan"], "between 0.1 and"),
        (["embed", "{model}", "{file}", "--output", "{empty}/e.npz", "--device", "tpu"], "--device cpu"),
        (["predict", "{model}", "{file}"], "holds an encoder and no classifier"),
        (["predict", "{model}", "{file}", "--top_k", "-1"], "at least 1"),
        (["verify", "{model}", "--trials", "{file}"], "is no text"),
        (["verify", "{model}", "{file}", "--trials", "{file}"], "two sound files, or takes --trials"),
        (["verify", "{model}", "{file}", "{file}", "--save_threshold"], "belong to --trials"),
        (["verify", "{model}", "{file}", "{file}", "--trials_dir", "{empty}"], "belong to --trials"),
        (["verify", "{model}", "--trials", "{file}", "--threshold", "0.3"], "--threshold is for two sound files"),
    ],
)
def test_mistakes_are_answered_in_a_sentence(encoder, speech_folder, tmp_path, capsys, words, message):
    values = {"model": encoder, "empty": tmp_path, "file": speech_folder / "low" / "00.wav"}
    assert message in refused([word.format(**values) for word in words], capsys)


def damaged(model, folder, change):
    """Copies a model with other tensors."""
    shutil.copytree(model, folder)
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_a_model_whose_classifier_was_not_trained_classifies_nothing(classifier, speech_folder, tmp_path, capsys):
    folder = damaged(classifier, tmp_path / "m", lambda tensors: tensors.pop("classifier.weight"))
    message = refused(["predict", folder, speech_folder / "low" / "00.wav"], capsys)
    assert "lacks the weights of classifier.weight, which would be random numbers" in message


def test_weights_that_do_not_fit_their_config_are_refused(encoder, speech_folder, tmp_path, capsys):
    def widen(tensors):
        name = next(name for name in tensors if name.endswith("convolution.weight"))
        tensors[name] = torch.zeros(3, 1, 3, 3)

    words = [damaged(encoder, tmp_path / "m", widen), speech_folder / "low" / "00.wav", "--output", tmp_path / "e.npz"]
    assert "m cannot be opened: You set `ignore_mismatched_sizes`" in refused(["embed", *words], capsys)
    (tmp_path / "m" / "model.safetensors").write_bytes(b"half a file")
    assert "m cannot be opened: " in refused(["embed", *words], capsys)
    (tmp_path / "m" / "config.json").write_text('{"model_type": "mbt", "hidden_sizes": "many"}')
    assert "Field 'hidden_sizes' expected a list" in refused(["embed", *words], capsys)
    (tmp_path / "m" / "config.json").write_text("[]")
    assert "config.json is damaged" in refused(["embed", *words], capsys)


def test_nothing_of_the_loading_is_told(encoder, speech_folder, tmp_path, capfd):
    damaged(encoder, tmp_path / "m", lambda tensors: tensors.update(unknown=torch.zeros(3)))
    words = ["embed", str(tmp_path / "m"), str(speech_folder / "low" / "00.wav"), "--output", str(tmp_path / "e.npz")]
    main(words)
    out, err = capfd.readouterr()
    assert out.startswith("1 embeddings of")
    assert err == ""
