"""Any audio value to a waveform: decoded by libsndfile, mono, resampled by soxr, float32 in [-1, 1].

Only the piece that is asked for is decoded. Whatever is wrong with a recording ends in one class, `BadAudioError`,
with its name and the reason. Silence is sound: a silent recording gives zeros.

Axes: T frames of a recording (one sample per channel), C channels.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import soxr

from .sound_sources import ESTIMATED_FORMATS, LOSSY_FORMATS, BadAudioError, Sound, audio_name, open_sound

__all__ = ["BadAudioError", "recording_seconds", "to_waveform"]

MIN_SAMPLING_RATE = 1_000
MAX_SAMPLING_RATE = 192_000
MAX_CHANNELS = 64
# Floats may exceed full scale by the head-room of a mixing desk (30 dB), not by the scale of unscaled integers.
MAX_PEAK = 32.0
# What the resampler sees on both sides of a piece.
CONTEXT_SECONDS = 0.1
# Frames of one read: bounds the memory that a header with a false length can claim.
BLOCK_FRAMES = 1 << 18
# Encoder delay and padding leave the length in the header of an ogg uncertain.
LOSSY_TOLERANCE_FRAMES = 2 * 1_152


def to_waveform(
    audio: Any,
    sampling_rate: int = 16_000,
    *,
    start_seconds: float = 0.0,
    duration_seconds: float | None = None,
    min_seconds: float = 0.0,
    max_seconds: float = 3_600.0,
    name: str | None = None,
) -> np.ndarray:
    """Decodes a recording, or a piece of it, to mono samples at one rate.

    A piece is, sample for sample, what the same cut of the whole decoded recording would be (but on the last page of
    an ogg vorbis file, where libsndfile's seeks may be off by up to 50 ms).

    Args:
        audio: a path; the bytes of a file; a binary file object (read from its start); ``{"bytes", "path"}``;
            ``{"array", "sampling_rate"}``; a torchcodec ``AudioDecoder``; or an array, a tensor or a list, which is
            taken to be at ``sampling_rate`` already. Arrays are (T,), (C, T) or (T, C), where the shorter axis is the
            channels; integers are scaled by the range of their type (8, 16 or 32 bits).
        sampling_rate: of the result, in Hz.
        start_seconds: where the piece begins.
        duration_seconds: how long it is; to the end by default. It comes out shorter where the recording ends.
        min_seconds: a recording shorter than this is bad.
        max_seconds: a piece longer than this is refused before it is decoded.
        name: how errors call the recording; by default its path.

    Returns:
        float32 samples (duration_seconds * sampling_rate,), the mean of the channels, clipped to [-1, 1].

    Raises:
        BadAudioError: for every fault of the recording: missing, empty, truncated, no audio, NaN or infinite samples,
            no channels, a rate outside 1-192 kHz, too short, too long, or ending before ``start_seconds``.
        ValueError: for arguments out of range.
    """
    if not MIN_SAMPLING_RATE <= sampling_rate <= MAX_SAMPLING_RATE:
        raise ValueError(f"sampling_rate={sampling_rate} must lie between 1 000 and 192 000 Hz.")
    if sampling_rate != int(sampling_rate):
        raise ValueError(f"sampling_rate={sampling_rate} must be a whole number of Hz.")
    sampling_rate = int(sampling_rate)
    if not 0 <= start_seconds < math.inf or not (duration_seconds is None or duration_seconds > 0):
        raise ValueError("start_seconds must be at least 0 and finite, and duration_seconds must be above 0.")
    name = name or audio_name(audio)
    with open_sound(audio, sampling_rate, name) as sound:
        rate = _checked_rate(sound, name, min_seconds)
        waveform = _read_piece(sound, rate, sampling_rate, start_seconds, duration_seconds, max_seconds, name)
        if start_seconds == 0:  # of a file whose header only estimates, its length is known now
            needed = min(min_seconds, duration_seconds or math.inf)
            _check_length(len(waveform), sampling_rate, name, needed)
    return np.clip(waveform, -1.0, 1.0)


def recording_seconds(
    audio: Any,
    sampling_rate: int = 16_000,
    *,
    decode: bool = False,
    min_seconds: float = 0.0,
    name: str | None = None,
) -> float:
    """Returns the length of a recording; raises `BadAudioError` if it is seen to be bad.

    By default only its header is read, the last sample of a flac or ogg, which is how a cut flac shows, and the frame
    heads of an mp3, whose header only estimates. With ``decode``
    every sample is decoded and looked at, a block at a time. Arguments as in `to_waveform`.
    """
    name = name or audio_name(audio)
    with open_sound(audio, sampling_rate, name) as sound:
        rate = _checked_rate(sound, name, min_seconds)
        if decode:
            frames = sum(len(block) for block in _mono_blocks(sound, 0, sound.frames, name))
        else:
            frames = sound.frames if sound.measure is None else sound.measure()
        _check_length(frames, rate, name, min_seconds)
        return frames / rate


def _checked_rate(sound: Sound, name: str, min_seconds: float) -> int:
    rate = sound.sampling_rate
    is_whole = isinstance(rate, int | float | np.integer) and rate == rate // 1
    if not is_whole or not MIN_SAMPLING_RATE <= rate <= MAX_SAMPLING_RATE:
        raise BadAudioError(name, f"has a sampling rate of {rate!r} Hz: rates from 1 000 to 192 000 Hz are read.")
    if not 0 < sound.channels <= MAX_CHANNELS:
        raise BadAudioError(name, f"has {sound.channels} channels: 1 to {MAX_CHANNELS} are read.")
    _check_length(sound.frames, int(rate), name, min_seconds)
    return int(rate)


def _check_length(frames: int, rate: int, name: str, min_seconds: float) -> None:
    if frames == 0:
        raise BadAudioError(name, "is empty: it holds 0 samples.")
    if frames < min_seconds * rate:
        raise BadAudioError(name, f"is too short: {frames / rate:.3f} s, and {min_seconds} s are needed.")


def _read_piece(
    sound: Sound,
    rate: int,
    sampling_rate: int,
    start_seconds: float,
    duration_seconds: float | None,
    max_seconds: float,
    name: str,
) -> np.ndarray:
    """Reads the piece with some context on both sides, resamples it, and cuts the context off.

    Reading begins where a frame of the recording and a sample of the result coincide: every ``step_in`` frames.
    """
    divisor = math.gcd(rate, sampling_rate)
    step_in, step_out = rate // divisor, sampling_rate // divisor
    context_frames = 0 if rate == sampling_rate else math.ceil(CONTEXT_SECONDS * rate)

    first = round(start_seconds * sampling_rate)
    skipped_steps = max(0, first // step_out - math.ceil(context_frames / step_in))
    stop, count = sound.frames, None
    if duration_seconds is not None:
        count = round(duration_seconds * sampling_rate)
        stop = min(math.ceil((first + count) * rate / sampling_rate) + context_frames, sound.frames)
    waveform = _read_mono(sound, rate, skipped_steps * step_in, stop, max_seconds, name)
    if rate != sampling_rate:
        waveform = soxr.resample(waveform, rate, sampling_rate)
    first -= skipped_steps * step_out
    piece = waveform[first : None if count is None else first + count]
    if not len(piece):
        raise BadAudioError(name, f"ends before second {start_seconds:.3f}, where the piece should start.")
    return piece


def _read_mono(sound: Sound, rate: int, start: int, stop: int, max_seconds: float, name: str) -> np.ndarray:
    if stop - start > (max_seconds + 2 * CONTEXT_SECONDS) * rate:
        raise BadAudioError(
            name,
            f"is too long: {(stop - start) / rate:.1f} s were asked for and {max_seconds:g} s is the limit. Ask for a "
            "piece with start_seconds and duration_seconds, or raise max_seconds.",
        )
    blocks = list(_mono_blocks(sound, start, stop, name))
    return blocks[0] if len(blocks) == 1 else np.concatenate([np.zeros(0, np.float32), *blocks])


def _mono_blocks(sound: Sound, start: int, stop: int, name: str) -> Iterator[np.ndarray]:
    """Yields blocks decoded from ``start`` to ``stop``, and checks that all that was promised is there."""
    while start < stop:
        wanted = min(BLOCK_FRAMES, stop - start)
        block = sound.read(start, wanted)
        yield _mix_down(block, name)
        start += len(block)
        if len(block) < wanted:
            break
    if sound.file_format in ESTIMATED_FORMATS:
        return
    if start < stop - (LOSSY_TOLERANCE_FRAMES if sound.file_format in LOSSY_FORMATS else 0):
        raise BadAudioError(name, f"is truncated: its header promises {sound.frames} samples, {start} are there.")


def _mix_down(block: np.ndarray, name: str) -> np.ndarray:
    """Averages the channels of a block (T, C) to float32 (T,); refuses what is not a finite sound."""
    if not len(block):
        return np.zeros(0, np.float32)
    low, high = block.min(), block.max()
    if np.isnan(low) or np.isnan(high):
        raise BadAudioError(name, "holds NaN samples.")
    peak = max(-low, high)
    if np.isinf(peak):
        raise BadAudioError(name, "holds infinite samples.")
    if peak > MAX_PEAK:
        raise BadAudioError(name, f"holds floats up to {peak:g}, and full scale is 1: divide by the full scale.")
    mono = block[:, 0] if block.shape[1] == 1 else block.mean(axis=1)
    return mono.astype(np.float32, copy=False)
