"""Segments with times and labels, the frames that they label, and the classifier of frames.

Axes: T' frames.
"""

import json

import numpy as np
import pytest
import soundfile as sf
import torch
from datasets import ClassLabel, Dataset, Features, List, Value
from huggingface_hub import ModelCard

import run_finetune
from mbt_speech.data.recording_folder import scan_folder
from mbt_speech.data.segments import Segments, holds_segments, read_segments
from mbt_speech.data.splits import map_labels
from mbt_speech.probing.examples import Examples
from mbt_speech.probing.frame_classifier import FrameClassifier
from tests.support.hub_models import save_hub_model
from tests.support.sounds import SAMPLING_RATE

HERTZ = {"aa": 220.0, "iy": 700.0, "s": 2100.0}
NUM_CLIPS = 24


def tones(rng):
    """Returns a clip of four tones of random lengths, and their segments."""
    names = [str(name) for name in rng.permutation([*HERTZ, rng.choice(list(HERTZ))])]
    ends = np.cumsum(rng.integers(1_600, 4_000, len(names)))
    pieces = [
        0.1 * np.sin(2 * np.pi * HERTZ[name] * np.arange(stop - start) / SAMPLING_RATE)
        for name, start, stop in zip(names, [0, *ends[:-1]], ends, strict=True)
    ]
    waveform = np.concatenate(pieces) + 0.001 * rng.standard_normal(ends[-1])
    return waveform.astype(np.float32), names, [0, *ends[:-1].tolist()], ends.tolist()


