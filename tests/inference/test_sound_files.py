"""`mbt embed`, `predict` and `verify` on files and folders."""

import csv
import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
import torch
from transformers import pipeline

from feature_extraction import MBTFeatureExtractor, to_waveform
from mbt_speech.__main__ import main
from mbt_speech.inference import sound_files
from mbt_speech.inference.output_files import write_table
from mbt_speech.inference.sound_files import Recognizer, find_recordings
from mbt_speech.inference.speech_encoder import SpeechClassifier, SpeechEncoder
from modeling_mbt import MBTConfig, MBTForPreTraining, MBTForSequenceClassification, MBTModel
from tests.support.embeddings import files_in
from tests.support.sounds import SAMPLING_RATE, chirp


def embed_one(encoder, file):
    extractor = MBTFeatureExtractor.from_pretrained(encoder)
    inputs = extractor(to_waveform(file), sampling_rate=16000, return_tensors="pt")
    with torch.no_grad():
        return MBTModel.from_pretrained(encoder).eval()(**inputs).pooler_output[0].numpy()


@pytest.mark.parametrize("read_ahead_seconds", [4.0, 600.0])
def test_a_folder_is_embedded_in_batches_as_each_file_is_alone(
    encoder, speech_folder, tmp_path, monkeypatch, read_ahead_seconds
):
    monkeypatch.setattr(sound_files, "READ_AHEAD_SECONDS", read_ahead_seconds)
    main(["embed", str(encoder), str(speech_folder), "--output", str(tmp_path / "e.npz"), "--batch_size", "5"])
    with np.load(tmp_path / "e.npz") as saved:
        files, embeddings = saved["files"].tolist(), saved["embeddings"]
    assert files == [str(file) for file in find_recordings([speech_folder])]
    assert len(files) == 24
    for file, embedding in zip(files, embeddings, strict=True):
        np.testing.assert_allclose(embedding, embed_one(encoder, file), atol=1e-4)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_tables_hold_the_same_numbers(encoder, speech_folder, tmp_path, suffix):
    files = [str(speech_folder / "low" / name) for name in ("00.wav", "01.flac", "02.mp3", "03.ogg")]
    output = tmp_path / f"e.{suffix}"
    main(["embed", str(encoder), *files, "--output", str(output)])
    table = pd.read_csv(output) if suffix == "csv" else pd.read_parquet(output)
    assert table["file"].tolist() == files
    np.testing.assert_allclose(table.to_numpy()[2, 1:].astype(float), embed_one(encoder, files[2]), atol=1e-4)


