"""Lengths and missing bytes, as the containers of files tell them."""

import contextlib
import io
import time

import pytest
import soundfile

from feature_extraction.containers import mp3_length
from feature_extraction.speech import BadAudioError, recording_seconds, to_waveform
from tests.support.encoded_sounds import RATE, bad, encoded, encoded_as, voice_like

PATIENCE_SECONDS = 100  # where an idle machine needs less than one


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
        assert time.perf_counter() - start < PATIENCE_SECONDS


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
    assert time.perf_counter() - start < PATIENCE_SECONDS


def test_a_cut_tag_of_an_mp3_is_truncated():
    assert "truncated" in bad(b"ID3\x04\0\0\0\0\x02\0" + bytes(100)).reason


def test_a_wav_that_misses_one_byte_is_truncated():
    assert "1 of its bytes" in bad(encoded_as("int16", voice_like())[:-1]).reason
