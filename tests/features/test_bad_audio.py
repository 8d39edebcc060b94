"""Bad recordings of every kind: one error, one sentence."""

import contextlib
import pickle
import struct
import tracemalloc

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feature_extraction.speech import BadAudioError, recording_seconds, to_waveform
from tests.support.encoded_sounds import FORMATS, RATE, bad, encoded_as, voice_like


@pytest.mark.parametrize("of", [to_waveform, recording_seconds])
def test_files_that_are_no_sound_are_named_with_the_reason(tmp_path, of):
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "text.wav").write_text("This is a text and no sound at all, whatever the name says.")
    (tmp_path / "header.wav").write_bytes(encoded_as("int16", np.zeros(0)))
    (tmp_path / "voice.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(100))
    reasons = {
        "missing.wav": "does not exist.",
        "empty.wav": "is empty (0 bytes).",
        "header.wav": "is empty: it holds 0 samples.",
        ".": "is not a file.",
    }
    for file_name, reason in reasons.items():
        error = bad(tmp_path / file_name, of=of)
        assert (error.name, error.reason) == (str(tmp_path / file_name), reason)
        assert str(error) == f"{error.name} {reason}"
    assert "is not audio" in bad(tmp_path / "text.wav", of=of).reason
    assert "FFmpeg" in bad(tmp_path / "voice.m4a", of=of).reason
    assert bad("null\0byte.wav", of=of).reason
    assert bad("x" * 5_000, of=of).reason


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("kept", [0.3, 0.5, 0.9])
def test_a_truncated_file_is_bad_already_by_its_header(name, kept):
    content = encoded_as(name, voice_like(3.0))
    for of in (recording_seconds, to_waveform):
        assert "truncated" in bad(content[: int(kept * len(content))], of=of).reason


def test_a_piece_that_lies_before_the_damage_of_a_flac_is_still_read():
    content = encoded_as("flac", voice_like(3.0))
    cut = content[: len(content) // 2]
    assert len(to_waveform(cut, duration_seconds=0.5)) == RATE // 2
    assert "truncated" in bad(cut, start_seconds=2.0).reason


@pytest.mark.parametrize(("sample", "reason"), [(np.nan, "NaN"), (np.inf, "infinite"), (-np.inf, "infinite")])
def test_samples_that_are_no_numbers_are_bad(tmp_path, sample, reason):
    samples = voice_like()
    samples[1_234] = sample
    path = tmp_path / "a.wav"
    soundfile.write(path, samples, RATE, subtype="FLOAT")
    assert reason in bad(path).reason
    assert reason in bad(samples).reason
    assert reason in bad(path, of=recording_seconds, decode=True).reason
    assert len(to_waveform(path, start_seconds=1.0)) == RATE


def test_unscaled_integers_in_floats_are_bad():
    assert "divide" in bad(voice_like() * 32_768).reason


@pytest.mark.parametrize("rate", [0, -16_000, 999, 192_001, 16_000.5, None, "16000", float("nan")])
def test_an_absurd_rate_is_bad(rate):
    assert "sampling rate" in bad({"array": voice_like(), "sampling_rate": rate}).reason


def test_an_absurd_rate_in_a_header_is_bad():
    content = bytearray(encoded_as("int16", voice_like()))
    content[24:28] = struct.pack("<I", 4_000_000_000)
    assert bad(bytes(content), of=recording_seconds).reason


def test_a_flac_of_unknown_length_is_bad():
    content = bytearray(encoded_as("flac", voice_like()))
    content[21] &= 0xF0  # STREAMINFO's 36 bits of total samples: 0 is "unknown"
    content[22:26] = bytes(4)
    assert "no length" in bad(bytes(content), of=recording_seconds).reason


def test_no_channels_and_too_many_are_bad():
    for shape in ((0, RATE), (RATE, 0), (0,), (0, 2)):
        assert bad(np.zeros(shape)).reason == "is empty: it holds 0 samples."
    assert "100 channels" in bad(np.zeros((RATE, 100))).reason


@pytest.mark.parametrize(
    "value", [None, {}, {"path": None, "bytes": None}, 3, 3.0, [], np.zeros(0), "", b"", np.zeros((2, 2, 2))]
)
def test_values_without_sound_are_bad(value):
    assert bad(value).reason


@pytest.mark.parametrize("samples", [[1, 2, 3], np.zeros(9, bool), np.zeros(9, complex), [[1.0], [1.0, 2.0]], ["a"]])
def test_samples_without_a_full_scale_are_bad(samples):
    assert bad({"array": samples, "sampling_rate": RATE}).reason


def test_a_file_opened_as_text_is_bad(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(encoded_as("int16", voice_like()))
    with open(path, encoding="latin-1") as file:
        assert "rb" in bad(file).reason


def test_lengths_have_limits():
    samples = voice_like(2.0)
    assert "too short" in bad(samples, min_seconds=2.01).reason
    assert "too long" in bad(samples, max_seconds=1.5).reason
    assert "ends before" in bad(samples, start_seconds=2.0).reason
    assert len(to_waveform(samples, min_seconds=2.0, max_seconds=2.0)) == 2 * RATE
    assert len(to_waveform(samples, max_seconds=1.0, duration_seconds=0.5)) == RATE // 2


def test_a_header_with_a_false_length_claims_no_memory():
    content = bytearray(encoded_as("flac", voice_like()))
    content[21] |= 0x0F  # 2^36 - 1 samples
    content[22:26] = b"\xff" * 4
    tracemalloc.start()
    assert bad(bytes(content), max_seconds=1e9).reason
    assert tracemalloc.get_traced_memory()[1] < 8_000_000
    tracemalloc.stop()


def test_the_error_travels_between_processes():
    error = pickle.loads(pickle.dumps(BadAudioError("a.wav", "is empty.")))
    assert (error.name, error.reason, str(error)) == ("a.wav", "is empty.", "a.wav is empty.")


def test_a_name_can_be_given():
    assert bad(b"", name="row 7").name == "row 7"


SMALL_FILES = [encoded_as(name, voice_like(0.3)) for name in FORMATS]
DAMAGE = st.one_of(
    st.tuples(st.just("set"), st.integers(0, 4_000), st.binary(min_size=1, max_size=8)),
    st.tuples(st.just("insert"), st.integers(0, 4_000), st.binary(min_size=1, max_size=40)),
    st.tuples(st.just("delete"), st.integers(0, 4_000), st.binary(min_size=1, max_size=40)),
    st.tuples(st.just("cut"), st.integers(0, 20_000), st.just(b"")),
)


@settings(max_examples=300, deadline=20_000, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(content=st.sampled_from(SMALL_FILES), damages=st.lists(DAMAGE, min_size=1, max_size=4))
def test_damage_of_any_kind_gives_sound_or_the_one_error(content, damages):
    content = bytearray(content)
    for kind, place, data in damages:
        if kind == "set":
            content[place : place + len(data)] = data
        elif kind == "insert":
            content[place:place] = data
        elif kind == "delete":
            del content[place : place + len(data)]
        else:
            del content[place:]
    for options in ({}, {"start_seconds": 0.1, "duration_seconds": 0.1, "sampling_rate": 8_000}):
        with contextlib.suppress(BadAudioError):
            waveform = to_waveform(bytes(content), **options)
            assert waveform.dtype == np.float32
            assert waveform.ndim == 1
            assert len(waveform)
            assert np.abs(waveform).max() <= 1