def test_predictions_have_the_form_and_values_of_the_pipeline(classifier, speech_folder, tmp_path, capsys):
    files = [speech_folder / "high" / "01.flac", speech_folder / "low" / "02.mp3"]
    main(["predict", str(classifier), *map(str, files), "--top_k", "2"])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    classify = pipeline("audio-classification", model=str(classifier))
    for line, file in zip(lines, files, strict=True):
        assert line["file"] == str(file)
        expected = classify(to_waveform(file), top_k=2)
        assert [set(one) for one in line["predictions"]] == [set(one) for one in expected]
        assert [one["label"] for one in line["predictions"]] == [one["label"] for one in expected]
        np.testing.assert_allclose(
            [one["score"] for one in line["predictions"]], [one["score"] for one in expected], atol=1e-5
        )
    main(["predict", str(classifier), *map(str, files), "--output", str(tmp_path / "p.csv")])
    with (tmp_path / "p.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 3
    assert sum(float(row["score"]) for row in rows[:3]) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("problem_type", ["multi_label_classification", "regression"])
def test_scores_are_the_pipelines_for_every_problem_type(classifier, speech_folder, tmp_path, problem_type):
    file, model = speech_folder / "low" / "02.mp3", MBTForSequenceClassification.from_pretrained(classifier)
    model.config.problem_type = problem_type
    model.save_pretrained(tmp_path)
    MBTFeatureExtractor.from_pretrained(classifier).save_pretrained(tmp_path)
    _, (found,) = Recognizer(SpeechClassifier.from_pretrained(tmp_path)).predict([file])
    activation = "sigmoid" if problem_type.startswith("multi") else "none"
    classify = pipeline("audio-classification", model=str(tmp_path))
    expected = classify(to_waveform(file), function_to_apply=activation)
    assert [one["label"] for one in found] == [one["label"] for one in expected]
    np.testing.assert_allclose([one["score"] for one in found], [one["score"] for one in expected], atol=1e-5)


def test_two_recordings_are_compared_at_the_threshold_of_trials(encoder, speech_folder, tmp_path, capsys):
    lines = []
    for number in range(1, 6):
        for label, other in (("low", "high"), ("high", "low")):
            name = next((speech_folder / label).glob(f"{number:02d}.*")).name
            lines += [f"1 {label}/{name} {label}/00.wav", f"0 {label}/{name} {other}/00.wav"]
    (tmp_path / "trials.txt").write_text("\n".join(lines))
    model = MBTForPreTraining.from_pretrained(encoder)
    model.save_pretrained(tmp_path / "model")
    MBTFeatureExtractor.from_pretrained(encoder).save_pretrained(tmp_path / "model")
    pair = [str(speech_folder / "low" / "00.wav"), str(speech_folder / "high" / "00.wav")]
    main(["verify", str(tmp_path / "model"), *pair])
    out, err = capsys.readouterr()
    assert json.loads(out)["same_speaker"] is None
    assert "--threshold" in err
    words = ["--trials", str(tmp_path / "trials.txt"), "--trials_dir", str(speech_folder), "--save_threshold"]
    main(["verify", str(tmp_path / "model"), *words])
    result = json.loads(capsys.readouterr().out)
    assert result["trials"] == 20
    assert 0 <= result["eer"] <= 0.5
    assert MBTConfig.from_pretrained(tmp_path / "model").verification_threshold == pytest.approx(result["threshold"])
    main(["verify", str(tmp_path / "model"), pair[0], pair[0]])
    same = json.loads(capsys.readouterr().out)
    assert same["score"] == pytest.approx(1, abs=1e-5)
    assert same["same_speaker"] is True
    main(["verify", str(tmp_path / "model"), *pair, "--threshold", "1.1"])
    assert json.loads(capsys.readouterr().out)["same_speaker"] is False
    assert MBTForPreTraining.from_pretrained(tmp_path / "model").config.auto_map == model.config.auto_map


def test_a_long_recording_is_the_mean_of_its_windows(encoder, tmp_path):
    waveform = np.concatenate([chirp(0.5, hertz, 1) for hertz in (120, 200, 320, 150, 260)])  # 2.5 s
    sf.write(tmp_path / "long.wav", waveform, SAMPLING_RATE, subtype="FLOAT")
    sf.write(tmp_path / "short.wav", waveform[:16_000], SAMPLING_RATE, subtype="FLOAT")
    words = ["embed", str(encoder), str(tmp_path), "--window_seconds", "1", "--batch_size", "2"]
    main([*words, "--output", str(tmp_path / "mean.npz")])
    main([*words, "--output", str(tmp_path / "each.csv"), "--each_window"])
    table = pd.read_csv(tmp_path / "each.csv")
    assert [Path(file).name for file in table["file"]] == ["long.wav"] * 3 + ["short.wav"]
    np.testing.assert_allclose(table["start_seconds"], [0, 2.5 / 3, 5 / 3, 0], atol=1e-4)
    np.testing.assert_allclose(table["end_seconds"], [2.5 / 3, 5 / 3, 2.5, 1], atol=1e-4)
    rows = table.filter(like="embedding_").to_numpy()
    for row, (start, end) in enumerate(zip(table["start_seconds"], table["end_seconds"], strict=True)):
        piece = waveform[round(start * SAMPLING_RATE) : round(end * SAMPLING_RATE)]
        sf.write(tmp_path / "piece.wav", piece, SAMPLING_RATE, subtype="FLOAT")
        np.testing.assert_allclose(rows[row], embed_one(encoder, tmp_path / "piece.wav"), atol=1e-4)
    with np.load(tmp_path / "mean.npz") as saved:
        np.testing.assert_allclose(saved["embeddings"], [rows[:3].mean(0), rows[3]], atol=1e-5)


@pytest.mark.parametrize("seconds", [0.33333, 1 / 3, 0.3, 0.271828])
def test_windows_of_any_length_cover_the_whole_recording(encoder, tmp_path, seconds):
    sf.write(tmp_path / "long.wav", chirp(3.0, 150, 0), SAMPLING_RATE)
    recognizer = Recognizer(SpeechEncoder.from_pretrained(encoder), window_seconds=seconds)
    windows = recognizer.embed_windows([tmp_path / "long.wav"])
    assert len(windows.starts) == -(-3 * SAMPLING_RATE // round(seconds * SAMPLING_RATE))
    assert (windows.starts[0], windows.ends[-1]) == (0.0, 3.0)
    np.testing.assert_array_equal(windows.starts[1:], windows.ends[:-1])


def test_windows_whose_halves_hold_no_frame_are_refused(encoder):
    speech = SpeechEncoder.from_pretrained(encoder)
    with pytest.raises(ValueError, match=r"windows of at least 0\.05 seconds, not of 0\.04"):
        Recognizer(speech, window_seconds=0.04)


def test_files_below_a_folder_are_found_through_links_and_hidden_ones_are_not(tmp_path):
    for name in ("real/a.wav", "real/._a.wav", "other/b.wav", ".hidden/c.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "real" / "linked").symlink_to(tmp_path / "other")
    (tmp_path / "real" / "broken.wav").symlink_to(tmp_path / "gone.wav")
    found = find_recordings([tmp_path / "real"])
    assert found == [tmp_path / "real" / "a.wav", tmp_path / "real" / "linked" / "b.wav"]


def test_the_probabilities_of_a_long_recording_are_the_mean_of_its_windows(classifier, tmp_path, capsys):
    sf.write(tmp_path / "long.wav", np.concatenate([chirp(0.8, 120, 0), chirp(0.8, 310, 0)]), SAMPLING_RATE)
    words = ["predict", str(classifier), str(tmp_path / "long.wav"), "--window_seconds", "0.8"]
    main([*words, "--each_window"])
    main(words)
    *windows, mean = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["start_seconds"], line["end_seconds"]) for line in windows] == [(0.0, 0.8), (0.8, 1.6)]
    of_each = [{one["label"]: one["score"] for one in line["predictions"]} for line in windows]
    for one in mean["predictions"]:
        assert one["score"] == pytest.approx((of_each[0][one["label"]] + of_each[1][one["label"]]) / 2, abs=1e-6)


def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch):
    (tmp_path / "e.csv").write_text("before")

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ValueError, match=r"e\.csv cannot be written: No space left on device"):
        write_table(tmp_path / "e.csv", [{"a": 1}])
    assert [path.read_text() for path in tmp_path.iterdir()] == ["before"]


