"""Opening any audio value: a file, bytes, an array or a torchcodec decoder, behind one small interface, `Sound`.

libsndfile decodes; torchcodec is asked only for what libsndfile does not know (m4a), and only where it loads.

Axes: T frames of a recording (one sample per channel), C channels.
"""

import functools
import io
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import soundfile

from .containers import container_fault, max_samples_per_byte, mp3_length

# An mp3 frame leans on bits of earlier frames, so the first ones after a seek decode to errors as large as the signal.
# Decoding starts this much earlier and the surplus is dropped: exact for mp3 of 8-320 kbit/s at 8-48 kHz.
LOSSY_RUN_UP_SECONDS = 0.2
FFMPEG_SUFFIXES = (".m4a", ".mp4", ".aac", ".wma", ".webm")
AUDIO_SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".aiff", ".aif", ".aifc", ".au", ".snd", ".caf")
AUDIO_SUFFIXES += (".w64", ".rf64", *FFMPEG_SUFFIXES)
LOSSY_FORMATS = ("MP3", "OGG", "torchcodec")
# Their length is not known before they are decoded: what is there in the end is all there was.
ESTIMATED_FORMATS = ("MP3", "torchcodec")


class BadAudioError(ValueError):
    """A recording that cannot be used.

    Attributes:
        name: the file, or what else identifies the recording.
        reason: what is wrong with it, as the rest of a sentence that starts with the name.
    """

    def __init__(self, name: str, reason: str = ""):
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.name} {self.reason}".rstrip()


@dataclass(frozen=True)
class Sound:
    """An opened recording.

    Attributes:
        sampling_rate: as the recording states it, in Hz, not checked.
        channels: C.
        frames: T as the recording states it, or more than can be there where it only estimates.
        read: ``read(start, count)`` gives frames (T, C), fewer than ``count`` only at the end of the recording.
        file_format: libsndfile's name of the container, or "" for arrays.
        measure: looks further than at the header, and gives T as well as it can be known without decoding.
    """

    sampling_rate: Any
    channels: int
    frames: int
    read: Callable[[int, int], np.ndarray]
    file_format: str = ""
    measure: Callable[[], int] | None = None


@contextmanager
def open_sound(audio: Any, array_rate: Any, name: str) -> Iterator[Sound]:
    """Opens any audio value; a bare array is taken to be at ``array_rate``.

    Every fault of the recording, also one that shows while it is read, leaves as a `BadAudioError`.
    """
    if isinstance(audio, Mapping):
        if audio.get("array") is not None:
            audio, array_rate = audio["array"], audio.get("sampling_rate")
        else:
            audio = audio["bytes"] if audio.get("bytes") is not None else audio.get("path")
    try:
        if isinstance(audio, str | os.PathLike):
            with _open_path(audio, name) as file, _open_file(file, file.fileno(), name) as sound:
                yield sound
        elif isinstance(audio, bytes | bytearray | memoryview):
            file = io.BytesIO(audio)
            with _open_file(file, file, name) as sound:
                yield sound
        elif hasattr(audio, "read"):
            file = _seekable(audio, name)
            with _open_file(file, file, name) as sound:
                yield sound
        elif hasattr(audio, "get_samples_played_in_range"):
            yield _open_decoder(audio)
        else:
            yield _open_array(audio, array_rate, name)
    except BadAudioError:
        raise
    except soundfile.LibsndfileError as error:
        raise BadAudioError(name, f"is truncated or damaged: {error.error_string}") from error
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        # torchcodec, numpy and other people's file objects raise all of these when a recording is bad.
        raise BadAudioError(name, f"cannot be read: {error}") from error


def audio_name(audio: Any) -> str:
    """Returns what an error should call this audio value: its path where it has one."""
    if isinstance(audio, Mapping):
        audio = next((audio[key] for key in ("path", "bytes", "array") if audio.get(key) is not None), None)
    if isinstance(audio, str | os.PathLike):
        return os.fsdecode(audio)
    if isinstance(audio, bytes | bytearray | memoryview):
        return f"<{len(audio)} bytes>"
    return str(getattr(audio, "name", f"<{type(audio).__name__}>"))


def _open_path(path: str | os.PathLike, name: str) -> BinaryIO:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise BadAudioError(name, "is not a file.")
        return open(path, "rb", buffering=0)
    except (FileNotFoundError, NotADirectoryError):
        raise BadAudioError(name, "does not exist.") from None


def _seekable(file: Any, name: str) -> BinaryIO:
    if not isinstance(file.read(0), bytes):
        raise BadAudioError(name, 'is opened as text: open it with mode "rb".')
    return file if file.seekable() else io.BytesIO(file.read())


