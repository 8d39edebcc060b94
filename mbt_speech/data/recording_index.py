"""The length of every recording, found once by header, kept in the cache of `datasets`, with the bad ones named.

Axes: N recordings.
"""

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from datasets import Dataset, config
from tqdm.auto import tqdm

from feature_extraction.sound_sources import audio_name
from feature_extraction.speech import BadAudioError, recording_seconds

logger = logging.getLogger(__name__)

# Shorter than two analysis windows of 25 ms, a recording says nothing.
MIN_RECORDING_SECONDS = 0.05
PROGRESS_FROM = 2_000
CACHE_NAME = "mbt_lengths"  # to be changed whenever lengths are measured in another way


class RecordingIndex(NamedTuple):
    """What `index_recordings` found.

    Attributes:
        dataset: the recordings that can be used, in the order they came in.
        seconds: their lengths, float64 (N,).
        bad: name and reason of each recording that was left out.
        fingerprint: a digest of the recordings that can be used; other files, or changed ones, have another.
    """

    dataset: Dataset
    seconds: np.ndarray
    bad: list[tuple[str, str]]
    fingerprint: str


def index_recordings(
    dataset: Dataset,
    audio_column: str,
    *,
    sampling_rate: int = 16_000,
    on_bad_audio: str = "raise",
    decode: bool = False,
    min_seconds: float = MIN_RECORDING_SECONDS,
    cache_dir: str | os.PathLike | None = None,
) -> RecordingIndex:
    """Measures all recordings by their headers and separates the good from the bad.

    Lengths are kept in ``cache_dir`` (by default in the cache of `datasets`) under a key of all paths, sizes and
    times of change; for recordings inside a data file, of that data set's fingerprint. What is bad is looked at again
    each time: a disk may have failed for a moment, or a decoder was missing that is installed now.

    Args:
        dataset: the recordings.
        audio_column: where their audio is.
        sampling_rate: of recordings that are arrays without one, in Hz.
        on_bad_audio: "raise" to stop, "skip" to leave bad recordings out and list them.
        decode: whether to decode every recording to the end, which also finds NaN samples and damage inside.
        min_seconds: shorter recordings are bad.
        cache_dir: where to keep the result.

    Raises:
        BadAudioError: with "raise", for the first bad recording, after all were measured.
        ValueError: when no good recording is left.
    """
    if on_bad_audio not in ("raise", "skip"):
        raise ValueError(f"on_bad_audio={on_bad_audio!r} must be raise or skip.")
    cache_file = Path(cache_dir or config.HF_DATASETS_CACHE) / CACHE_NAME
    fingerprint = _fingerprint(dataset, audio_column)
    cache_file /= f"{fingerprint}-{sampling_rate}-{decode}-{min_seconds}.json"

    def measure(rows: list[int]) -> list[float | tuple[str, str]]:
        options = {"sampling_rate": sampling_rate, "decode": decode, "min_seconds": min_seconds}
        return _measure(AudioColumn(dataset, audio_column), rows, partial(recording_seconds, **options))

    measured = _complete(_read_cache(cache_file, len(dataset)), measure, cache_file)
    good = [row for row, entry in enumerate(measured) if isinstance(entry, float)]
    bad = [(entry[0], entry[1]) for entry in measured if not isinstance(entry, float)]
    if bad and on_bad_audio == "raise":
        raise _first_of(bad)
    if not good:
        raise ValueError(
            f"None of the {len(dataset)} recordings can be used; the first: {' '.join(bad[0])}"
            if bad
            else "There are no recordings."
        )
    seconds = np.array([measured[row] for row in good], dtype=np.float64)
    if bad:
        dataset = dataset.select(good)
        fingerprint = hashlib.sha256(f"{fingerprint} {good}".encode()).hexdigest()
    return RecordingIndex(dataset, seconds, bad, fingerprint)


