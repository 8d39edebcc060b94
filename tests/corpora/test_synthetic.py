"""The built-in synthetic corpus: what it promises about labels, splits, determinism and its cache."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from feature_extraction import MBTFeatureExtractor
from mbt_speech.corpora.synthetic import corpus as corpus_module
from mbt_speech.corpora.synthetic.build import build_corpus
from mbt_speech.corpora.synthetic.corpus import corpus_summary, load_corpus
from mbt_speech.corpora.synthetic.plan import SIZES, CorpusSize, plan_labelled, plan_unlabelled
from mbt_speech.corpora.synthetic.text import KEYWORDS
from mbt_speech.data.segments import holds_segments, read_segments

LABELS = ("speaker", "gender", "keyword", "style")
ROOT = Path(__file__).parents[2]


def command_line(cache: Path, *arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "mbt_speech", "prepare", "synthetic", "--size", "tiny", *arguments],
        cwd=ROOT,
        env={**os.environ, "HF_DATASETS_CACHE": str(cache)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def built_twice(tmp_path_factory):
    """The tiny corpus built here by one helper at a time and, by the command line, by three at once."""
    here, there, exported = (tmp_path_factory.mktemp(name) for name in ("here", "there", "exported"))
    other = command_line(there, "--num_proc", "3", "--output_dir", str(exported))
    corpus = load_corpus("tiny", cache_dir=here, num_proc=1)
    output, errors = other.communicate(timeout=600)
    assert other.returncode == 0, errors
    return corpus, load_corpus("tiny", cache_dir=there / "mbt_synthetic_corpus"), output, exported


@pytest.fixture(scope="module")
def corpus(built_twice):
    return built_twice[0]


@pytest.fixture(scope="module")
def labelled(corpus):
    return corpus["labelled"]


def waveforms(dataset) -> list[np.ndarray]:
    decoded = [soundfile.read(io.BytesIO(audio["bytes"]), dtype="float32") for audio in dataset["audio"]]
    assert {rate for _, rate in decoded} == {16_000}
    return [waveform for waveform, _ in decoded]


@pytest.mark.slow
def test_the_number_of_processes_does_not_change_a_bit(built_twice):
    one_process, three_processes, *_ = built_twice
    for part in ("unlabelled", "labelled"):
        assert one_process[part].features == three_processes[part].features
        assert one_process[part].to_list() == three_processes[part].to_list()


@pytest.mark.slow
def test_the_unlabelled_split_says_nothing_about_speakers(corpus):
    assert corpus["unlabelled"].column_names == ["audio", "utterance_id"]
    seconds = [len(waveform) / 16_000 for waveform in waveforms(corpus["unlabelled"])]
    assert len(seconds) == len(set(corpus["unlabelled"]["utterance_id"])) == 60
    assert min(seconds) > 1
    assert max(seconds) < 6.1
    assert 3 < np.mean(seconds) < 5


@pytest.mark.slow
def test_keyword_clips_last_one_second_and_are_neither_silent_nor_clipped(labelled):
    clips = np.stack(waveforms(labelled))
    level_db = 10 * np.log10(np.mean(np.square(clips), axis=1))
    assert clips.shape == (8 * 6 * 4, 16_000)
    assert np.abs(clips).max() < 0.99
    assert level_db.min() > -45
    assert np.ptp(level_db) > 15


@pytest.mark.slow
def test_a_word_is_whole_and_its_phones_lie_where_the_energy_is(labelled):
    louder_inside = []
    for waveform, phones in zip(waveforms(labelled), labelled["phones"], strict=True):
        starts = [phone["start_seconds"] for phone in phones]
        ends = [phone["end_seconds"] for phone in phones]
        assert starts[0] >= 0
        assert ends[-1] <= 1
        assert all(start < end for start, end in zip(starts, ends, strict=True))
        assert all(end <= start + 1e-6 for end, start in zip(ends, starts[1:], strict=False))
        times = np.arange(16_000) / 16_000
        inside = (starts[0] <= times) & (times < ends[-1])
        louder_inside.append(np.mean(waveform[inside] ** 2) > np.mean(waveform[~inside] ** 2))
    assert np.mean(louder_inside) > 0.95


@pytest.mark.slow
def test_phones_are_segments_by_which_frames_are_labeled(labelled):
    assert holds_segments(labelled, "phones")
    ones = np.ones(len(labelled))
    segments = read_segments(labelled, "phones", ones, ones, {})
    assert [own.labels for own in segments] == [[phone["phone"] for phone in own] for own in labelled["phones"]]


@pytest.mark.slow
def test_phones_spell_the_word(labelled):
    keywords = labelled.features["keyword"].names
    for keyword, phones in zip(labelled["keyword"], labelled["phones"], strict=True):
        assert phones[0]["phone"][0] == {"wow": "w", "marvin": "m"}.get(keywords[keyword], keywords[keyword][0])
        assert not any(phone["phone"].startswith("_") for phone in phones)


@pytest.mark.slow
def test_splits_share_no_speaker_and_have_as_many_women_as_men(labelled):
    table = labelled.remove_columns("audio").to_pandas()
    assert table.groupby("speaker")["split"].nunique().max() == 1
    for _, part in table.groupby("split"):
        speakers_by_gender = part.groupby("gender")["speaker"].nunique()
        assert speakers_by_gender.nunique() == 1


@pytest.mark.slow
def test_splits_by_take_share_no_room_or_take_and_have_every_speaker(labelled):
    table = labelled.remove_columns("audio").to_pandas()
    assert table.groupby("room")["speaker_split"].nunique().max() == 1
    assert table.groupby("take")["speaker_split"].nunique().max() == 1
    assert (table.groupby("speaker_split")["speaker"].nunique() == 8).all()


@pytest.mark.slow
@pytest.mark.parametrize("split", ["split", "speaker_split"])
def test_every_class_that_a_split_can_hold_is_in_each_of_its_parts(labelled, split):
    table = labelled.remove_columns("audio").to_pandas()
    assert set(table[split]) == {"train", "validation", "test"}
    for name in set(LABELS) - ({"speaker"} if split == "split" else set()):
        assert (table.groupby(split)[name].nunique() == labelled.features[name].num_classes).all()


@pytest.mark.slow
def test_a_drawled_word_lasts_longer_than_a_lively_one(labelled):
    seconds = np.array([phones[-1]["end_seconds"] - phones[0]["start_seconds"] for phones in labelled["phones"]])
    style = np.array(labelled["style"])
    names = labelled.features["style"].names
    mean = {name: seconds[style == names.index(name)].mean() for name in names}
    assert mean["drawled"] > 1.2 * mean["lively"]


def test_the_sizes_hold_what_they_promise():
    assert len(KEYWORDS) == len(set(KEYWORDS)) == 35
    assert SIZES["small"].keywords == SIZES["base"].keywords == KEYWORDS
    for size in (SIZES["tiny"], SIZES["small"]):
        sessions = [*plan_labelled(size), *plan_unlabelled(size)]
        names = [session.speaker.name for session in sessions]
        assert len(names) == len(set(names)) == size.labelled_speakers + size.unlabelled_speakers
        seeds = [utterance.take_seed for session in sessions for utterance in session.utterances]
        assert len(seeds) == len(set(seeds))
    assert SIZES["small"].labelled_speakers >= 40
    assert SIZES["small"].unlabelled_speakers >= 60


@pytest.mark.slow
def test_the_export_is_a_folder_of_wavs_beside_a_metadata_table(built_twice):
    corpus, _, _, exported = built_twice
    for part, dataset in corpus.items():
        with open(exported / part / "metadata.csv", newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        assert len(rows) == len(dataset) == len(list((exported / part).glob("*.wav")))
        for row, original in zip(rows[::17], dataset.select(range(0, len(dataset), 17)), strict=True):
            assert (exported / part / row["file_name"]).read_bytes() == original["audio"]["bytes"]
            for name in LABELS if part == "labelled" else ():
                assert dataset.features[name].str2int(row[name]) == original[name]
            if part == "labelled":
                assert json.loads(row["phones"]) == original["phones"]
                assert {row["split"], row["speaker_split"]} <= {"train", "validation", "test"}


@pytest.mark.slow
def test_the_command_line_says_that_the_speech_is_synthetic(built_twice):
    corpus, _, output, _ = built_twice
    assert output.startswith(corpus_summary(corpus))
    assert output.strip().splitlines()[-1].startswith("The corpus is in")
    assert "synthetic" in output
    assert "labelled: 192 clips, 0.05 hours" in output
    assert "8 speakers, 6 keywords, 5 styles" in output


def test_a_build_that_was_killed_is_not_taken_for_a_corpus(tmp_path):
    process = command_line(tmp_path)
    while process.poll() is None and not list(tmp_path.glob("*/.tiny*/*/speech.npy")):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not list(tmp_path.glob("*/tiny*"))


@pytest.mark.slow
def test_of_two_builds_at_once_the_second_keeps_what_the_first_published(corpus, tmp_path):
    target = tmp_path / "tiny"
    corpus_module._publish(corpus, tmp_path / "first", target)
    before = sorted((path, path.stat().st_mtime_ns) for path in target.rglob("*"))
    corpus_module._publish(corpus, tmp_path / "second", target)
    assert sorted((path, path.stat().st_mtime_ns) for path in target.rglob("*")) == before


@pytest.mark.slow
def test_a_cached_corpus_is_loaded_and_not_built_again(built_twice, tmp_path, monkeypatch):
    corpus, *_ = built_twice
    monkeypatch.setattr(corpus_module, "build_corpus", lambda *_: corpus)
    load_corpus("tiny", cache_dir=tmp_path)
    monkeypatch.delattr(corpus_module, "build_corpus")
    assert load_corpus("tiny", cache_dir=tmp_path)["labelled"][3] == corpus["labelled"][3]


def test_an_unknown_size_is_refused_with_the_names_of_the_known_ones():
    with pytest.raises(ValueError, match="tiny, small, base"):
        load_corpus("huge")


def test_without_espeak_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(ImportError, match=r"pip install \"mbt-speech\[demo\]\""):
        load_corpus("tiny")


def log_mel_statistics(dataset) -> np.ndarray:
    """Returns mean and standard deviation over time of 64 log-mel bands, per clip of one second: (clips, 128)."""
    clips = torch.from_numpy(np.stack(list(waveforms(dataset))).astype(np.float32))
    extractor = MBTFeatureExtractor(feature_size=64)
    features = [extractor.extract(batch, torch.full((len(batch),), batch.shape[1]))[0] for batch in clips.split(256)]
    return torch.cat([torch.cat([one.mean(1), one.std(1)], dim=1) for one in features]).numpy()


@pytest.mark.slow
def test_log_mel_statistics_do_not_solve_the_small_corpus(tmp_path):
    library, data, _ = corpus_module._find_espeak()
    small = SIZES["small"]
    size = CorpusSize(small.labelled_speakers, small.keywords, small.takes, 1, 1)
    labelled = build_corpus(size, library, data, tmp_path, 2)["labelled"]
    statistics = log_mel_statistics(labelled)
    rng = np.random.default_rng(0)
    for label, split in (("keyword", "split"), ("speaker", "speaker_split")):
        classes, parts = np.array(labelled[label]), np.array(labelled[split])
        train, test = np.flatnonzero(parts == "train"), parts == "test"
        few = np.concatenate(
            [rng.choice(ours := train[classes[train] == c], max(1, round(0.05 * ours.size))) for c in set(classes)]
        )
        accuracy = {}
        for name, chosen in (("all", train), ("few", few)):
            probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, tol=1e-2, max_iter=500))
            probe.fit(statistics[chosen], classes[chosen])
            accuracy[name] = probe.score(statistics[test], classes[test])
        assert 0.15 < accuracy["all"] < 0.7, (label, accuracy)
        assert 0.05 < accuracy["few"] < 0.25, (label, accuracy)