@contextmanager
def _open_file(file: BinaryIO, source: BinaryIO | int, name: str) -> Iterator[Sound]:
    """Checks that ``file`` is whole, then lets libsndfile read ``source``: the file, or its descriptor (faster)."""
    file_bytes = file.seek(0, os.SEEK_END)
    if file_bytes == 0:
        raise BadAudioError(name, "is empty (0 bytes).")
    fault = container_fault(file, file_bytes)
    if fault:
        raise BadAudioError(name, fault)
    file.seek(0)
    try:
        decoder = _Decoder(source, closefd=False)
    except soundfile.LibsndfileError as error:
        yield _open_with_torchcodec(file, name, error)
        return
    with decoder:
        if decoder.frames >= 1 << 62:  # what libsndfile makes of an unknown length
            raise BadAudioError(name, "has no length in its header, as a flac written to a pipe: encode it anew.")
        frames = min(decoder.frames, file_bytes * max_samples_per_byte(decoder.format))
        run_up = round(LOSSY_RUN_UP_SECONDS * decoder.samplerate) if decoder.format in LOSSY_FORMATS else 0

        position = 0

        def read(start: int, count: int) -> np.ndarray:
            nonlocal position
            surplus = min(start, run_up)
            if position != start - surplus:
                decoder.seek(start - surplus)
            block = decoder.read(surplus + count, dtype="float32", always_2d=True)
            position = start - surplus + len(block)
            return block[surplus:]

        def measure() -> int:
            if decoder.format == "MP3":
                return min(frames, mp3_length(file))
            if decoder.format in ("FLAC", "OGG") and len(read(frames - 1, 1)) == 0:
                raise BadAudioError(name, f"is truncated: its header promises {frames} samples.")
            return frames

        yield Sound(decoder.samplerate, decoder.channels, frames, read, decoder.format, measure)


class _Decoder(soundfile.SoundFile):
    """A sound file that is only read onward, between seeks.

    After each read, soundfile seeks to where the read has ended, for the sake of files that are also written to. In a
    flac libsndfile decodes anew for that: a tenth of the time of a crop.
    """

    def seekable(self) -> bool:
        return False


def _open_with_torchcodec(file: BinaryIO, name: str, refusal: soundfile.LibsndfileError) -> Sound:
    decoder_class = _torchcodec_decoder_class()
    if decoder_class is None:
        is_for_ffmpeg = name.lower().endswith(FFMPEG_SUFFIXES)
        advice = " Convert it to flac, or install torchcodec and FFmpeg." if is_for_ffmpeg else ""
        reason = f"is not audio that libsndfile reads ({refusal.error_string.rstrip('.')}).{advice}"
        raise BadAudioError(name, reason) from refusal
    file.seek(0)
    try:
        return _open_decoder(decoder_class(file.read()))
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        raise BadAudioError(name, "is not audio that libsndfile or FFmpeg reads.") from error


@functools.cache
def _torchcodec_decoder_class() -> Any:
    """Returns torchcodec's ``AudioDecoder`` if it loads: without FFmpeg its import ends in any of three errors."""
    try:
        from torchcodec.decoders import AudioDecoder  # pyright: ignore[reportMissingImports]
    except (ImportError, OSError, RuntimeError):
        return None
    return AudioDecoder


def _open_decoder(decoder: Any) -> Sound:
    # The decoder may resample, and then only its samples tell the rate.
    first = decoder.get_samples_played_in_range(0.0, 0.01)
    rate = int(first.sample_rate)

    def read(start: int, count: int) -> np.ndarray:
        return decoder.get_samples_played_in_range(start / rate, (start + count) / rate).data.numpy().T

    return Sound(rate, len(first.data), round(decoder.metadata.duration_seconds * rate), read, "torchcodec")


def _open_array(audio: Any, rate: Any, name: str) -> Sound:
    if hasattr(audio, "detach"):
        audio = audio.detach().cpu().numpy()
    samples = np.asarray(audio)
    if audio is None or samples.dtype == object or samples.dtype.kind in "US":
        raise BadAudioError(name, f"holds no audio: the value is a {type(audio).__name__}.")
    if samples.size == 0:
        raise BadAudioError(name, "is empty: it holds 0 samples.")
    if samples.ndim == 1:
        samples = samples[:, None]
    if samples.ndim != 2:
        raise BadAudioError(
            name, f"holds no audio: an array of {samples.ndim} axes, where sound has one, or two with channels."
        )
    if samples.shape[0] < samples.shape[1]:
        samples = samples.T
    if samples.dtype.kind == "i" and samples.dtype.itemsize <= 4:
        silence, full_scale = 0.0, 2.0 ** (8 * samples.dtype.itemsize - 1)
    elif samples.dtype == np.uint8:  # as in 8-bit wav files
        silence, full_scale = 128.0, 128.0
    elif samples.dtype.kind == "f":
        silence, full_scale = 0.0, 1.0
    else:
        raise BadAudioError(
            name, f"has samples of type {samples.dtype}, whose full scale is unknown: give floats, int16 or int32."
        )

    def read(start: int, count: int) -> np.ndarray:
        return (samples[start : start + count] - silence) / full_scale

    return Sound(rate, samples.shape[1], len(samples), read)


def files_below(root: Path) -> Iterator[Path]:
    """Yields the files below a folder, through links too, each real folder once, without hidden ones."""
    seen = set()
    for folder, subfolders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        subfolders[:] = [] if real in seen else sorted(name for name in subfolders if not name.startswith("."))
        if real not in seen:
            yield from (Path(folder, name) for name in files if not name.startswith("."))
        seen.add(real)
