"""The index of recordings: their lengths, the bad ones, its cache."""

import os

import numpy as np
import pytest
import soundfile
from datasets import Dataset, config

from feature_extraction.speech import BadAudioError
from mbt_speech.data import recording_index
from mbt_speech.data.recording_folder import scan_folder
from mbt_speech.data.recording_index import AudioColumn, index_recordings
from mbt_speech.data.sources import report_bad_audio
from mbt_speech.run_arguments import RunArguments
from tests.support.recordings import RATE, record, relative_paths


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


def test_recordings_that_any_process_finds_bad_are_listed_once(tmp_path, capsys):
    args = RunArguments(output_dir=str(tmp_path), train_dir="speech")
    for bad in ([("b.wav", "empty")], [], [("a.wav", "truncated"), ("b.wav", "empty")], [("a.wav", "truncated")]):
        report_bad_audio(args, bad)
    assert (tmp_path / "bad_audio.txt").read_text().splitlines() == ["a.wav\ttruncated", "b.wav\tempty"]
    told = [line.split(" recordings")[0] for line in capsys.readouterr().out.splitlines()]
    assert told == ["1", "2"]


def test_arrays_go_before_the_path_that_they_were_read_from(tmp_path):
    audio = {"array": [0.1] * RATE, "sampling_rate": RATE, "path": str(record(tmp_path / "a.wav", 0.5))}
    dataset = Dataset.from_dict({"audio": [audio, {**audio, "path": "gone.wav"}]})
    assert index_recordings(dataset, "audio", cache_dir=tmp_path / "cache").seconds.tolist() == [1.0, 1.0]


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


def test_paths_of_a_folder_are_read_at_once_and_not_row_by_row(tmp_path, monkeypatch):
    first = record(tmp_path / "set" / "0.wav")
    for n in range(1, 100):
        os.link(first, tmp_path / "set" / f"{n}.wav")
    train, read = scan_folder(tmp_path / "set")["train"], []
    get = Dataset.__getitem__
    monkeypatch.setattr(Dataset, "__getitem__", lambda dataset, key: read.append(key) or get(dataset, key))
    assert len(index_recordings(train, "audio", cache_dir=tmp_path / "cache").seconds) == 100
    assert 0 < len(read) < 5


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


def test_what_was_bad_is_looked_at_again(tmp_path, monkeypatch):
    for name in "ab":
        record(tmp_path / "set" / f"{name}.wav", 0.2)
    train = scan_folder(tmp_path / "set")["train"]
    measured = []

    def failing_disk(audio, *, name, **kwargs):
        measured.append(os.path.basename(name))
        if len(measured) == 1:
            raise BadAudioError(name, "cannot be read: the disk is busy.")
        return 0.2

    monkeypatch.setattr(recording_index.os, "cpu_count", lambda: 1)
    monkeypatch.setattr(recording_index, "recording_seconds", failing_disk)
    first = index_recordings(train, "audio", on_bad_audio="skip", cache_dir=tmp_path / "cache")
    assert (len(first.dataset), len(first.bad)) == (1, 1)
    again = index_recordings(train, "audio", on_bad_audio="skip", cache_dir=tmp_path / "cache")
    assert (len(again.dataset), again.bad) == (2, [])
    assert first.fingerprint != again.fingerprint, "representations of one clip would be taken for those of two"
    assert measured == ["a.wav", "b.wav", "a.wav"]


def test_arrays_without_a_rate_have_that_of_the_model(tmp_path):
    arrays = Dataset.from_dict({"audio": [[0.0] * 8_000]})
    for rate, seconds in ((8_000, 1.0), (16_000, 0.5)):
        index = index_recordings(arrays, "audio", sampling_rate=rate, cache_dir=tmp_path)
        assert index.seconds.tolist() == [seconds]