def test_names_that_are_not_utf_8_or_span_lines_are_written(encoder, tmp_path):
    folder = tmp_path / "sounds"
    folder.mkdir()
    for name in (b"na\xefve.wav", b'two\nlines, "$HOME".wav'):
        sf.write(tmp_path / "x.wav", chirp(0.6, 150, 0), SAMPLING_RATE)
        (tmp_path / "x.wav").rename(os.fsdecode(os.path.join(os.fsencode(folder), name)))
    names = ["na\\xefve.wav", 'two\nlines, "$HOME".wav']
    for suffix in ("csv", "parquet", "npz"):
        output = tmp_path / f"e.{suffix}"
        main(["embed", str(encoder), str(folder), "--output", str(output)])
        files = {"csv": pd.read_csv, "parquet": pd.read_parquet}[suffix](output)["file"] if suffix != "npz" else None
        assert (files_in(output) if files is None else [Path(file).name for file in files]) == names


@pytest.mark.slow
def test_the_command_needs_no_data_set_library(encoder, speech_folder, tmp_path):
    code = f"""import sys
from mbt_speech.__main__ import main
main(["embed", {str(encoder)!r}, {str(speech_folder / "low")!r}, "--output", {str(tmp_path / "e.csv")!r}])
print(sorted({{"datasets", "pandas", "sklearn", "matplotlib", "torchaudio", "librosa"}} & set(sys.modules)))"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