def _first_of(bad: list[tuple[str, str]]) -> BadAudioError:
    name, reason = bad[0]
    others = f" {len(bad) - 1} other recordings are bad too." if len(bad) > 1 else ""
    return BadAudioError(name, f'{reason}{others} With on_bad_audio "skip" they are left out and listed.')


class AudioColumn:
    """The undecoded audio values of a dataset, each with a name, read from Arrow without the other columns."""

    def __init__(self, dataset: Dataset, audio_column: str):
        self._paths = _paths(dataset, audio_column)
        self._rows = dataset.select_columns([audio_column]).with_format("arrow")
        self._column = audio_column

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, row: int) -> tuple[Any, str]:
        value = self._rows[row][self._column][0].as_py() if self._paths is None else self._paths[row].as_py()
        has_path = isinstance(value, str) or (isinstance(value, dict) and value.get("path"))
        return value, audio_name(value) if has_path else f"recording {row}"


def _fingerprint(dataset: Dataset, audio_column: str) -> str:
    digest = hashlib.sha256()
    paths = _paths(dataset, audio_column)
    if paths is None:
        digest.update(f"{dataset._fingerprint} {audio_column}".encode())
        return digest.hexdigest()
    for path in paths.to_pylist():
        digest.update(f"{path}\0".encode())
        with contextlib.suppress(OSError, ValueError, TypeError):  # it is bad, as measuring it will tell
            status = os.stat(path)
            digest.update(f"{os.path.abspath(path)} {status.st_size} {status.st_mtime_ns}".encode())
    return digest.hexdigest()


def _paths(dataset: Dataset, audio_column: str) -> pa.StringArray | pa.LargeStringArray | None:
    """Returns the paths of all recordings, or None if some are inside the data set."""
    column = dataset.data.column(audio_column)
    fields = {field.name for field in column.type} if pa.types.is_struct(column.type) else set()
    has_bytes = "bytes" in fields and any(chunk.field("bytes").null_count < len(chunk) for chunk in column.chunks)
    if has_bytes or "array" in fields:
        return None
    if "path" not in fields and not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return None
    values = dataset.select_columns([audio_column]).with_format("arrow")[:][audio_column].combine_chunks()
    return values.field("path") if "path" in fields else values


def _complete(known: list[Any], measure: Callable[[list[int]], list[Any]], cache_file: Path) -> list[Any]:
    """Measures what is not known yet, and keeps what is new; returns a length, or name and reason, for each."""
    unknown = [row for row, entry in enumerate(known) if not isinstance(entry, float)]
    if not unknown:
        return known
    found = measure(unknown)
    for row, entry in zip(unknown, found, strict=True):
        known[row] = entry
    if any(isinstance(entry, float) for entry in found):
        _write_cache(cache_file, [entry if isinstance(entry, float) else None for entry in known])
    return known


def _measure(column: AudioColumn, rows: list[int], measure: Callable[..., float]) -> list[float | tuple[str, str]]:
    """Returns the length of each recording at some rows, or name and reason of a bad one."""

    def measure_row(row: int) -> float | tuple[str, str]:
        audio, name = column[row]
        try:
            return measure(audio, name=name)
        except BadAudioError as error:
            return error.name, error.reason

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = pool.map(measure_row, rows)
        return list(tqdm(found, "Reading headers", len(rows), unit=" files", disable=len(rows) < PROGRESS_FROM))


def _read_cache(path: Path, num_recordings: int) -> list[Any]:
    """Returns what is known of each recording: its length, or something else, mostly None."""
    try:
        seconds = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):  # not there, or half-written by another program
        seconds = None
    return seconds if isinstance(seconds, list) and len(seconds) == num_recordings else [None] * num_recordings


def _write_cache(path: Path, seconds: list[float | None]) -> None:
    """Keeps what is known; where the cache is full or may not be written to, the next run measures again."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_text(json.dumps(seconds), encoding="utf-8")
        os.replace(unfinished, path)
    except OSError as error:
        logger.warning("The lengths of the recordings cannot be kept for the next run: %s.", error)
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
