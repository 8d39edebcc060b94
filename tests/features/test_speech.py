"""Reading sound: every form of audio value, every kind of badness. Axes: T frames, C channels."""

import builtins
import contextlib
import io
import os
import pickle
import struct
import subprocess
import sys
import time
import tracemalloc
import types
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feature_extraction import sound_sources
from feature_extraction.containers import mp3_length
from feature_extraction.speech import BadAudioError, recording_seconds, to_waveform

RATE = 16_000
FORMATS = {  # name: (suffix, libsndfile's format, subtype, the largest error of the round trip)
    "int16": ("wav", "WAV", "PCM_16", 2**-15),
    "int24": ("wav", "WAV", "PCM_24", 2**-23),
    "uint8": ("wav", "WAV", "PCM_U8", 2**-6),
    "float32": ("wav", "WAV", "FLOAT", 0),
    "float64": ("wav", "WAV", "DOUBLE", 0),
    "flac": ("flac", "FLAC", "PCM_16", 2**-15),
    "mp3": ("mp3", "MP3", "MPEG_LAYER_III", 0.1),
    "vorbis": ("ogg", "OGG", "VORBIS", 0.1),
    "opus": ("opus", "OGG", "OPUS", 0.2),
    "aiff": ("aiff", "AIFF", "PCM_16", 2**-15),
    "au": ("au", "AU", "PCM_16", 2**-15),
}


def voice_like(seconds: float = 2.0, rate: int = RATE) -> np.ndarray:
    """Returns a harmonic tone whose pitch and loudness move, float32 (T,), below 0.6."""
    time = np.arange(round(seconds * rate)) / rate
    phase = 2 * np.pi * (140 * time + 3 * np.sin(2 * np.pi * time))
    tone = sum(np.sin(harmonic * phase) / harmonic for harmonic in range(1, 12))
    return (0.25 * tone * (0.6 + 0.4 * np.sin(5 * time))).astype(np.float32)


def encoded(samples: np.ndarray, rate: int = RATE, file_format: str = "WAV", subtype: str | None = None) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=file_format, subtype=subtype)
    return file.getvalue()


def encoded_as(name: str, samples: np.ndarray, rate: int = RATE) -> bytes:
    return encoded(samples, rate, FORMATS[name][1], FORMATS[name][2])


class FakeDecoder:
    """What torchcodec's AudioDecoder offers of its interface, over samples (C, T)."""

    def __init__(self, samples: np.ndarray, rate: int):
        self._samples, self._rate = torch.from_numpy(np.atleast_2d(samples)), rate
        self.metadata = types.SimpleNamespace(duration_seconds=self._samples.shape[1] / rate, sample_rate=rate)

    def get_samples_played_in_range(self, start_seconds: float, stop_seconds: float) -> types.SimpleNamespace:
        first, last = round(start_seconds * self._rate), round(stop_seconds * self._rate)
        return types.SimpleNamespace(data=self._samples[:, first:last], sample_rate=self._rate)


# Forms of an audio value


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_samples_that_were_written(tmp_path, name):
    suffix, file_format, subtype, tolerance = FORMATS[name]
    samples = voice_like()
    path = tmp_path / f"Übung ☂ mit Leerzeichen.{suffix}"
    soundfile.write(path, samples, RATE, format=file_format, subtype=subtype)
    waveform = to_waveform(path)
    assert waveform.dtype == np.float32
    assert waveform.shape == samples.shape
    assert np.abs(waveform - samples).max() <= tolerance
    assert recording_seconds(path) == pytest.approx(2.0)


def test_all_forms_of_one_recording_give_the_same_waveform(tmp_path):
    samples = voice_like(0.5)
    content = encoded_as("float32", samples)
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    with open(path, "rb") as file:
        forms = [
            *(path, str(path), content, bytearray(content), memoryview(content), io.BytesIO(content), file),
            *({"bytes": content, "path": "elsewhere.wav"}, {"bytes": None, "path": str(path)}, {"path": str(path)}),
            *({"array": samples, "sampling_rate": RATE}, {"array": samples.tolist(), "sampling_rate": float(RATE)}),
            *(samples, samples.astype(np.float64), samples.tolist(), torch.from_numpy(samples).requires_grad_()),
            *(samples[None], np.stack([samples, samples]), np.stack([samples, samples], axis=1)),
            FakeDecoder(samples, RATE),
        ]
        for form in forms:
            np.testing.assert_allclose(to_waveform(form), samples, atol=1e-7)
            assert recording_seconds(form) == 0.5


