"""Reading sound: every form of audio value, its pieces, rates and channels. Axes: T frames, C channels."""

import io
import struct

import numpy as np
import pytest
import soundfile
import torch

from feature_extraction.speech import BadAudioError, recording_seconds, to_waveform
from tests.support.encoded_sounds import FORMATS, RATE, FakeDecoder, encoded_as, voice_like

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


@pytest.mark.parametrize(
    "arguments", [{"sampling_rate": 0}, {"start_seconds": -1.0}, {"duration_seconds": 0.0}, {"sampling_rate": 400_000}]
)
def test_arguments_out_of_range_are_not_the_fault_of_the_recording(arguments):
    with pytest.raises(ValueError, match=r"must") as caught:
        to_waveform(voice_like(), **arguments)
    assert not isinstance(caught.value, BadAudioError)
