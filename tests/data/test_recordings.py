"""Sets of recordings: folders, metadata, data sets; labels and splits; the index."""

import json
import logging
import os
import shutil
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from datasets import Audio, ClassLabel, Dataset, DatasetDict, Features, Value, config

from feature_extraction.speech import BadAudioError, to_waveform
from mbt_speech.data import recording_index, recordings
from mbt_speech.data.recording_folder import scan_folder
from mbt_speech.data.recording_index import AudioColumn, index_recordings
from mbt_speech.data.recordings import find_audio_column, load_recordings
from mbt_speech.data.splits import encode_labels, split_dataset, split_of

RATE = 8_000


def record(path, seconds: float = 0.1):
    """Writes a tone of this length and returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tone = 0.5 * np.sin(np.arange(round(seconds * RATE)) / 5)
    file_format = "OGG" if path.suffix.lower() == ".opus" else path.suffix[1:].upper()
    soundfile.write(path, tone, RATE, format=file_format)
    return path


def relative_paths(dataset: Dataset, root) -> list[str]:
    return [os.path.relpath(value["path"], root) for value in dataset["audio"]]


# A folder of sound files


def test_a_flat_folder_gives_its_recordings_in_order_and_no_labels(tmp_path):
    for name in ("b.wav", "Ä ö.FLAC", "c.Mp3", "a.ogg", "d.opus", "e.aiff"):
        record(tmp_path / name)
    (tmp_path / ".hidden.wav").write_bytes(b"x")
    (tmp_path / "notes.txt").write_text("x")
    record(tmp_path / ".git" / "z.wav")
    splits = scan_folder(tmp_path)
    assert list(splits) == ["train"]
    assert relative_paths(splits["train"], tmp_path) == ["a.ogg", "b.wav", "c.Mp3", "d.opus", "e.aiff", "Ä ö.FLAC"]
    assert splits["train"].column_names == ["audio"]
    assert splits["train"].features["audio"] == Audio(decode=False)
    for value in splits["train"]["audio"]:
        assert len(to_waveform(value)) > 1_000


def test_folder_names_are_labels(tmp_path):
    for name in ("yes/1.wav", "no/1.wav", "no/2.wav"):
        record(tmp_path / name)
    assert scan_folder(tmp_path)["train"]["label"][:] == ["no", "no", "yes"]


def test_the_topmost_folder_that_tells_recordings_apart_is_the_label(tmp_path):
    for name in ("corpus/audio/s1/chapter1/a.wav", "corpus/audio/s1/chapter2/a.wav", "corpus/audio/s2/chapter3/a.wav"):
        record(tmp_path / name)
    train = scan_folder(tmp_path)["train"]
    assert train["label"][:] == ["s1", "s1", "s2"]
    assert train["parent_folder"][:] == ["chapter1", "chapter2", "chapter3"]


def test_folders_of_parts_are_found_below_one_that_holds_everything(tmp_path):
    names = ("data/train/yes/1.wav", "data/train/no/2.wav", "data/dev/no/3.wav", "data/testing/yes/4.wav")
    for name in names:
        record(tmp_path / name)
    splits = scan_folder(tmp_path)
    assert {split: splits[split]["label"][:] for split in splits} == {
        "train": ["no", "yes"],
        "validation": ["no"],
        "test": ["yes"],
    }


def test_parts_with_longer_names_are_joined(tmp_path):
    for name in (
        "train-clean-100/19/a.flac",
        "train-clean-360/20/b.flac",
        "dev-clean/30/c.flac",
        "test-other/40/d.flac",
    ):
        record(tmp_path / name)
    assert {split: rows.num_rows for split, rows in scan_folder(tmp_path).items()} == {
        "train": 2,
        "validation": 1,
        "test": 1,
    }


def test_a_word_that_is_also_the_name_of_a_part_is_a_label(tmp_path):
    for name in ("train/1.wav", "test/1.wav", "bird/1.wav"):
        record(tmp_path / name)
    assert scan_folder(tmp_path)["train"]["label"][:] == ["bird", "test", "train"]


def test_recordings_beside_the_parts_are_refused(tmp_path):
    for name in ("train/1.wav", "test/1.wav", "stray.wav"):
        record(tmp_path / name)
    with pytest.raises(ValueError, match="1 recordings beside"):
        scan_folder(tmp_path)


def test_links_are_followed_but_not_in_circles(tmp_path):
    record(tmp_path / "elsewhere" / "yes" / "1.wav")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "yes").symlink_to(tmp_path / "elsewhere" / "yes")
    (tmp_path / "elsewhere" / "yes" / "loop").symlink_to(tmp_path / "set")
    assert relative_paths(scan_folder(tmp_path / "set")["train"], tmp_path / "set") == [os.path.join("yes", "1.wav")]


def test_an_empty_and_a_missing_folder_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no recordings"):
        scan_folder(tmp_path)
    with pytest.raises(ValueError, match="not a folder"):
        scan_folder(tmp_path / "missing")


def test_a_file_name_that_is_no_text_is_named(tmp_path):
    record(tmp_path / "a.wav").rename(os.fsdecode(os.fsencode(tmp_path) + b"/\xfc.wav"))
    with pytest.raises(ValueError, match="UTF-8"):
        scan_folder(tmp_path)


# Metadata


def write_metadata(folder, suffix: str, rows: list[dict]) -> None:
    if suffix == "csv":
        lines = [",".join(rows[0]), *(",".join("" if v is None else str(v) for v in row.values()) for row in rows)]
        (folder / "metadata.csv").write_text("\ufeff" + "\n".join(lines) + "\n", encoding="utf-8")
    elif suffix == "jsonl":
        (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n", encoding="utf-8")
    else:
        pq.write_table(pa.Table.from_pylist(rows), folder / "metadata.parquet")


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_metadata_at_the_top_give_labels(tmp_path, suffix):
    for name in ("x/1.wav", "2 ü.wav"):
        record(tmp_path / name)
    rows = [
        {"file_name": "x/1.wav", "word": "ja", "speaker": 7},
        {"file_name": "2 ü.wav", "word": "nein", "speaker": 8},
    ]
    write_metadata(tmp_path, suffix, rows)
    train = scan_folder(tmp_path)["train"]
    assert train.column_names == ["audio", "word", "speaker"]
    assert relative_paths(train, tmp_path) == [os.path.join("x", "1.wav"), "2 ü.wav"]
    assert train["word"][:] == ["ja", "nein"]
    assert train["speaker"][:] == [7, 8]


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_metadata_in_each_part_are_joined(tmp_path, suffix):
    for split in ("train", "test"):
        record(tmp_path / split / "1.wav")
        write_metadata(tmp_path / split, suffix, [{"file_name": "1.wav", "word": split}])
    splits = scan_folder(tmp_path)
    assert {split: splits[split]["word"][:] for split in splits} == {"train": ["train"], "test": ["test"]}


def test_metadata_at_the_top_can_name_files_in_parts(tmp_path):
    for name in ("train/1.wav", "valid/2.wav"):
        record(tmp_path / name)
    write_metadata(tmp_path, "csv", [{"file_name": "train/1.wav", "y": "a"}, {"file_name": "valid/2.wav", "y": "b"}])
    splits = scan_folder(tmp_path)
    assert {split: splits[split]["y"][:] for split in splits} == {"train": ["a"], "validation": ["b"]}


def test_csv_cells_become_numbers_only_where_nothing_is_lost(tmp_path):
    record(tmp_path / "1.wav")
    rows = [
        {"file_name": "1.wav", "number": "-3", "code": "007", "word": "None", "gap": "4", "big": "1" * 19},
        {"file_name": "1.wav", "number": "12", "code": "12", "word": "NA", "gap": None, "big": "2"},
    ]
    write_metadata(tmp_path, "csv", rows)
    train = scan_folder(tmp_path)["train"]
    assert train["number"][:] == [-3, 12]
    assert train["code"][:] == ["007", "12"]
    assert train["word"][:] == ["None", "NA"]
    assert train["gap"][:] == [4, None]
    assert train["big"][:] == ["1" * 19, "2"]


def test_a_listed_file_that_is_missing_is_bad(tmp_path, caplog):
    for name in ("1.wav", "unlisted.wav"):
        record(tmp_path / name)
    write_metadata(tmp_path, "csv", [{"file_name": "1.wav", "y": "a"}, {"file_name": "gone.wav", "y": "b"}])
    with caplog.at_level(logging.WARNING):
        train = scan_folder(tmp_path)["train"]
    assert "1 recordings are left out" in caplog.text
    assert "unlisted.wav" in caplog.text
    index = index_recordings(train, "audio", on_bad_audio="skip", cache_dir=tmp_path / "cache")
    assert index.bad == [(str(tmp_path / "gone.wav"), "does not exist.")]
    assert relative_paths(index.dataset, tmp_path) == ["1.wav"]


def test_unclear_metadata_are_refused(tmp_path):
    record(tmp_path / "1.wav")
    cases = {
        "path,label\n1.wav,a\n": "file_name",
        'file_name,label\n1.wav,"a\n': "cannot be read",
        "file_name,audio\n1.wav,a\n": "audio",
        "file_name,label\n": "no recordings",
        "file_name,label\n1.wav,a,b\n": "more cells",
    }
    for content, match in cases.items():
        (tmp_path / "metadata.csv").write_text(content)
        with pytest.raises(ValueError, match=match):
            scan_folder(tmp_path)
    (tmp_path / "metadata.csv").write_bytes(b"file_name,label\n1.wav,\xff\xfe\n")
    with pytest.raises(ValueError, match="cannot be read"):
        scan_folder(tmp_path)
    (tmp_path / "metadata.jsonl").write_text("{}")
    with pytest.raises(ValueError, match="one metadata file a folder"):
        scan_folder(tmp_path)
    (tmp_path / "metadata.csv").unlink()
    for content in ("{not json", "[1, 2]", "7"):
        (tmp_path / "metadata.jsonl").write_text(content)
        with pytest.raises(ValueError, match="cannot be read"):
            scan_folder(tmp_path)
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "1.wav", "y": 1}\n{"file_name": "1.wav", "y": "a"}\n')
    with pytest.raises(ValueError, match="mixes types"):
        scan_folder(tmp_path)
    (tmp_path / "metadata.jsonl").unlink()
    (tmp_path / "metadata.parquet").write_bytes(b"no parquet")
    with pytest.raises(ValueError, match="cannot be read"):
        scan_folder(tmp_path)


# Data sets


@pytest.fixture
def embedded(tmp_path) -> Dataset:
    """Three recordings of 0.1, 0.2 and 0.3 s inside a data set, with words."""
    contents = [record(tmp_path / "in" / f"{n}.wav", n / 10).read_bytes() for n in (1, 2, 3)]
    values = [{"bytes": content, "path": f"{row}.wav"} for row, content in enumerate(contents)]
    shutil.rmtree(tmp_path / "in")
    dataset = Dataset.from_dict({"sound": values, "word": ["a", "b", "a"]})
    return dataset.cast_column("sound", Audio(decode=False))


def seconds_of(dataset: Dataset, column: str) -> list[float]:
    return [len(to_waveform(value, RATE)) / RATE for value in dataset[column]]


def test_a_local_folder_of_parquet_files_is_a_data_set(tmp_path, embedded):
    (tmp_path / "set" / "data").mkdir(parents=True)
    decoded = embedded.cast_column("sound", Audio())  # so that the files say: a sound, to be decoded
    decoded.to_parquet(tmp_path / "set" / "data" / "train-00000-of-00001.parquet")
    decoded.select([2]).to_parquet(tmp_path / "set" / "data" / "test-00000-of-00001.parquet")
    splits, column = load_recordings(dataset_name=str(tmp_path / "set"), cache_dir=str(tmp_path / "cache"))
    assert column == "sound"
    assert splits["train"].features["sound"] == Audio(decode=False)
    assert seconds_of(splits["train"], column) == [0.1, 0.2, 0.3]
    assert seconds_of(splits["test"], column) == [0.3]
    only, _ = load_recordings(dataset_name=str(tmp_path / "set"), split="test", cache_dir=str(tmp_path / "cache"))
    assert {split: rows.num_rows for split, rows in only.items()} == {"train": 1}


def test_what_save_to_disk_wrote_is_a_data_set(tmp_path, embedded):
    embedded.cast_column("sound", Audio()).save_to_disk(tmp_path / "one")
    DatasetDict({"train": embedded, "test": embedded.select([0])}).save_to_disk(tmp_path / "parts")
    one, column = load_recordings(dataset_name=str(tmp_path / "one"))
    assert seconds_of(one["train"], column) == [0.1, 0.2, 0.3]
    splits, column = load_recordings(dataset_name=str(tmp_path / "parts"))
    assert seconds_of(splits["test"], column) == [0.1]
    with pytest.raises(ValueError, match="no split 'dev'"):
        load_recordings(dataset_name=str(tmp_path / "parts"), split="dev")


def test_plain_sound_files_are_read_as_a_folder_wherever_they_come_from(tmp_path, monkeypatch):
    record(tmp_path / "set" / "train" / "yes" / "1.wav")
    splits, _ = load_recordings(dataset_name=str(tmp_path / "set"))
    assert splits["train"]["label"][:] == ["yes"]
    asked = {}

    def download(name, **kwargs):
        asked.update(name=name, **kwargs)
        return str(tmp_path / "set")

    class Builder:
        name = "audiofolder"

    monkeypatch.setattr(recordings, "load_dataset_builder", lambda *args, **kwargs: Builder)
    monkeypatch.setattr(recordings, "snapshot_download", download)
    splits, _ = load_recordings(dataset_name="someone/words", revision="v1", token="t")
    assert splits["train"]["label"][:] == ["yes"]
    assert asked == {
        "name": "someone/words",
        "repo_type": "dataset",
        "revision": "v1",
        "token": "t",
        "cache_dir": None,
    }


def test_a_data_set_on_the_hub_is_asked_for_by_its_name(monkeypatch, embedded):
    asked = []

    class Builder:
        name = "parquet"

    monkeypatch.setattr(recordings, "load_dataset_builder", lambda *args, **kwargs: Builder)
    monkeypatch.setattr(recordings, "load_dataset", lambda *args, **kwargs: asked.append((args, kwargs)) or embedded)
    splits, column = load_recordings(None, "someone/words", "clean", split="train.100", revision="v1", token="t")
    assert asked == [
        (("someone/words", "clean"), {"split": "train.100", "revision": "v1", "token": "t", "cache_dir": None})
    ]
    assert (list(splits), column) == (["train"], "sound")


def test_one_source_must_be_named(tmp_path):
    for sources in ({}, {"train_dir": tmp_path, "dataset_name": "someone/words"}):
        with pytest.raises(ValueError, match="one source"):
            load_recordings(**sources)


def test_the_audio_column_is_found_or_the_columns_are_listed():
    value = {"bytes": b"x", "path": None}
    array = {"array": [0.0], "sampling_rate": RATE}
    assert find_audio_column(Dataset.from_dict({"x": [value], "y": [1]})) == "x"
    assert find_audio_column(Dataset.from_dict({"x": [array], "y": [1]})) == "x"
    assert find_audio_column(Dataset.from_dict({"x": [value], "audio": [value]})) == "audio"
    assert find_audio_column(Dataset.from_dict({"audio": ["a.wav"], "y": [1]})) == "audio"
    assert find_audio_column(Dataset.from_dict({"x": [value], "y": [value]}), "y") == "y"
    for columns in ({"x": [value], "y": [value]}, {"x": ["a.wav"], "y": [1]}):
        with pytest.raises(ValueError, match="The columns are x, y"):
            find_audio_column(Dataset.from_dict(columns))
    with pytest.raises(ValueError, match="no column 'z'"):
        find_audio_column(Dataset.from_dict({"x": [1]}), "z")


# Labels


@pytest.mark.parametrize(
    ("values", "names", "numbers"),
    [
        (["b", "a", "b"], ["a", "b"], [1, 0, 1]),
        ([10, 9, 10], ["9", "10"], [1, 0, 1]),
        ([2.0, 0.0, 2.0], ["0", "2"], [1, 0, 1]),
        ([True, False, True], ["False", "True"], [1, 0, 1]),
    ],
)
def test_labels_of_any_type_become_class_numbers(values, names, numbers):
    found_names, found_numbers = encode_labels(Dataset.from_dict({"y": values}), "y")
    assert found_names == names
    assert found_numbers.dtype == np.int64
    assert found_numbers.tolist() == numbers


def test_a_class_label_keeps_its_names_and_order():
    features = Features({"y": ClassLabel(names=["yes", "no", "never"])})
    names, numbers = encode_labels(Dataset.from_dict({"y": [1, 0, 1]}, features=features), "y")
    assert (names, numbers.tolist()) == (["yes", "no", "never"], [1, 0, 1])


def test_another_part_is_numbered_by_the_names_of_training():
    names, numbers = encode_labels(Dataset.from_dict({"y": ["c", "a"]}), "y", ["a", "b", "c"])
    assert (names, numbers.tolist()) == (["a", "b", "c"], [2, 0])
    with pytest.raises(ValueError, match="'y' holds d"):
        encode_labels(Dataset.from_dict({"y": ["d", "a"]}), "y", ["a", "b"])


@pytest.mark.parametrize(
    ("values", "match"),
    [
        (["a", None], "1 of 2 recordings have no label"),
        (["a", ""], "no label"),
        ([1.0, float("nan")], "no label"),
        ([0.5, 1.0], "0.5"),
        ([["a"], ["b"]], "classes are strings"),
    ],
)
def test_what_is_no_label_is_refused(values, match):
    with pytest.raises(ValueError, match=match):
        encode_labels(Dataset.from_dict({"y": values}), "y")


def test_a_missing_class_label_and_a_missing_column_are_refused():
    dataset = Dataset.from_dict({"y": [0, -1]}, features=Features({"y": ClassLabel(names=["a"])}))
    with pytest.raises(ValueError, match="no label"):
        encode_labels(dataset, "y")
    with pytest.raises(ValueError, match="the columns are y"):
        encode_labels(dataset, "z")


# Splits


def rows_of(splits: DatasetDict) -> dict[str, list[int]]:
    return {str(split): rows["row"][:] for split, rows in splits.items()}


def test_parts_are_drawn_with_every_class_in_each():
    labels = ["a"] * 50 + ["b"] * 20 + ["c"] * 3
    dataset = Dataset.from_dict({"y": labels, "row": list(range(73))})
    splits = split_dataset(dataset, "y", seed=1)
    assert list(splits) == ["train", "validation", "test"]
    assert sorted(row for rows in rows_of(splits).values() for row in rows) == list(range(73))
    counts = {split: [rows["y"][:].count(label) for label in "abc"] for split, rows in splits.items()}
    assert counts == {"train": [41, 16, 1], "validation": [4, 2, 1], "test": [5, 2, 1]}
    assert rows_of(split_dataset(dataset, "y", seed=1)) == rows_of(splits)
    assert rows_of(split_dataset(dataset, "y", seed=2)) != rows_of(splits)


def test_a_class_too_small_for_every_part_is_named():
    with pytest.raises(ValueError, match="class 'b' of 'y'"):
        split_dataset(Dataset.from_dict({"y": ["a"] * 9 + ["b"] * 2}), "y")


def test_parts_that_exist_are_kept_and_the_missing_one_is_drawn():
    dataset = Dataset.from_dict({"y": ["a", "b"] * 10, "row": list(range(20))})
    given_splits = DatasetDict({"train": dataset, "eval": dataset.select([0]), "extra": dataset})
    splits = split_dataset(given_splits, "y")
    assert rows_of(splits)["validation"] == [0]
    assert sorted(rows_of(splits)["train"] + rows_of(splits)["test"]) == list(range(20))
    with pytest.raises(ValueError, match="no training split among test, dev"):
        split_dataset(DatasetDict({"test": dataset, "dev": dataset}), "y")


@pytest.mark.parametrize("column", ["split", "part"])
def test_a_column_can_name_the_parts(column):
    values = ["train", "dev", "Test", "train", "valid"]
    dataset = Dataset.from_dict({"y": ["a"] * 5, "row": list(range(5)), column: values})
    splits = split_dataset(DatasetDict({"train": dataset}), "y", split_column=None if column == "split" else column)
    assert rows_of(splits) == {"train": [0, 3], "validation": [1, 4], "test": [2]}
    labeled = dataset.cast_column(column, Value("string")).class_encode_column(column)
    assert rows_of(split_dataset(labeled, "y", split_column=column)) == rows_of(splits)
    with pytest.raises(ValueError, match="holds fold3"):
        split_dataset(Dataset.from_dict({"y": ["a"], column: ["fold3"]}), "y", split_column=column)


def test_a_named_column_goes_before_the_parts_that_the_recordings_came_in():
    dataset = Dataset.from_dict({"y": ["a"] * 4, "row": list(range(4)), "part": ["train", "dev", "train", "test"]})
    folders = DatasetDict({"train": dataset.select([0, 1]), "test": dataset.select([2, 3])})
    expected = {"train": [0, 2], "validation": [1], "test": [3]}
    assert rows_of(split_dataset(folders, "y", split_column="part")) == expected


def test_the_usual_names_of_parts_are_known():
    names = {"train": "train", "Training": "train", "valid": "validation", "val": "validation", "eval": "validation"}
    names |= {"dev-clean": "validation", "test_other": "test", "train.100": "train", "trainer": None, "word": None}
    assert {name: split_of(name) for name in names} == names


# The index


def test_lengths_come_from_headers_and_are_kept(tmp_path, monkeypatch):
    for n in (1, 2, 3):
        record(tmp_path / "set" / f"{n}.wav", n / 10)
    train = scan_folder(tmp_path / "set")["train"]
    index = index_recordings(train, "audio", cache_dir=tmp_path / "cache")
    np.testing.assert_allclose(index.seconds, [0.1, 0.2, 0.3])
    assert index.bad == []

    def fail(*args, **kwargs):
        raise AssertionError("measured again")

    monkeypatch.setattr(recording_index, "recording_seconds", fail)
    again = index_recordings(scan_folder(tmp_path / "set")["train"], "audio", cache_dir=tmp_path / "cache")
    np.testing.assert_array_equal(again.seconds, index.seconds)
    monkeypatch.undo()

    record(tmp_path / "set" / "2.wav", 0.25)  # a changed file is measured anew
    changed = index_recordings(train, "audio", cache_dir=tmp_path / "cache")
    np.testing.assert_allclose(changed.seconds, [0.1, 0.25, 0.3])
    for cached in (tmp_path / "cache").rglob("*.json"):
        cached.write_text('[0.1, 0.2, "half')
    np.testing.assert_allclose(
        index_recordings(train, "audio", cache_dir=tmp_path / "cache").seconds, [0.1, 0.25, 0.3]
    )


def test_recordings_inside_a_data_set_are_indexed_by_its_fingerprint(tmp_path, embedded, monkeypatch):
    index = index_recordings(embedded, "sound", cache_dir=tmp_path / "cache")
    np.testing.assert_allclose(index.seconds, [0.1, 0.2, 0.3])
    monkeypatch.delattr(recording_index, "recording_seconds")
    np.testing.assert_allclose(
        index_recordings(embedded, "sound", cache_dir=tmp_path / "cache").seconds, index.seconds
    )
    monkeypatch.undo()
    other = embedded.select([2, 0])
    np.testing.assert_allclose(index_recordings(other, "sound", cache_dir=tmp_path / "cache").seconds, [0.3, 0.1])


def test_the_cache_is_beside_that_of_datasets_by_default(tmp_path, embedded, monkeypatch):
    monkeypatch.setattr(config, "HF_DATASETS_CACHE", tmp_path / "hf")
    index_recordings(embedded, "sound")
    assert len(list((tmp_path / "hf" / "mbt_lengths").iterdir())) == 1


@pytest.fixture
def folder_with_bad_files(tmp_path):
    """Two good recordings, and six that are bad in their own ways."""
    folder = tmp_path / "set"
    good = record(folder / "good.wav", 0.5)
    record(folder / "good.flac", 0.5)
    (folder / "cut.wav").write_bytes(good.read_bytes()[:500])
    (folder / "cut.flac").write_bytes((folder / "good.flac").read_bytes()[:-100])
    (folder / "text.wav").write_text("no sound")
    (folder / "zero.wav").write_bytes(b"")
    record(folder / "short.wav", 0.01)
    soundfile.write(folder / "nan.wav", np.full(4_000, np.nan), RATE, subtype="FLOAT")
    return folder


def test_bad_recordings_stop_the_run_or_are_skipped_and_listed(tmp_path, folder_with_bad_files):
    train = scan_folder(folder_with_bad_files)["train"]
    with pytest.raises(BadAudioError, match=r"cut\.flac is truncated.* 4 other recordings are bad too"):
        index_recordings(train, "audio", cache_dir=tmp_path / "cache")
    index = index_recordings(train, "audio", on_bad_audio="skip", cache_dir=tmp_path / "cache")
    assert [os.path.basename(name) for name, _ in index.bad] == [
        *("cut.flac", "cut.wav", "short.wav", "text.wav", "zero.wav")
    ]
    reasons = [reason for _, reason in index.bad]
    for reason, expected in zip(reasons, ("truncated", "truncated", "too short", "not audio", "empty"), strict=True):
        assert expected in reason
    assert len(index.dataset) == len(index.seconds) == 3  # the NaN samples are not in the header
    decoded = index_recordings(train, "audio", on_bad_audio="skip", decode=True, cache_dir=tmp_path / "cache")
    assert relative_paths(decoded.dataset, folder_with_bad_files) == ["good.flac", "good.wav"]
    assert any("NaN" in reason for _, reason in decoded.bad)


def test_a_set_without_one_good_recording_is_refused(tmp_path):
    dataset = Dataset.from_dict({"audio": [str(tmp_path / "missing.wav")]})
    with pytest.raises(ValueError, match="None of the 1 recordings"):
        index_recordings(dataset, "audio", on_bad_audio="skip", cache_dir=tmp_path)
    with pytest.raises(ValueError, match="raise or skip"):
        index_recordings(dataset, "audio", on_bad_audio="ignore")


def test_audio_values_keep_their_names(embedded):
    column = AudioColumn(embedded, "sound")
    assert len(column) == 3
    assert column[1][1] == "1.wav"
    unnamed = Dataset.from_dict({"audio": [b"x", b"y"]})
    assert AudioColumn(unnamed, "audio")[1] == (b"y", "recording 1")


@pytest.mark.slow
def test_ten_thousand_files_are_indexed_in_seconds(tmp_path):
    first = record(tmp_path / "set" / "0.wav")
    for n in range(1, 10_000):
        os.link(first, tmp_path / "set" / f"{n}.wav")
    train = scan_folder(tmp_path / "set")["train"]
    start = time.process_time()
    index_recordings(train, "audio", cache_dir=tmp_path / "cache")
    first_time = time.process_time() - start
    start = time.process_time()
    index_recordings(train, "audio", cache_dir=tmp_path / "cache")
    assert first_time < 5  # of computing; about 1 s on an idle machine
    assert time.process_time() - start < 1


@pytest.mark.parametrize("name", ["../outside.wav", "{absolute}", "a/../../outside.wav"])
@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_metadata_may_name_no_file_outside_of_its_folder(tmp_path, name, suffix):
    record(tmp_path / "outside.wav")
    name = name.format(absolute=tmp_path / "outside.wav")
    inside = tmp_path / "set"
    inside.mkdir()
    text = f"file_name,label\n{name},yes\n" if suffix == "csv" else json.dumps({"file_name": name, "label": "yes"})
    (inside / f"metadata.{suffix}").write_text(text)
    for source in ({"train_dir": inside}, {"dataset_name": str(inside)}):
        with pytest.raises(ValueError, match=r"outside of its folder.*--allow_outside_paths"):
            load_recordings(**source)
        splits, _ = load_recordings(**source, allow_outside_paths=True)
        assert splits["train"][0]["audio"]["path"] == str(tmp_path / "outside.wav")


def test_metadata_may_name_its_own_files_by_absolute_paths(tmp_path):
    record(tmp_path / "a.wav")
    (tmp_path / "metadata.csv").write_text(f"file_name\n{tmp_path / 'a.wav'}\n")
    assert len(scan_folder(tmp_path)["train"]) == 1


def test_a_cache_that_cannot_be_written_is_only_a_slower_run(tmp_path, caplog):
    record(tmp_path / "a.wav")
    recordings = scan_folder(tmp_path)["train"]
    (tmp_path / "file").write_text("")
    for _ in range(2):
        index = index_recordings(recordings, "audio", cache_dir=tmp_path / "file" / "cache")
        assert len(index.seconds) == 1
    assert "cannot be kept for the next run" in caplog.text


@pytest.mark.parametrize("content", ["[]", "{}", "[1.0, 2.0]", "[1.", "null"])
def test_a_cache_that_holds_something_else_is_measured_anew(tmp_path, content):
    record(tmp_path / "a.wav")
    recordings = scan_folder(tmp_path)["train"]
    seconds = index_recordings(recordings, "audio", cache_dir=tmp_path / "cache").seconds
    (cached,) = (tmp_path / "cache" / "mbt_lengths").iterdir()
    cached.write_text(content)
    assert index_recordings(recordings, "audio", cache_dir=tmp_path / "cache").seconds == seconds
