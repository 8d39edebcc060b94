"""Crops and clips for training: what a data loader reads, one recording's piece at a time, and how it is batched.

Which piece an item is depends on (seed, epoch, item) alone, so that it is the same in every worker and after a resume.
An item is asked for by its key (epoch, item), which the sampler hands out; a bare item is of epoch 0.

Axes: B items of a batch, S samples.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
from datasets import Dataset as Recordings
from torch.utils.data import Dataset

from feature_extraction.speech import BadAudioError, to_waveform
from mbt_speech.standard_error import silent_stderr

from .recording_index import AudioColumn

Key = int | tuple[int, int]

# How many other recordings a crop tries when its own turns out to be bad.
MAX_SUBSTITUTES = 8
# Of one batch. A third of the time is Python's, which runs one thread at a time: more would wait for each other.
MAX_THREADS = 4


class Crops(NamedTuple):
    """An item of `CropDataset`: n crops of one utterance, zeros after their ends, and what was bad on the way."""

    waveforms: np.ndarray  # (n, S)
    lengths: np.ndarray  # (n,)
    bad: list[tuple[str, str]]


class Clip(NamedTuple):
    """An item of `ClipDataset`: a waveform (S,) and its class number."""

    waveform: np.ndarray
    label: int


class _Pieces(Dataset, ABC):
    """Pieces of recordings whose random starts derive from (seed, epoch, item)."""

    def __init__(
        self,
        recordings: Recordings,
        audio_column: str,
        seconds: np.ndarray,
        sampling_rate: int,
        seed: int,
    ):
        if len(recordings) != len(seconds):
            raise ValueError(f"There are {len(recordings)} recordings and {len(seconds)} lengths: give one for each.")
        self.sampling_rate = sampling_rate
        self.seconds = np.asarray(seconds, dtype=np.float64)
        self.seed = seed
        self._audio = AudioColumn(recordings, audio_column)

    def __getitem__(self, key: Key) -> Any:
        with silent_stderr():  # see `__getitems__`
            return self._items([key])[0]

    def __getitems__(self, keys: Sequence[Key]) -> list[Any]:
        """Reads a batch, as a data loader asks for it.

        libsndfile decodes without Python's lock, so the threads of torch, which have nothing else to do until the
        batch is there, make room for as many that read: several in the main process, one in a data loader's worker.

        Where an mp3 is cut, libmpg123 prints that the frames before lack earlier ones: a line for every other crop,
        about samples that are dropped anyway, and so nothing is printed meanwhile.
        """
        threads = min(torch.get_num_threads(), MAX_THREADS)
        share = max(1, math.ceil(len(keys) / threads))
        shares = [keys[first : first + share] for first in range(0, len(keys), share)]
        with silent_stderr(), ThreadPoolExecutor(threads) as pool:
            return list(chain.from_iterable(pool.map(self._items, shares)))

    def _items(self, keys: Sequence[Key]) -> list[Any]:
        # All generators at once: between two decodings, one takes three times as long as after another.
        pairs = [key if isinstance(key, tuple) else (0, key) for key in keys]
        generators = [np.random.default_rng((self.seed, epoch, item)) for epoch, item in pairs]
        return [self._item(item, generator) for (_, item), generator in zip(pairs, generators, strict=True)]

    @abstractmethod
    def _item(self, item: int, generator: np.random.Generator) -> Any:
        """Reads one item."""

    def _read(self, recording: int, piece_seconds: float | None, generator: np.random.Generator | None) -> np.ndarray:
        """Reads a piece that starts at random, or at the start without a generator; shorter where the recording is."""
        audio, name = self._audio[recording]
        start = 0
        if generator is not None and piece_seconds is not None:
            samples = int(self.seconds[recording] * self.sampling_rate)
            start = int(generator.integers(max(0, samples - round(piece_seconds * self.sampling_rate)) + 1))
        start_seconds = start / self.sampling_rate
        return to_waveform(
            audio, self.sampling_rate, start_seconds=start_seconds, duration_seconds=piece_seconds, name=name
        )


class CropDataset(_Pieces):
    """Random crops for pre-training: a recording is visited in proportion to its length, at least once an epoch.

    Args:
        recordings: as `index_recordings` returns them, with
        audio_column: the name of their audio column, and
        seconds: their lengths (N,).
        crop_seconds: the length of a crop; a shorter recording is followed by zeros.
        sampling_rate: of the crops, in Hz.
        crops_per_item: 1, or 2 for two crops of the same utterance, drawn independently.
        seed: of the crops' places.
        on_bad_audio: "raise", or "skip" to take a crop of another recording instead (so that batches keep their size
            in every process) and to report the bad one in ``bad``.
    """

    def __init__(
        self,
        recordings: Recordings,
        audio_column: str,
        seconds: np.ndarray,
        *,
        crop_seconds: float,
        sampling_rate: int = 16_000,
        crops_per_item: int = 1,
        seed: int = 0,
        on_bad_audio: str = "raise",
    ):
        super().__init__(recordings, audio_column, seconds, sampling_rate, seed)
        if crops_per_item not in (1, 2):
            raise ValueError(f"crops_per_item={crops_per_item} must be 1 or 2.")
        if on_bad_audio not in ("raise", "skip"):
            raise ValueError(f"on_bad_audio={on_bad_audio!r} must be raise or skip.")
        self.on_bad_audio = on_bad_audio
        self.crop_seconds = crop_seconds
        self.crops_per_item = crops_per_item
        crops = np.maximum(1, np.rint(self.seconds / crop_seconds)).astype(np.int64)
        self._recording_of = np.repeat(np.arange(len(crops)), crops)

    def __len__(self) -> int:
        return len(self._recording_of)

    def _item(self, item: int, generator: np.random.Generator) -> Crops:
        recording = int(self._recording_of[item])
        bad = []
        while True:
            try:
                return self._crops(recording, generator, bad)
            except BadAudioError as error:
                bad.append((error.name, error.reason))
                if self.on_bad_audio == "raise" or len(bad) > MAX_SUBSTITUTES:
                    raise
                recording = int(generator.integers(len(self.seconds)))

    @property
    def extent(self) -> str:
        """Returns a phrase of how much speech there is."""
        return f"{self.seconds.sum() / 3600:.2f} h in {len(self.seconds)} recordings"

    def name(self, item: int) -> str:
        """Returns what errors call the recording of an item."""
        return self._audio[int(self._recording_of[item])][1]

    def _crops(self, recording: int, generator: np.random.Generator, bad: list[tuple[str, str]]) -> Crops:
        waveforms = np.zeros((self.crops_per_item, round(self.crop_seconds * self.sampling_rate)), np.float32)
        lengths = np.zeros(self.crops_per_item, np.int64)
        for crop in range(self.crops_per_item):
            waveform = self._read(recording, self.crop_seconds, generator)
            waveforms[crop, : len(waveform)] = waveform
            lengths[crop] = len(waveform)
        return Crops(waveforms, lengths, bad)


class ClipDataset(_Pieces):
    """Labeled recordings for fine-tuning, whole or cut to ``max_seconds``.

    Args:
        recordings: as `index_recordings` returns them, with
        audio_column: the name of their audio column,
        seconds: their lengths (N,), and
        labels: their class numbers (N,), as `encode_labels` gives them.
        sampling_rate: of the clips, in Hz.
        max_seconds: longer recordings are cut to this, at their start; see `cut_at_random`.
    """

    def __init__(
        self,
        recordings: Recordings,
        audio_column: str,
        seconds: np.ndarray,
        labels: np.ndarray,
        *,
        sampling_rate: int = 16_000,
        max_seconds: float | None = None,
    ):
        super().__init__(recordings, audio_column, seconds, sampling_rate, 0)
        if len(labels) != len(seconds):
            raise ValueError(f"There are {len(seconds)} recordings and {len(labels)} labels: give one for each.")
        self.labels = np.asarray(labels)
        self.max_seconds = max_seconds
        self._random_start = False

    def cut_at_random(self, seed: int) -> "ClipDataset":
        """Returns the same recordings, the longer ones cut at a place that the seed draws anew every epoch."""
        clips = copy(self)
        clips.seed, clips._random_start = seed, True
        return clips

    def __len__(self) -> int:
        return len(self.seconds)

    def name(self, item: int) -> str:
        """Returns what errors call the recording of an item."""
        return self._audio[item][1]

    def _item(self, item: int, generator: np.random.Generator) -> Clip:
        waveform = self._read(item, self.max_seconds, generator if self._random_start else None)
        return Clip(waveform, int(self.labels[item]))


def collate_crops(items: Sequence[Crops]) -> dict[str, Any]:
    """Batches crops: ``waveforms`` (B, S) float32, ``lengths`` (B,) in samples, ``bad`` (name, reason) pairs.

    With two crops an item, ``second_waveforms`` and ``second_lengths`` hold the second ones.
    """
    waveforms = torch.from_numpy(np.stack([item.waveforms for item in items], axis=1))
    lengths = torch.from_numpy(np.stack([item.lengths for item in items], axis=1))
    batch = {"waveforms": waveforms[0], "lengths": lengths[0]}
    if len(waveforms) == 2:
        batch |= {"second_waveforms": waveforms[1], "second_lengths": lengths[1]}
    return batch | {"bad": [pair for item in items for pair in item.bad]}


def collate_clips(items: Sequence[Clip]) -> dict[str, Any]:
    """Batches clips: ``waveforms`` (B, S) float32, zeros after their ends, ``lengths`` (B,), ``labels`` (B,).

    S is the longest clip's.
    """
    lengths = np.array([len(item.waveform) for item in items], dtype=np.int64)
    waveforms = np.zeros((len(items), lengths.max()), np.float32)
    for row, item in zip(waveforms, items, strict=True):
        row[: len(item.waveform)] = item.waveform
    return {
        "waveforms": torch.from_numpy(waveforms),
        "lengths": torch.from_numpy(lengths),
        "labels": torch.tensor([item.label for item in items], dtype=torch.int64),
    }
