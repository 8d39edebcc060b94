"""Mistakes in labels and names of data sets, each answered in a sentence before the work."""

import pytest
import soundfile as sf
from datasets import Dataset

import run_finetune
import run_pretrain
from mbt_speech.data.recordings import load_recordings, load_stream
from tests.support.sounds import SAMPLING_RATE, chirp


def folder_of(tmp_path, **counts):
    """Recordings in a sub-folder for each class."""
    for label, count in counts.items():
        (tmp_path / "data" / label).mkdir(parents=True)
        for number in range(count):
            sf.write(tmp_path / "data" / label / f"{number}.wav", chirp(0.6, 120 + number, number), SAMPLING_RATE)
    return str(tmp_path / "data")


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"low": 6}, "one label in 'label', low: .* two classes"),
        ({"low": 4, "high": 1}, "'high' .* too few recordings"),
    ],
)
def test_too_few_classes_or_recordings_of_one_are_refused_before_the_work(counts, message, tmp_path, capsys):
    words = ["--model_name_or_path", "random", "--preset", "tiny", "--train_dir", folder_of(tmp_path, **counts)]
    words += ["--label_column_name", "label", "--output_dir", str(tmp_path / "run"), "--freeze_encoder"]
    with pytest.raises(ValueError, match=message):
        run_finetune.main(words)
    assert "Representing" not in capsys.readouterr().err


def test_a_split_that_the_label_map_empties_is_named(tmp_path):
    folder_of(tmp_path / "train", low=3, high=3)
    folder_of(tmp_path / "validation", other=1)
    (tmp_path / "speech").mkdir()
    for split in ("train", "validation"):
        (tmp_path / split / "data").rename(tmp_path / "speech" / split)
    words = ["--model_name_or_path", "random", "--preset", "tiny", "--freeze_encoder", "--label_column_name", "label"]
    words += ["--train_dir", str(tmp_path / "speech"), "--label_map", '{"other": null}']
    words += ["--output_dir", str(tmp_path / "run")]
    with pytest.raises(ValueError, match="--label_map leaves no recording in the split validation"):
        run_finetune.main(words)


def test_a_batch_that_is_larger_than_the_set_is_told_in_recordings(tmp_path):
    words = ["--train_dir", folder_of(tmp_path, low=3), "--output_dir", str(tmp_path / "run"), "--preset", "tiny"]
    with pytest.raises(ValueError, match="There are 3 clips to learn from, fewer than one batch of 8"):
        run_pretrain.main([*words, "--per_device_train_batch_size", "8", "--max_steps", "1"])


@pytest.mark.parametrize("name", ["runs/none", "./none", "/none", "no/such/folder", "C:\\none", "tests/none"])
def test_what_looks_like_a_folder_is_never_asked_of_the_hub(name):
    with pytest.raises(ValueError, match="There is no folder"):
        load_recordings(dataset_name=name)
    with pytest.raises(ValueError, match="There is no folder"):
        load_stream(name, split="train")


def test_a_data_set_that_was_saved_to_disk_is_not_streamed(tmp_path):
    Dataset.from_dict({"audio": ["a.wav"]}).save_to_disk(tmp_path / "data")
    with pytest.raises(ValueError, match="leave --streaming out"):
        load_stream(str(tmp_path / "data"), split="train")
