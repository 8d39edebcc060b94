"""Speakers of the synthetic corpus: their voices, words, and the helpers that speak."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mbt_speech.corpora.synthetic import corpus as corpus_module
from mbt_speech.corpora.synthetic.build import build_corpus
from mbt_speech.corpora.synthetic.plan import SIZES, CorpusSize, plan_labelled
from mbt_speech.corpora.synthetic.synthesis import SynthesisJob, Utterance, place, say_within
from mbt_speech.corpora.synthetic.text import sentence
from mbt_speech.corpora.synthetic.voices import STYLES, draw_speaker, voice_file

ROOT = Path(__file__).parents[2]


def test_women_and_men_differ_in_pitch_and_formants_and_overlap():
    rng = np.random.default_rng(0)
    women, men = ([draw_speaker("x", gender, rng) for _ in range(300)] for gender in ("female", "male"))
    for attribute in (lambda s: s.pitch_hz, lambda s: np.mean(s.formant_scale)):
        high, low = (np.array([attribute(speaker) for speaker in speakers]) for speakers in (women, men))
        assert np.median(high) > 1.1 * np.median(low)
        assert np.percentile(high, 2) < np.percentile(low, 98)


def test_a_voice_file_carries_the_speakers_pitch_and_the_styles_factor():
    speaker = draw_speaker("x", "female", np.random.default_rng(0))
    pitch = {}
    for style in STYLES:
        lines = dict(line.split(" ", 1) for line in voice_file(speaker, style).splitlines())
        base, top = map(int, lines["pitch"].split())
        assert base < top
        assert all(0 <= int(amplitude) <= 255 for amplitude in lines["tone"].split()[1::2])
        pitch[style] = base
    assert pitch["loud"] == pytest.approx(speaker.pitch_hz * STYLES["loud"].pitch, abs=0.5)
    assert pitch["soft"] < pitch["plain"] < pitch["lively"]


def test_a_sentence_has_about_the_words_asked_for_and_hardly_ever_repeats():
    rng = np.random.default_rng(0)
    sentences = [sentence(9, rng) for _ in range(500)]
    lengths = [len(words.split()) for words in sentences]
    assert min(lengths) >= 8
    assert 9 < np.mean(lengths) < 13
    assert len(set(sentences)) == 500


class _SlowSpeaker:
    """Takes 90 seconds per word and minute of rate, as espeak-ng would for one very long word."""

    sampling_rate = 22_050

    def say(self, text, voice, rate_wpm, pitch):
        seconds = 90 / rate_wpm
        return np.ones(int(self.sampling_rate * (seconds + 0.1)), np.int16), [("a", 0.05, 0.05 + seconds)]


def test_a_word_that_does_not_fit_is_said_faster():
    utterance = Utterance("word", "voice", 60, 50, 0.9, 1.0, 0.0, (0,), (0,))
    _, phones = say_within(_SlowSpeaker(), utterance)
    assert 0.7 < phones[0][2] - phones[0][1] <= 0.9


def test_placing_a_word_moves_its_phones_along_with_its_samples():
    speech = np.zeros(22_050, np.int16)
    speech[4410:8820] = 16_384
    offsets = set()
    for seed in range(20):
        clip, phones = place(speech, [("a", 0.2, 0.4)], 22_050, 1.0, np.random.default_rng(seed))
        assert clip.shape == (22_050,)
        spoken = np.flatnonzero(clip) / 22_050
        assert phones == [("a", pytest.approx(spoken[0], abs=1e-4), pytest.approx(spoken[-1], abs=1e-4))]
        assert clip.max() == 0.5
        offsets.add(round(spoken[0], 1))
    assert len(offsets) > 4


def test_a_helper_that_fails_is_reported_with_its_speaker_and_reason(tmp_path):
    _, data, _ = corpus_module._find_espeak()
    with pytest.raises(RuntimeError, match=r"(?s)speaker c00\d failed.*no-such-library"):
        build_corpus(SIZES["tiny"], tmp_path / "no-such-library.so", data, tmp_path, 1)


def test_a_job_survives_its_journey_to_the_helper():
    utterances = plan_labelled(CorpusSize(1, ("no",), 2, 0, 0))[0].utterances
    job = SynthesisJob("library", "folder", "output", None, utterances)
    assert SynthesisJob.from_json(job.to_json()).to_json() == job.to_json()


def test_the_helper_process_starts_without_the_heavy_libraries():
    heavy = "{'torch', 'datasets', 'transformers', 'scipy', 'pyarrow'}"
    code = f"import sys, mbt_speech.corpora.synthetic.synthesis; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
