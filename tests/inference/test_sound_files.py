"""`mbt embed`, `predict` and `verify` on files and folders."""

import csv
import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
import torch
from transformers import pipeline

from feature_extraction import MBTFeatureExtractor, to_waveform
from mbt_speech.__main__ import main
from mbt_speech.inference.sound_files import find_recordings
from mbt_speech.presets import PRESETS
from modeling_mbt import MBTConfig, MBTForPreTraining, MBTForSequenceClassification, MBTModel
from tests.support.sounds import SAMPLING_RATE, chirp


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    MBTForPreTraining(PRESETS["tiny"].config()).save_pretrained(folder)
    PRESETS["tiny"].extractor().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    folder = tmp_path_factory.mktemp("classifier")
    torch.manual_seed(0)
    labels = {"id2label": {0: "low", 1: "high", 2: "none"}, "label2id": {"low": 0, "high": 1, "none": 2}}
    MBTForSequenceClassification(PRESETS["tiny"].config(**labels)).save_pretrained(folder)
    PRESETS["tiny"].extractor().save_pretrained(folder)
    return folder


def embed_one(encoder, file):
    extractor = MBTFeatureExtractor.from_pretrained(encoder)
    inputs = extractor(to_waveform(file), sampling_rate=16000, return_tensors="pt")
    with torch.no_grad():
        return MBTModel.from_pretrained(encoder).eval()(**inputs).pooler_output[0].numpy()


def test_a_folder_is_embedded_in_batches_as_each_file_is_alone(encoder, speech_folder, tmp_path):
    main(["embed", str(encoder), str(speech_folder), "--output", str(tmp_path / "e.npz"), "--batch_size", "5"])
    with np.load(tmp_path / "e.npz") as saved:
        files, embeddings = saved["files"].tolist(), saved["embeddings"]
    assert files == [str(file) for file in find_recordings([speech_folder])]
    assert len(files) == 24
    for row in (0, 7, 23):
        np.testing.assert_allclose(embeddings[row], embed_one(encoder, files[row]), atol=1e-4)


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


def test_bad_recordings_stop_or_are_left_out_by_name(encoder, tmp_path, capsys):
    sf.write(tmp_path / "good.wav", chirp(0.6, 150, 0), SAMPLING_RATE)
    (tmp_path / "bad.wav").write_text("no sound")
    words = ["embed", str(encoder), str(tmp_path), "--output", str(tmp_path / "e.npz")]
    with pytest.raises(SystemExit):
        main(words)
    assert "bad.wav" in capsys.readouterr().err
    main([*words, "--on_bad_audio", "skip"])
    assert "bad.wav" in capsys.readouterr().err
    with np.load(tmp_path / "e.npz") as saved:
        assert saved["files"].tolist() == [str(tmp_path / "good.wav")]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["embed", "{model}", "{empty}", "--output", "e.npz"], "no sound files"),
        (["embed", "{model}", "{file}", "--output", "e.txt"], "must end in .csv or .parquet"),
    ],
)
def test_mistakes_are_answered_in_a_sentence(encoder, speech_folder, tmp_path, capsys, words, message):
    values = {"model": encoder, "empty": tmp_path, "file": speech_folder / "low" / "00.wav"}
    with pytest.raises(SystemExit):
        main([word.format(**values) for word in words])
    assert message in capsys.readouterr().err


def test_verify_takes_two_files_or_a_list(encoder, capsys):
    with pytest.raises(SystemExit):
        main(["verify", str(encoder), "a.wav"])
    assert "two sound files, or takes --trials" in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_needs_no_data_set_library(encoder, speech_folder, tmp_path):
    code = f"""import sys
from mbt_speech.__main__ import main
main(["embed", {str(encoder)!r}, {str(speech_folder / "low")!r}, "--output", {str(tmp_path / "e.csv")!r}])
print(sorted({{"datasets", "pandas", "sklearn", "matplotlib", "torchaudio", "librosa"}} & set(sys.modules)))"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