def test_a_pipe_that_cannot_seek_is_read(tmp_path):
    content = encoded_as("int16", voice_like(0.1))
    reader, writer = os.pipe()
    os.write(writer, content)
    os.close(writer)
    with open(reader, "rb") as file:
        assert len(to_waveform(file)) == 1_600


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32])
def test_integers_are_scaled_by_the_range_of_their_type(dtype):
    lowest, highest = np.iinfo(dtype).min, np.iinfo(dtype).max
    waveform = to_waveform(np.array([lowest, 0, highest], dtype))
    np.testing.assert_allclose(waveform, [-1, 0, highest / -float(lowest)], rtol=1e-7)


def test_bytes_of_unsigned_samples_are_silent_at_128():
    np.testing.assert_array_equal(to_waveform(np.array([0, 128, 192], np.uint8)), [-1, 0, 0.5])


def test_channels_are_averaged_whichever_axis_they_are_on(tmp_path):
    left, right = voice_like(0.2), voice_like(0.2)[::-1]
    mean = (left + right) / 2
    path = tmp_path / "stereo.wav"
    soundfile.write(path, np.stack([left, right], axis=1), RATE, subtype="FLOAT")
    for form in (path, np.stack([left, right]), np.stack([left, right], axis=1)):
        np.testing.assert_allclose(to_waveform(form), mean, atol=1e-7)


def test_floats_above_full_scale_are_clipped():
    np.testing.assert_array_equal(to_waveform(np.array([-3.0, 0.5, 1.2])), [-1, 0.5, 1])


def test_silence_is_sound(tmp_path):
    path = tmp_path / "silence.flac"
    soundfile.write(path, np.zeros(RATE), RATE)
    np.testing.assert_array_equal(to_waveform(path, 8_000), np.zeros(8_000))


# Rates and pieces


@pytest.mark.parametrize("rate", [1_000, 8_000, 11_025, 22_050, 44_100, 47_999, 96_000, 192_000])
def test_any_rate_is_resampled_without_changing_pitch_or_level(rate):
    tone = np.sin(2 * np.pi * 200 * np.arange(rate) / rate) / 2
    waveform = to_waveform({"array": tone, "sampling_rate": rate})
    assert abs(len(waveform) - RATE) <= 1
    middle = slice(RATE // 4, 3 * RATE // 4)  # away from the ends, where the tone starts from nothing
    expected = np.sin(2 * np.pi * 200 * np.arange(RATE) / RATE) / 2
    np.testing.assert_allclose(waveform[middle], expected[middle], atol=1e-4)


def test_what_the_new_rate_cannot_carry_is_removed():
    tone = np.sin(2 * np.pi * 12_000 * np.arange(48_000) / 48_000)
    waveform = to_waveform({"array": tone, "sampling_rate": 48_000})
    assert np.abs(waveform[1_000:-1_000]).max() < 1e-4


@pytest.mark.parametrize("name", ["int16", "flac", "mp3", "vorbis", "opus"])
@pytest.mark.parametrize("source_rate", [16_000, 44_100])
def test_a_piece_equals_the_same_cut_of_the_whole(tmp_path, name, source_rate):
    if FORMATS[name][1] == "OGG" and source_rate == 44_100:
        source_rate = 48_000  # opus knows no other, and vorbis seeks are exact at it
    path = tmp_path / f"a.{FORMATS[name][0]}"
    path.write_bytes(encoded_as(name, voice_like(7.0, source_rate), source_rate))
    for rate in (16_000, 16_001, 8_000):
        whole = to_waveform(path, rate)
        for start, duration in ((0.0, 1.0), (0.5, 0.25), (1.23456, 2.0), (5.4, 1.3), (6.5, 3.0), (3.3, None)):
            piece = to_waveform(path, rate, start_seconds=start, duration_seconds=duration)
            first = round(start * rate)
            expected = whole[first:] if duration is None else whole[first : first + round(duration * rate)]
            assert len(piece) == len(expected)
            assert np.abs(piece - expected).max() < 2e-6


@pytest.mark.parametrize(("mode", "compression"), [("CONSTANT", 0.99), ("VARIABLE", 0.5), ("VARIABLE", 0.99)])
@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100])
def test_mp3_frames_after_a_seek_get_the_bits_of_those_before(mode, compression, rate):
    content = io.BytesIO()
    soundfile.write(
        content, voice_like(8.0, rate), rate, format="MP3", bitrate_mode=mode, compression_level=compression
    )
    whole = to_waveform(content, rate)
    for start in np.arange(0.3, 6.5, 0.31):
        piece = to_waveform(content, rate, start_seconds=start, duration_seconds=0.5)
        first = round(start * rate)
        assert np.abs(piece - whole[first : first + len(piece)]).max() < 1e-6


