"""Folders of sound files: what they hold, their labels and splits, their metadata."""

import json
import logging
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Audio

from feature_extraction.speech import to_waveform
from mbt_speech.data.recording_folder import scan_folder
from mbt_speech.data.recording_index import index_recordings
from mbt_speech.data.recordings import load_recordings
from mbt_speech.data.splits import are_split_by_column, split_rows
from tests.support.recordings import record, relative_paths

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


def test_a_folder_that_holds_everything_below_the_parts_is_no_label(tmp_path):
    for name in ("train/audio/yes/1.wav", "train/audio/no/2.wav", "test/audio/yes/3.wav"):
        record(tmp_path / name)
    splits = scan_folder(tmp_path)
    assert {split: splits[split]["label"][:] for split in splits} == {"train": ["no", "yes"], "test": ["yes"]}


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
    for name in ("1.wav", "2.wav"):
        record(tmp_path / name)
    rows = [
        {"file_name": "1.wav", "number": "-3", "code": "007", "word": "None", "gap": "4", "big": "1" * 19},
        {"file_name": "2.wav", "number": "12", "code": "12", "word": "NA", "gap": None, "big": "2"},
    ]
    write_metadata(tmp_path, "csv", rows)
    train = scan_folder(tmp_path)["train"]
    assert train["number"][:] == [-3, 12]
    assert train["code"][:] == ["007", "12"]
    assert train["word"][:] == ["None", "NA"]
    assert train["gap"][:] == [4, None]
    assert train["big"][:] == ["1" * 19, "2"]


def test_cells_of_all_csv_files_have_one_type(tmp_path):
    for split, code in (("train", "007"), ("test", "112")):
        record(tmp_path / split / "1.wav")
        write_metadata(tmp_path / split, "csv", [{"file_name": "1.wav", "code": code}])
    splits = scan_folder(tmp_path)
    assert {split: splits[split]["code"][:] for split in splits} == {"test": ["112"], "train": ["007"]}


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
        "file_name,label,label\n1.wav,a,b\n": "more than one column 'label'",
        "file_name,label\n1.wav,a\n./1.wav,b\n": "lists 1 recordings more than once",
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
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "1.wav", "y": 1}\n{"file_name": "2.wav", "y": "a"}\n')
    with pytest.raises(ValueError, match="mixes types"):
        scan_folder(tmp_path)
    (tmp_path / "metadata.jsonl").unlink()
    (tmp_path / "metadata.parquet").write_bytes(b"no parquet")
    with pytest.raises(ValueError, match="cannot be read"):
        scan_folder(tmp_path)


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


def test_a_column_of_splits_says_more_than_the_names_of_folders(tmp_path):
    rows = [{"file_name": "TRAIN/1.wav", "split": "test"}, {"file_name": "TEST/2.wav", "split": "train"},
            {"file_name": "TEST/3.wav", "split": "dev"}]  # fmt: skip
    for row in rows:
        record(tmp_path / row["file_name"])
    write_metadata(tmp_path, "csv", rows)
    splits = scan_folder(tmp_path)
    found = split_rows(splits, None, by_column=are_split_by_column(splits, None))
    names = splits["train"]["split"]
    assert {split: [names[row] for row in rows] for split, rows in found.items()} == {
        "train": ["train"], "validation": ["dev"], "test": ["test"]
    }  # fmt: skip


def test_a_number_that_fits_into_no_column_is_refused(tmp_path):
    record(tmp_path / "1.wav")
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "1.wav", "label": 99999999999999999999999999}')
    with pytest.raises(ValueError, match="its numbers are too large"):
        scan_folder(tmp_path)
