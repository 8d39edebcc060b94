"""Sets of recordings from wherever they come, and their audio column."""

import pytest
from datasets import Audio, Dataset, DatasetDict

from feature_extraction.speech import recording_seconds, to_waveform
from mbt_speech.data import recordings
from mbt_speech.data.recordings import as_plain_audio, find_audio_column, load_recordings
from tests.support.recordings import RATE, record


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


def test_a_configuration_that_is_not_used_is_warned_of(tmp_path, embedded, caplog):
    embedded.save_to_disk(str(tmp_path / "saved"))
    record(tmp_path / "folder" / "a.wav")
    for name in ("saved", "folder"):
        load_recordings(dataset_name=str(tmp_path / name), dataset_config_name="clean")
        assert f"{name} has no configurations: --dataset_config_name clean is not used." in caplog.text


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


def test_a_damaged_data_set_is_named(tmp_path, embedded):
    folder = tmp_path / "set"
    folder.mkdir()
    embedded.to_parquet(folder / "0.parquet")
    (folder / "1.parquet").write_bytes((folder / "0.parquet").read_bytes()[:-40])
    with pytest.raises(ValueError, match=r"The data set .*set cannot be read: \w+"):
        load_recordings(dataset_name=str(folder), cache_dir=str(tmp_path / "cache"))
    embedded.save_to_disk(tmp_path / "saved")
    (tmp_path / "saved" / "state.json").write_text("{}")
    with pytest.raises(ValueError, match=r"The data set .*saved cannot be read"):
        load_recordings(dataset_name=str(tmp_path / "saved"))


@pytest.mark.parametrize("is_stream", [False, True])
def test_paths_can_be_mixed_and_streamed_like_any_audio(tmp_path, is_stream):
    record(tmp_path / "1.wav", 0.2)
    paths = Dataset.from_dict({"audio": [str(tmp_path / "1.wav")]})
    (row,) = as_plain_audio(paths.to_iterable_dataset() if is_stream else paths, "audio")
    assert row == {"audio": {"bytes": None, "path": str(tmp_path / "1.wav")}}
    assert recording_seconds(row["audio"]) == 0.2
    with pytest.raises(ValueError, match="'audio' cannot be streamed or mixed"):
        as_plain_audio(Dataset.from_dict({"audio": [[0.0, 1.0]]}), "audio")