def test_only_the_piece_is_decoded(tmp_path, monkeypatch):
    path = tmp_path / "long.flac"
    soundfile.write(path, np.tile(voice_like(10.0), 6), RATE)
    decoded = []
    read = soundfile.SoundFile.read
    monkeypatch.setattr(
        soundfile.SoundFile,
        "read",
        lambda self, frames, **kwargs: decoded.append(frames) or read(self, frames, **kwargs),
    )
    assert len(to_waveform(path, start_seconds=40.0, duration_seconds=1.0)) == RATE
    assert sum(decoded) == RATE


def test_a_piece_takes_one_seek(tmp_path, monkeypatch):
    path = tmp_path / "long.flac"
    soundfile.write(path, np.tile(voice_like(10.0), 4), RATE)
    places = []
    seek = soundfile.SoundFile.seek
    monkeypatch.setattr(soundfile.SoundFile, "seek", lambda self, *place: places.append(place) or seek(self, *place))
    to_waveform(path, start_seconds=3.0, duration_seconds=30.0)  # two blocks
    assert places == [(3 * RATE,)]


def test_a_wav_whose_writer_left_the_size_open_is_read_to_its_end():
    content = bytearray(encoded_as("int16", voice_like(1.0)))
    for size in (0xFFFFFFFF, 0x7FFFF000):
        content[40:44] = struct.pack("<I", size)
        assert len(to_waveform(bytes(content))) == RATE


# Badness: one error, one sentence


def bad(audio, *, of=to_waveform, **kwargs) -> BadAudioError:
    with pytest.raises(BadAudioError) as caught:
        of(audio, **kwargs)
    return caught.value


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


def without_xing_frame(content: bytes) -> bytes:
    """Drops an mp3's first frame, which tells the length."""
    return content[content.index(content[:2], 4) :]


def test_an_mp3_of_variable_rate_that_does_not_tell_its_length_is_bad():
    content = io.BytesIO()
    soundfile.write(content, voice_like(3.0), RATE, format="MP3", bitrate_mode="VARIABLE", compression_level=0.5)
    assert len(to_waveform(content)) == 3 * RATE
    assert "variable bit rate" in bad(without_xing_frame(content.getvalue())).reason


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
@pytest.mark.parametrize("tag", [b"", b"ID3\x04\0\0\0\0\x02\0" + bytes(256)])
def test_an_mp3_of_constant_rate_needs_no_xing_frame(rate, tag):
    content = io.BytesIO()
    soundfile.write(content, voice_like(3.0, rate), rate, format="MP3", bitrate_mode="CONSTANT", compression_level=0.5)
    waveform = to_waveform(tag + without_xing_frame(content.getvalue()), rate)
    assert abs(len(waveform) / rate - 3.0) < 0.2


def constant_rate_mp3(seconds: float, rate: int = 44_100) -> bytes:
    content = io.BytesIO()
    samples = voice_like(seconds, rate)
    soundfile.write(content, samples, rate, format="MP3", bitrate_mode="CONSTANT", compression_level=0.8)
    return content.getvalue()


@pytest.mark.slow
def test_an_mp3_without_a_header_is_as_long_as_its_frames():
    content = without_xing_frame(constant_rate_mp3(60.0))
    assert recording_seconds(content) == pytest.approx(60, abs=0.1)
    assert recording_seconds(content, decode=True) == pytest.approx(60, abs=0.1)
    assert len(to_waveform(content)) / RATE == pytest.approx(60, abs=0.1)
    assert len(to_waveform(content, start_seconds=59.0, duration_seconds=0.5)) == RATE // 2


