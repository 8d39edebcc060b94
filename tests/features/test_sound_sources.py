"""What decodes beside libsndfile, and what need not be there."""

import builtins
import os
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import soxr

from feature_extraction import sound_sources
from feature_extraction.speech import to_waveform
from tests.support.encoded_sounds import RATE, FakeDecoder, bad, encoded_as, voice_like


def test_a_pipe_that_cannot_seek_is_read(tmp_path):
    content = encoded_as("int16", voice_like(0.1))
    reader, writer = os.pipe()
    os.write(writer, content)
    os.close(writer)
    with open(reader, "rb") as file:
        assert len(to_waveform(file)) == 1_600


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