def write_tones(folder, *, shift_seconds=0.0, in_samples=False, rate=SAMPLING_RATE):
    """Writes a folder of clips with a metadata.jsonl that holds their segments."""
    folder.mkdir()
    rng, lines = np.random.default_rng(0), []
    for number in range(NUM_CLIPS):
        waveform, names, starts, ends = tones(rng)
        sf.write(folder / f"{number}.wav", waveform[:: SAMPLING_RATE // rate], rate)
        split = "test" if number % 4 == 0 else "validation" if number % 4 == 1 else "train"
        if in_samples:
            scale = SAMPLING_RATE // rate
            segments = {"start": [s // scale for s in starts], "stop": [e // scale for e in ends], "utterance": names}
        else:
            last = ends[-1] / SAMPLING_RATE
            times = [[min(last, t / SAMPLING_RATE + shift_seconds) for t in ts] for ts in (starts, ends)]
            segments = [
                {"start": s, "end": e, "label": n} for s, e, n in zip(*times, names, strict=True)
            ]  # fmt: skip
        lines.append(json.dumps({"file_name": f"{number}.wav", "split": split, "phonetic_detail": segments}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


def classify_frames(folder, output_dir, *words):
    words = ["--train_dir", folder, "--output_dir", output_dir, "--label_column_name", "phonetic_detail", *words]
    run_finetune.main([str(word) for word in ("--preset", "tiny", "--freeze_encoder", *words)])
    return [json.loads(line) for line in (output_dir / "results.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def tone_folder(tmp_path_factory):
    return write_tones(tmp_path_factory.mktemp("segments") / "tones")


def read(values, features=None, units=1.0, seconds=10.0, label_map=None):
    dataset = Dataset.from_dict({"x": values}, features=features)
    assert holds_segments(dataset, "x")
    number = len(values)
    return read_segments(dataset, "x", np.full(number, units), np.full(number, seconds), label_map or {})


def test_a_moment_has_the_class_of_the_segment_that_holds_it():
    segments = Segments(np.array([0.1, 0.3, 0.5]), np.array([0.3, 0.4, 0.6]), ["a", "b", "a"])
    moments = np.array([0.0, 0.1, 0.29, 0.3, 0.4, 0.45, 0.55, 0.6, 2.0])
    assert segments.classes_at(moments, ["a", "b"]).tolist() == [-1, 0, 0, 1, -1, -1, 0, -1, -1]
    assert Segments(np.zeros(0), np.zeros(0), []).classes_at(moments, ["a"]).tolist() == [-1] * 9
    nested = Segments(np.array([0.0, 2.0]), np.array([10.0, 3.0]), ["a", "b"])
    assert nested.classes_at(np.array([1.0, 2.5, 5.0, 10.0]), ["a", "b"]).tolist() == [0, 1, 0, -1]


def test_segments_are_read_from_any_nesting_in_any_order_and_unit():
    structs = [[{"phone": "b", "start_seconds": 0.5, "end_seconds": 1.0}, {"phone": "a", "start_seconds": 0.0,
                "end_seconds": 0.5}], []]  # fmt: skip
    first, empty = read(structs)
    assert (first.starts.tolist(), first.ends.tolist(), first.labels) == ([0, 0.5], [0.5, 1], ["a", "b"])
    assert empty.labels == []
    timit = {"start": [8000, 0], "stop": [16000, 8000], "utterance": ["b", "a"]}
    (same,) = read([timit], units=16_000.0)
    assert [values.tolist() for values in same[:2]] == [values.tolist() for values in first[:2]]
    named = Features(
        {"x": List({"start": Value("float32"), "end": Value("float32"), "label": ClassLabel(names=["p", "q"])})}
    )
    (classes,) = read([[{"start": 0.0, "end": 1.0, "label": 1}]], named)
    assert classes.labels == ["q"]
    with pytest.raises(ValueError, match="lacks its label or a time"):  # -1 is no class, not the last one
        read([[{"start": 0.0, "end": 1.0, "label": -1}]], named)


def test_a_label_map_renames_and_leaves_out_labels():
    segments = [[{"start": 0.1 * n, "end": 0.1 * n + 0.1, "label": label} for n, label in enumerate("aqbc")]]
    (found,) = read(segments, label_map={"a": "A", "q": None, "*": "other"})
    assert found.labels == ["A", "other", "other"]
    np.testing.assert_allclose(found.starts, [0, 0.2, 0.3], atol=1e-12)
    dataset = Dataset.from_dict({"y": [1, 2, 3, 1], "x": list("abcd")})
    assert map_labels(dataset, "y", {"1": "one", "2": None})[:] == {"x": ["a", "c", "d"], "y": ["one", "3", "one"]}
    assert map_labels(dataset, "y", {"1": "1", "*": None})["x"] == ["a", "d"]


@pytest.mark.parametrize(
    ("segment", "message"),
    [
        (
            {"start": 0.0, "end": 46_797.0, "label": "a"},
            "ends at 46797 s, and the recording at 10.00 s.*--segment_unit",
        ),
        ({"start": 2.0, "end": 1.0, "label": "a"}, "ends before it starts"),
        ({"start": 2.0, "end": 3.0, "label": None}, "lacks its label or a time"),
        ({"start": None, "end": 3.0, "label": "a"}, "lacks its label or a time"),
        ({"start": 2.0, "end": float("nan"), "label": "a"}, "lacks its label or a time"),
        ({"start": 2.0, "end": 3.0, "duration": 1.0}, "have the fields start, end, duration: one must begin with"),
    ],
)
def test_segments_that_cannot_be_are_refused_with_what_to_do(segment, message):
    features = None if segment.get("label", "") else Features(
        {"x": List({name: Value("string" if name == "label" else "float64") for name in segment})}
    )  # fmt: skip
    with pytest.raises(ValueError, match=message):
        read([[segment, {**segment, "start": 0.0}]], features)


def test_a_folder_passes_lists_of_its_metadata_on(tmp_path):
    folder = write_tones(tmp_path / "tones")
    (split, *_) = scan_folder(folder).values()
    assert holds_segments(split, "phonetic_detail")
    assert split[0]["phonetic_detail"][0]["start"] == 0
    in_parquet = tmp_path / "parquet"
    in_parquet.mkdir()
    sf.write(in_parquet / "0.wav", np.zeros(SAMPLING_RATE), SAMPLING_RATE)
    Dataset.from_dict({"file_name": ["0.wav"], "phones": [split[0]["phonetic_detail"]]}).to_parquet(
        in_parquet / "metadata.parquet"
    )
    assert scan_folder(in_parquet)["train"][0]["phones"] == split[0]["phonetic_detail"]


@pytest.mark.slow
def test_a_head_learns_the_pitch_of_every_frame(tone_folder, tmp_path):
    methods = ["random", "stats", save_hub_model(tmp_path, "wav2vec2")]
    lines = classify_frames(tone_folder, tmp_path / "run", "--model_name_or_path", *methods)
    assert [line["unit"] for line in lines] == ["frames"] * 3
    random, stats, _ = lines
    assert stats["accuracy"] > 0.95
    assert random["accuracy"] > 0.8
    assert all(line["accuracy"] > line["chance"] + 0.1 for line in lines)
    shifted = write_tones(tmp_path / "shifted", shift_seconds=0.1)
    for line, other in zip(
        lines[:2], classify_frames(shifted, tmp_path / "s", "--model_name_or_path", *methods[:2]), strict=True
    ):
        assert other["accuracy"] < line["accuracy"] - 0.1


def test_times_in_samples_of_the_recording_are_those_times_in_seconds(tone_folder, tmp_path):
    in_samples = write_tones(tmp_path / "timit", in_samples=True, rate=8_000)
    words = ["--model_name_or_path", "stats"]
    (seconds,) = classify_frames(tone_folder, tmp_path / "a", *words)
    (samples,) = classify_frames(in_samples, tmp_path / "b", *words, "--segment_unit", "samples")
    assert samples["num_train"] == pytest.approx(seconds["num_train"], abs=NUM_CLIPS)
    assert samples["accuracy"] > 0.95
    with pytest.raises(ValueError, match="--segment_unit"):
        classify_frames(in_samples, tmp_path / "c", *words)
    with pytest.raises(ValueError, match="fractions of samples"):
        classify_frames(tone_folder, tmp_path / "d", *words, "--segment_unit", "samples")


def test_the_saved_classifier_names_frames_and_its_card_runs(tone_folder, tmp_path, monkeypatch, capsys):
    (line,) = classify_frames(tone_folder, tmp_path / "run", "--model_name_or_path", "random", "--seed", "3")
    classifier = FrameClassifier.from_pretrained(tmp_path / "run")
    assert classifier.label_names == list(HERTZ)
    right = total = 0
    rows = [json.loads(text) for text in (tone_folder / "metadata.jsonl").read_text().splitlines()]
    for row in rows:
        if row["split"] != "test":
            continue
        waveform = torch.from_numpy(sf.read(tone_folder / row["file_name"], dtype="float32")[0])
        with torch.no_grad():
            found = classifier([waveform])[0].argmax(-1)
        centers = classifier.centers(len(found))
        for frame, named in enumerate(found.tolist()):
            seconds = float(centers[frame]) / SAMPLING_RATE
            for segment in row["phonetic_detail"]:
                if segment["start"] <= seconds < segment["end"]:
                    right, total = right + (classifier.label_names[named] == segment["label"]), total + 1
    assert total == line["num_test"]
    assert right / total == pytest.approx(line["accuracy"], abs=1.5 / total)
    card = ModelCard.load(tmp_path / "run" / "README.md", ignore_metadata_errors=False)
    monkeypatch.chdir(tmp_path)
    exec(card.content.split("```python\n")[1].split("```")[0], {})
    assert capsys.readouterr().out.splitlines()[-1].count("'") > 2
    assert f"({line['num_test']} frames)" in card.content


@pytest.mark.slow
def test_a_share_of_the_labels_of_frames_is_one_of_utterances(tone_folder, tmp_path):
    words = ["--model_name_or_path", "random", "stats", "--label_fraction", "0.25", "1", "--seed", "0", "1"]
    lines = classify_frames(tone_folder, tmp_path / "run", *words)
    by_share = [[line["num_train"] for line in lines[4:] if line["label_fraction"] == share] for share in (0.25, 1)]
    assert by_share[1][0] == by_share[1][1]
    assert all(0.15 < few / by_share[1][0] < 0.35 for few in by_share[0])
    assert "test frames" in (tmp_path / "run" / "results.md").read_text()
    assert (tmp_path / "run" / "label_fractions.png").stat().st_size > 0
    again = classify_frames(tone_folder, tmp_path / "run", *words)
    assert again == lines


def test_of_too_many_frames_a_stratified_choice_is_learnt_from():
    labels = np.repeat([0, 1, -1, 2], [600, 300, 50, 50])
    clips = np.arange(1_000) // 10
    rows = {"train": np.flatnonzero(labels >= 0)}
    examples = Examples(np.zeros((1_000, 1)), labels, clips, rows, max_train=100)
    chosen = examples.choose("train", np.arange(100), seed=0)
    assert np.bincount(labels[chosen]).tolist() == [63, 32, 5]
    assert examples.choose("train", np.arange(3), seed=0).tolist() == list(range(30))
    assert not np.array_equal(chosen, examples.choose("train", np.arange(100), seed=1))


def test_labels_are_mapped_by_a_file_and_another_map_is_another_result(tone_folder, tmp_path):
    words = ["--model_name_or_path", "stats", "--label_map", tmp_path / "map.json"]
    (tmp_path / "map.json").write_text('{"s": null, "*": "vowel", "iy": "iy"}')
    (line,) = classify_frames(tone_folder, tmp_path / "run", *words)
    assert line["num_train"] < 0.9 * classify_frames(tone_folder, tmp_path / "all", *words[:2])[0]["num_train"]
    (tmp_path / "map.json").write_text('{"s": "s", "*": "vowel"}')
    assert len(classify_frames(tone_folder, tmp_path / "run", *words)) == 2
    for text, message in (
        ("nowhere.json", "neither a JSON object nor a file"),
        ('{"s": 1}', "a new name is a string"),
    ):
        with pytest.raises(ValueError, match=message):
            classify_frames(tone_folder, tmp_path / "x", *words[:3], text)


def test_segments_are_refused_where_the_encoder_is_trained(tone_folder, tmp_path):
    words = ["--train_dir", tone_folder, "--output_dir", tmp_path, "--label_column_name", "phonetic_detail"]
    with pytest.raises(ValueError, match="holds segments, which are for the frames of frozen encoders alone"):
        run_finetune.main([str(word) for word in (*words, "--model_name_or_path", "supervised")])
    lines = (tone_folder / "metadata.jsonl").read_text().replace('"label": "s"', '"label": "z"', 1)
    folder = write_tones(tmp_path / "odd")
    (folder / "metadata.jsonl").write_text(lines)
    with pytest.raises(ValueError, match="hold z, which the training split lacks"):
        classify_frames(folder, tmp_path / "run", "--model_name_or_path", "stats")
    rows = [json.loads(line) for line in (tone_folder / "metadata.jsonl").read_text().splitlines()]
    rows = [row | {"phonetic_detail": [] if row["split"] == "test" else row["phonetic_detail"]} for row in rows]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(ValueError, match="No frame of the test split lies in a segment"):
        classify_frames(folder, tmp_path / "run", "--model_name_or_path", "stats")