@pytest.mark.parametrize("bit", range(32))
def test_a_false_length_in_an_mp3s_header_makes_it_no_longer(bit):
    content = bytearray(constant_rate_mp3(1.0))
    first = content.index(b"Info") + 8
    content[first + bit // 8] ^= 128 >> bit % 8
    with contextlib.suppress(BadAudioError):
        assert recording_seconds(bytes(content)) < 1.1
    with contextlib.suppress(BadAudioError):
        assert recording_seconds(bytes(content), decode=True) < 1.1
    with contextlib.suppress(BadAudioError):
        assert len(to_waveform(bytes(content))) < 1.1 * RATE


def test_an_mp3_that_is_too_short_in_spite_of_its_estimate_is_bad():
    content = without_xing_frame(constant_rate_mp3(0.3, RATE))
    assert "too short" in bad(content, min_seconds=0.6).reason
    assert "too short" in bad(content, of=recording_seconds, decode=True, min_seconds=0.6).reason


@pytest.mark.slow
def test_an_mp3_of_junk_is_measured_in_no_time():
    frame = without_xing_frame(constant_rate_mp3(0.1))
    for junk in (b"\xff" * 3_000_000, b"\xff\xe2\x10" * 1_000_000, bytes(3_000_000)):
        start = time.perf_counter()
        assert mp3_length(io.BytesIO(frame + junk)) > 0
        assert time.perf_counter() - start < 5


@pytest.mark.parametrize("file_format", ["WAV", "W64", "CAF", "RF64", "AIFF", "AU"])
@pytest.mark.parametrize("kept", [0.2, 0.999])
def test_every_container_that_names_its_bytes_tells_of_missing_ones(file_format, kept):
    content = encoded(voice_like(1.0), file_format=file_format, subtype="PCM_16")
    assert recording_seconds(content) == 1.0
    for of in (recording_seconds, to_waveform):
        assert "truncated" in bad(content[: int(kept * len(content))], of=of).reason


def test_a_wav_of_a_million_empty_chunks_is_refused_in_no_time():
    start = time.perf_counter()
    assert bad(b"RIFF\0\0\0\0WAVE" + bytes(30_000_000)).reason
    assert time.perf_counter() - start < 5


def test_a_cut_tag_of_an_mp3_is_truncated():
    assert "truncated" in bad(b"ID3\x04\0\0\0\0\x02\0" + bytes(100)).reason


def test_a_wav_that_misses_one_byte_is_truncated():
    assert "1 of its bytes" in bad(encoded_as("int16", voice_like())[:-1]).reason


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
    assert "0 channels" in bad(np.zeros((0, RATE))).reason
    assert "0 channels" in bad(np.zeros((RATE, 0))).reason
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


@pytest.mark.parametrize(
    "arguments", [{"sampling_rate": 0}, {"start_seconds": -1.0}, {"duration_seconds": 0.0}, {"sampling_rate": 400_000}]
)
def test_arguments_out_of_range_are_not_the_fault_of_the_recording(arguments):
    with pytest.raises(ValueError, match=r"must") as caught:
        to_waveform(voice_like(), **arguments)
    assert not isinstance(caught.value, BadAudioError)


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


# What decodes beside libsndfile


def test_a_decoder_that_resamples_is_taken_by_the_rate_of_its_samples():
    decoder = FakeDecoder(voice_like(2.0), RATE)
    decoder.metadata.sample_rate = 44_100  # the file's
    whole = to_waveform(decoder, 8_000)
    np.testing.assert_allclose(whole, soxr.resample(voice_like(2.0), RATE, 8_000), atol=1e-6)
    np.testing.assert_allclose(to_waveform(decoder, 8_000, start_seconds=1.0), whole[8_000:], atol=1e-6)


@pytest.fixture
def torchcodec(monkeypatch):
    """A torchcodec that decodes everything to the same second of sound, or refuses what starts with "no"."""

    def decode(content: bytes) -> FakeDecoder:
        if content.startswith(b"no"):
            raise RuntimeError("Failed to open")
        return FakeDecoder(voice_like(1.0), RATE)

    package = types.ModuleType("torchcodec")
    decoders = types.ModuleType("torchcodec.decoders")
    monkeypatch.setattr(decoders, "AudioDecoder", decode, raising=False)
    monkeypatch.setitem(sys.modules, "torchcodec", package)
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", decoders)
    sound_sources._torchcodec_decoder_class.cache_clear()
    yield
    sound_sources._torchcodec_decoder_class.cache_clear()


@pytest.mark.usefixtures("torchcodec")
def test_torchcodec_reads_what_libsndfile_does_not_know():
    np.testing.assert_array_equal(to_waveform(b"some m4a"), voice_like(1.0))
    assert "FFmpeg" in bad(b"no audio").reason
    assert len(to_waveform(encoded_as("int16", voice_like(0.5)))) == RATE // 2


@pytest.mark.parametrize("failure", [ImportError, OSError, RuntimeError])
def test_a_torchcodec_that_does_not_load_is_as_good_as_none(monkeypatch, failure):
    import_module = builtins.__import__

    def fail(name, *args, **kwargs):
        if name.startswith("torchcodec"):
            raise failure("libavutil.so: cannot open shared object file")
        return import_module(name, *args, **kwargs)

    sound_sources._torchcodec_decoder_class.cache_clear()
    monkeypatch.setattr(builtins, "__import__", fail)
    assert "not audio" in bad(b"some m4a").reason
    sound_sources._torchcodec_decoder_class.cache_clear()


@pytest.mark.slow
def test_reading_needs_neither_datasets_nor_torchcodec():
    blocked = "import sys; sys.modules.update(datasets=None, torchcodec=None, pandas=None, pyarrow=None)"
    program = f"{blocked}; from feature_extraction.speech import to_waveform; print(len(to_waveform([0.5, 0.25])))"
    root = Path(__file__).parents[2]
    result = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=False)
    assert (result.stdout, result.returncode) == ("2\n", 0), result.stderr
