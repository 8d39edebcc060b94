"""Recordings that are read as they come, and data sets that are mixed."""

import io
import tarfile
from itertools import islice

import numpy as np
import pytest
import soundfile as sf
from datasets import Audio, Dataset
from torch.utils.data import DataLoader

import run_pretrain
from feature_extraction.speech import BadAudioError
from mbt_speech.data.crops import collate_crops
from mbt_speech.data.recordings import load_stream
from mbt_speech.data.streams import StreamedCrops
from mbt_speech.training.run_log import read_log
from tests.support.sounds import SAMPLING_RATE

NUM_SHARDS, PER_SHARD = 4, 3


@pytest.fixture(autouse=True)
def no_sleep(monkeypatch):
    """`datasets` waits five seconds for its threads at the end of every pass."""
    monkeypatch.setattr("datasets.config.SLEEP_TIME_ON_THREADS_SHUTDOWN", 0)


def flac(level: float, seconds=0.6) -> bytes:
    file = io.BytesIO()
    sf.write(file, np.full(round(seconds * SAMPLING_RATE), level, np.float32), SAMPLING_RATE, format="flac")
    return file.getvalue()


def write_shards(folder, column="audio", first=1, shards=NUM_SHARDS):
    """Recordings of constant level, by which a crop tells which recording it is of: level = number / 100."""
    folder.mkdir()
    for shard in range(shards):
        numbers = range(first + shard * PER_SHARD, first + (shard + 1) * PER_SHARD)
        rows = {column: [{"bytes": flac(n / 100), "path": f"{n}.flac"} for n in numbers], "number": list(numbers)}
        dataset = Dataset.from_dict(rows).cast_column(column, Audio(decode=False))
        dataset.to_parquet(folder / f"train-{shard:05d}-of-{shards:05d}.parquet")
    return folder


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("parquet") / "shards")


def numbers_of(crops, count):
    return [round(100 * float(np.median(item.waveforms[0][: item.lengths[0]]))) for item in islice(crops, count)]


def stream_of(folder, **kwargs):
    stream, column = load_stream(str(folder), split="train")
    return StreamedCrops(stream, column, **{"crop_seconds": 0.5, "buffer_size": 5, **kwargs})


ALL = list(range(1, NUM_SHARDS * PER_SHARD + 1))


def test_every_pass_takes_each_recording_once_in_another_order(shards):
    numbers = numbers_of(stream_of(shards), 2 * len(ALL))
    first, second = numbers[: len(ALL)], numbers[len(ALL) :]
    assert sorted(first) == sorted(second) == ALL
    assert first != second
    assert numbers_of(stream_of(shards), 5) == first[:5]
    assert numbers_of(stream_of(shards, seed=1), len(ALL)) != first


def test_a_stream_that_goes_on_after_some_steps_has_another_order_and_other_places(shards):
    begun, going_on = stream_of(shards), stream_of(shards)
    going_on.start_at(3)
    assert sorted(numbers_of(going_on, len(ALL))) == ALL
    assert numbers_of(going_on, len(ALL)) != numbers_of(begun, len(ALL))


@pytest.mark.parametrize("num_processes", [2, 3])
def test_processes_and_workers_share_the_recordings(shards, num_processes):
    shares = []
    for index in range(num_processes):
        crops = stream_of(shards, num_processes=num_processes, process_index=index)
        count = len(ALL) // num_processes
        shares += numbers_of(crops, count)
    assert sorted(shares) == ALL
    crops = stream_of(shards, num_processes=2, process_index=0)
    loader = DataLoader(crops, batch_size=3, num_workers=2, collate_fn=collate_crops, drop_last=True)
    levels = [
        round(100 * float(level)) for batch in islice(loader, 2) for level in batch["waveforms"].median(1).values
    ]
    assert sorted(levels) == sorted(numbers_of(stream_of(shards, num_processes=2, process_index=0), 6))


def test_a_short_recording_ends_in_zeros(shards):
    item = next(iter(stream_of(shards, crop_seconds=0.8, crops_per_item=2)))
    assert item.waveforms.shape == (2, round(0.8 * SAMPLING_RATE))
    assert item.lengths.tolist() == [round(0.6 * SAMPLING_RATE)] * 2
    assert not item.waveforms[:, item.lengths[0] :].any()


