"""What the data loaders read: random crops and labeled clips. Axes: B items, S samples."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from datasets import Audio, Dataset
from torch.utils.data import DataLoader

from feature_extraction.speech import BadAudioError, to_waveform
from mbt_speech.data.crops import ClipDataset, CropDataset, collate_clips, collate_crops
from mbt_speech.data.recording_folder import scan_folder
from mbt_speech.data.recording_index import index_recordings
from mbt_speech.user_errors import as_sentence

RATE = 8_000
SECONDS = {"a.wav": 0.3, "b.flac": 1.0, "c.wav": 2.6, "d.wav": 10.0}


def ramp(recording: int, seconds: float) -> np.ndarray:
    """Samples that tell the recording and their own place in it, (S,)."""
    return (recording + np.arange(round(seconds * RATE)) / 200_000) / 8


@pytest.fixture
def recordings(tmp_path):
    """Four recordings of different lengths, indexed."""
    for recording, (name, seconds) in enumerate(SECONDS.items()):
        subtype = "PCM_24" if name.endswith("flac") else "FLOAT"
        soundfile.write(tmp_path / name, ramp(recording, seconds), RATE, subtype=subtype)
    return index_recordings(scan_folder(tmp_path)["train"], "audio", cache_dir=tmp_path / "cache")


def crops_of(recordings, **kwargs) -> CropDataset:
    options = {"crop_seconds": 1.0, "sampling_rate": RATE, **kwargs}
    return CropDataset(recordings.dataset, "audio", recordings.seconds, **options)


def batch_of(dataset, items, epoch: int = 0) -> dict:
    items = [dataset[epoch, item] for item in items]
    return collate_crops(items) if isinstance(dataset, CropDataset) else collate_clips(items)


def places(waveforms: torch.Tensor) -> list[tuple[int, int]]:
    """Returns which recording each crop is from, and at which sample it starts."""
    found = []
    for first in waveforms[:, 0].tolist():
        recording = int(first * 8)
        found.append((recording, round((first * 8 - recording) * 200_000)))
    return found


def test_recordings_are_visited_in_proportion_to_their_length(recordings):
    crops = crops_of(recordings)
    assert len(crops) == 1 + 1 + 3 + 10
    batch = batch_of(crops, range(15))
    assert [recording for recording, _ in places(batch["waveforms"])] == [0, 1] + [2] * 3 + [3] * 10


def test_a_crop_is_a_piece_of_its_recording_and_a_short_one_ends_in_zeros(recordings):
    crops = crops_of(recordings)
    batch = batch_of(crops, range(15))
    assert batch["waveforms"].shape == (15, RATE)
    assert batch["waveforms"].dtype == torch.float32
    assert batch["lengths"].tolist() == [2_400] + [RATE] * 14
    assert not batch["waveforms"][0, 2_400:].any()
    starts = []
    for row, (recording, start) in enumerate(places(batch["waveforms"])):
        seconds = list(SECONDS.values())[recording]
        length = int(batch["lengths"][row])
        expected = ramp(recording, seconds)[start : start + length]
        np.testing.assert_allclose(batch["waveforms"][row, :length], expected, atol=1e-6)
        starts.append(start)
    assert len(set(starts[5:])) == 10  # ten places in the longest recording


def test_crops_reach_from_the_first_sample_of_a_recording_to_the_last(tmp_path):
    soundfile.write(tmp_path / "a.wav", ramp(0, 0.105), RATE, subtype="FLOAT")
    index = index_recordings(scan_folder(tmp_path)["train"], "audio", cache_dir=tmp_path / "cache")
    crops = CropDataset(index.dataset, "audio", index.seconds, crop_seconds=0.1, sampling_rate=RATE)
    starts = {places(batch_of(crops, [0], epoch)["waveforms"])[0][1] for epoch in range(400)}
    assert starts == set(range(41))


def test_crops_depend_on_seed_epoch_and_item_alone(recordings):
    crops = crops_of(recordings, seed=5)
    first = places(batch_of(crops, range(15))["waveforms"])
    second = places(batch_of(crops, range(15), epoch=1)["waveforms"])
    assert [recording for recording, _ in first] == [recording for recording, _ in second]
    assert all(there != here for there, here in zip(first[5:], second[5:], strict=True))
    assert places(batch_of(crops, reversed(range(15)))["waveforms"])[::-1] == first
    assert places(collate_crops([crops[item] for item in range(15)])["waveforms"]) == first  # a bare item: epoch 0
    assert places(batch_of(crops_of(recordings, seed=6), range(15))["waveforms"]) != first


def load(crops: CropDataset, workers: int) -> list[torch.Tensor]:
    keys = [(epoch, item) for epoch in (0, 1) for item in range(len(crops))]
    loader = DataLoader(crops, 4, sampler=keys, num_workers=workers, collate_fn=collate_crops)
    return [batch["waveforms"] for batch in loader]


def test_workers_give_the_crops_of_no_worker(recordings):
    alone = load(crops_of(recordings), 0)
    assert not torch.equal(torch.cat(alone)[:15], torch.cat(alone)[15:])
    for here, there in zip(alone, load(crops_of(recordings), 2), strict=True):
        assert torch.equal(here, there)


@pytest.mark.parametrize("threads", [1, 2, 7, 30])
def test_threads_give_a_batch_the_crops_of_its_items(recordings, monkeypatch, threads):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr("mbt_speech.data.crops.MAX_THREADS", threads)
    crops = crops_of(recordings)
    keys = [(1, item) for item in reversed(range(15))]
    batch = collate_crops(crops.__getitems__(keys))
    assert torch.equal(batch["waveforms"], collate_crops([crops[key] for key in keys])["waveforms"])
    assert crops.__getitems__([]) == []


def test_crops_survive_pickling_as_spawned_workers_need(recordings):
    crops = crops_of(recordings)
    unpickled = pickle.loads(pickle.dumps(crops))
    assert torch.equal(batch_of(unpickled, range(15))["waveforms"], batch_of(crops, range(15))["waveforms"])


def test_two_crops_of_an_utterance_are_drawn_independently(recordings):
    crops = crops_of(recordings, crops_per_item=2)
    batch = batch_of(crops, range(15))
    first, second = places(batch["waveforms"]), places(batch["second_waveforms"])
    assert [recording for recording, _ in first] == [recording for recording, _ in second]
    assert all(here != there for here, there in zip(first[5:], second[5:], strict=True))
    assert batch["second_lengths"].tolist() == batch["lengths"].tolist()
    assert set(collate_crops([crops_of(recordings)[0]])) == {"waveforms", "lengths", "bad"}


def test_crops_inside_a_data_set_and_of_other_rates_are_the_same(tmp_path, recordings):
    values = [{"bytes": Path(value["path"]).read_bytes(), "path": None} for value in recordings.dataset["audio"]]
    inside = Dataset.from_dict({"audio": values}).cast_column("audio", Audio(decode=False))
    crops = CropDataset(inside, "audio", recordings.seconds, crop_seconds=1.0, sampling_rate=RATE)
    for item in (0, 1, 7):
        np.testing.assert_array_equal(crops[item].waveforms, crops_of(recordings)[item].waveforms)
    resampled = crops_of(recordings, sampling_rate=16_000)
    assert resampled[0].waveforms.shape == (1, 16_000)
    assert [int(resampled[item].lengths[0]) for item in range(15)] == [4_800] + [16_000] * 14


@pytest.fixture
def damaged(tmp_path, recordings):
    """The same recordings, of which two have become bad since they were indexed."""
    (tmp_path / "a.wav").unlink()
    soundfile.write(tmp_path / "b.flac", ramp(1, 0.2), RATE)
    return recordings


def test_a_crop_that_cannot_be_read_is_replaced_and_reported(damaged):
    crops = crops_of(damaged, on_bad_audio="skip")
    batch = next(iter(DataLoader(crops, batch_size=15, num_workers=1, collate_fn=collate_crops)))
    assert batch["waveforms"].shape == (15, RATE)
    assert {recording for recording, _ in places(batch["waveforms"])} <= {1, 2, 3}
    names = {os.path.basename(name): reason for name, reason in batch["bad"]}
    assert names["a.wav"] == "does not exist."
    with pytest.raises(BadAudioError, match=r"a\.wav does not exist"):
        crops_of(damaged)[0]


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_the_main_process_learns_which_recording_is_bad(damaged, workers):
    loader = DataLoader(crops_of(damaged), batch_size=15, num_workers=workers, collate_fn=collate_crops)
    with pytest.raises(BadAudioError, match=r"a\.wav does not exist"):
        next(iter(loader))


def test_substitutes_end_when_everything_is_bad(tmp_path, recordings):
    for name in SECONDS:
        (tmp_path / name).unlink()
    with pytest.raises(BadAudioError, match="does not exist"):
        crops_of(recordings, on_bad_audio="skip")[0]


def clips_of(recordings, **kwargs) -> ClipDataset:
    return ClipDataset(
        recordings.dataset, "audio", recordings.seconds, np.array([3, 1, 4, 1]), sampling_rate=RATE, **kwargs
    )


def test_clips_are_whole_and_padded_to_the_longest(recordings):
    clips = clips_of(recordings)
    batch = batch_of(clips, (0, 2, 1))
    assert batch["waveforms"].shape == (3, 20_800)
    assert batch["lengths"].tolist() == [2_400, 20_800, 8_000]
    assert batch["labels"].tolist() == [3, 4, 1]
    assert batch["labels"].dtype == torch.int64
    for row, value in enumerate([recordings.dataset[item]["audio"] for item in (0, 2, 1)]):
        length = int(batch["lengths"][row])
        np.testing.assert_array_equal(batch["waveforms"][row, :length], to_waveform(value, RATE))
        assert not batch["waveforms"][row, length:].any()


def test_long_clips_are_cut_at_the_start_or_anew_every_epoch(recordings):
    first = batch_of(clips_of(recordings, max_seconds=0.5), range(4))
    assert first["lengths"].tolist() == [2_400, 4_000, 4_000, 4_000]
    assert [start for _, start in places(first["waveforms"])] == [0, 0, 0, 0]

    def starts(seed, epoch):
        clips = clips_of(recordings, max_seconds=0.5).cut_at_random(seed)
        return [start for _, start in places(batch_of(clips, range(4), epoch)["waveforms"])]

    drawn = [starts(seed, epoch) for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    assert drawn[0] == starts(0, 0)
    assert [first for first, *_ in drawn] == [0, 0, 0]
    assert all(len(set(cuts)) == 3 for cuts in zip(*(rest for _, *rest in drawn), strict=True))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_the_error_of_a_bad_clip_is_one_sentence_also_from_a_worker(damaged, num_workers):
    with pytest.raises(BadAudioError) as error:
        list(DataLoader(clips_of(damaged), batch_size=4, num_workers=num_workers, collate_fn=collate_clips))
    assert as_sentence(error.value).endswith("a.wav does not exist.")
    assert len(as_sentence(error.value).splitlines()) == 1
    assert "Traceback" not in as_sentence(error.value)


def test_crops_of_an_mp3_print_nothing(tmp_path, capfd):
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 10 * 44_100)
    path = tmp_path / "a.mp3"
    soundfile.write(path, noise, 44_100, bitrate_mode="VARIABLE", compression_level=0.9)
    crops = CropDataset(Dataset.from_dict({"audio": [str(path)]}), "audio", np.array([10.0]), crop_seconds=0.5)
    assert [int(crops[item].lengths[0]) for item in range(10)] == [8_000] * 10
    assert [int(item.lengths[0]) for item in crops.__getitems__(range(10))] == [8_000] * 10
    assert capfd.readouterr() == ("", "")
    to_waveform(path, start_seconds=1.0)  # beside training, libmpg123 is left to print
    os.write(2, b"heard")
    assert capfd.readouterr().err.endswith("heard")


def test_arguments_that_do_not_fit_are_refused(recordings):
    with pytest.raises(ValueError, match="4 recordings and 3 lengths"):
        CropDataset(recordings.dataset, "audio", recordings.seconds[:3], crop_seconds=1.0)
    with pytest.raises(ValueError, match="4 recordings and 3 labels"):
        ClipDataset(recordings.dataset, "audio", recordings.seconds, np.zeros(3))
    with pytest.raises(ValueError, match="must be 1 or 2"):
        crops_of(recordings, crops_per_item=3)
    with pytest.raises(ValueError, match="raise or skip"):
        crops_of(recordings, on_bad_audio="ignore")