def test_a_bad_recording_stops_the_stream_or_is_skipped_and_reported(tmp_path):
    folder = write_shards(tmp_path / "shards")
    rows = {"audio": [{"bytes": b"no sound", "path": "bad.flac"}] * 2, "number": [0, 0]}
    dataset = Dataset.from_dict(rows).cast_column("audio", Audio(decode=False))
    dataset.to_parquet(folder / "train-00009-of-00010.parquet")
    with pytest.raises(BadAudioError, match=r"bad\.flac"):
        numbers_of(stream_of(folder), 2 * len(ALL))
    items = list(islice(stream_of(folder, on_bad_audio="skip"), 2 * len(ALL)))
    assert {name for item in items for name, _ in item.bad} == {"bad.flac"}


def test_tar_shards_are_read_too(tmp_path):
    for shard in range(2):
        with tarfile.open(tmp_path / f"train-{shard}.tar", "w") as archive:
            for number in (1 + 2 * shard, 2 + 2 * shard):
                content = flac(number / 100)
                entry = tarfile.TarInfo(f"{number}.flac")
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    assert sorted(numbers_of(stream_of(tmp_path), 4)) == [1, 2, 3, 4]


def test_files_that_a_stream_names_by_their_address_are_fetched(tmp_path):
    (tmp_path / "a.flac").write_bytes(flac(0.07))
    address = (tmp_path / "a.flac").as_uri()
    dataset = Dataset.from_dict({"audio": [{"bytes": None, "path": address}]}).cast_column(
        "audio", Audio(decode=False)
    )
    assert numbers_of(StreamedCrops(dataset.to_iterable_dataset(), "audio", crop_seconds=0.5), 2) == [7, 7]


def pretrain(output_dir, *words):
    run_pretrain.main(
        ["--preset", "tiny", "--per_device_train_batch_size", "4", "--logging_steps", "1", "--save_steps", "2",
         "--output_dir", str(output_dir), *map(str, words)]
    )  # fmt: skip
    return output_dir


@pytest.mark.slow
def test_pre_training_on_a_stream_resumes_twice_approximately_and_says_so(shards, tmp_path, capsys):
    words = ["--dataset_name", shards, "--streaming", "--shuffle_buffer_size", 6, "--resume_from_checkpoint", "auto"]
    words += ["--dataloader_num_workers", 1, "--gradient_accumulation_steps", 2]
    for max_steps in (3, 5, 7):
        run = pretrain(tmp_path / "run", *words, "--max_steps", max_steps)
        assert [line["step"] for line in read_log(run)] == list(range(1, max_steps + 1))
    said = capsys.readouterr().out
    assert said.count("A stream does not resume where it stopped") == 2
    assert "on a stream: 7 steps of 8 pairs" in said
    assert all(np.isfinite(line["loss"]) for line in read_log(run))


@pytest.mark.slow
@pytest.mark.parametrize("streaming", [False, True])
def test_data_sets_are_mixed_by_their_probabilities(shards, tmp_path, monkeypatch, streaming):
    other = write_shards(tmp_path / "other", column="sound", first=50, shards=1)
    seen = []
    original = run_pretrain.make_views

    def make_views(accelerator, batch, *args):
        seen.extend(round(100 * float(level)) for level in batch["waveforms"].median(1).values)
        return original(accelerator, batch, *args)

    monkeypatch.setattr(run_pretrain, "make_views", make_views)
    words = ["--dataset_name", shards, "--interleave_datasets", other, "--interleave_probabilities", 0.25, 0.75]
    pretrain(tmp_path / "run", *words, "--max_steps", 20, *(["--streaming"] if streaming else []))
    share = np.mean(np.array(seen) >= 50)
    assert 0.6 < share < 0.9
    assert set(seen) <= {*ALL, 50, 51, 52}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--streaming"], "--max_steps"),
        (["--interleave_datasets", "a", "--interleave_probabilities", "1"], "one number for each of 2 data sets"),
        (["--interleave_datasets", "a", "--interleave_probabilities", "1", "1"], "add up to 2"),
    ],
)
def test_what_a_mixture_or_a_stream_needs_is_said(shards, tmp_path, capsys, words, message):
    with pytest.raises(SystemExit):
        pretrain(tmp_path, "--dataset_name", shards, *words)
    assert message in capsys.readouterr().err
