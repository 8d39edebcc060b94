"""Crops of recordings that come as a stream: from the Hub, or from parquet and tar files that are read as they go.

The length of a stream is not known, and its recordings are not indexed: each pass takes one crop of each recording.
"""

import itertools
from collections.abc import Iterator
from typing import Any

import fsspec
import numpy as np
from datasets import IterableDataset as Stream
from datasets.distributed import split_dataset_by_node
from torch.utils.data import IterableDataset, get_worker_info

from feature_extraction.sound_sources import audio_name
from feature_extraction.speech import BadAudioError, recording_seconds, to_waveform

from .crops import Crops
from .recording_index import MIN_RECORDING_SECONDS

MAX_BAD_IN_A_ROW = 100


class StreamedCrops(IterableDataset):
    """Random crops without an end, the stream's shards shared by processes and workers.

    Args:
        recordings: Not decoded, as `load_stream` gives them.
        audio_column: Name of their audio column.
        crop_seconds: Length of a crop; a shorter recording is followed by zeros.
        sampling_rate: Of the crops, in Hz.
        crops_per_item: 1, or 2 for two crops of the same recording.
        buffer_size: Recordings that wait in memory, from which the next one is drawn at random.
        seed: Of the order and of the crops' places.
        on_bad_audio: "raise", or "skip" to go on with the next recording and report the bad one.
        num_processes: Processes that share the stream.
        process_index: This one.
    """

    def __init__(
        self,
        recordings: Stream,
        audio_column: str,
        *,
        crop_seconds: float,
        sampling_rate: int = 16_000,
        crops_per_item: int = 1,
        buffer_size: int = 1_000,
        seed: int = 0,
        on_bad_audio: str = "raise",
        num_processes: int = 1,
        process_index: int = 0,
    ):
        shuffled = recordings.select_columns([audio_column]).shuffle(seed=seed, buffer_size=buffer_size)
        self._stream = split_dataset_by_node(shuffled, rank=process_index, world_size=num_processes)
        self._column = audio_column
        self.crop_seconds, self.sampling_rate, self.crops_per_item = crop_seconds, sampling_rate, crops_per_item
        self.seed, self.on_bad_audio, self._process_index = seed, on_bad_audio, process_index
        self._start = 0

    @property
    def extent(self) -> str:
        """Returns a phrase of how much speech there is."""
        return "a stream"

    def start_at(self, step: int) -> None:
        """Draws order and places for a run that goes on after so many steps: not those of a run that never stopped."""
        self._start = step

    def __iter__(self) -> Iterator[Crops]:
        worker = get_worker_info()
        generator = np.random.default_rng((self.seed, self._start, self._process_index, worker.id if worker else 0))
        bad = []
        for audio in self._without_end():
            try:
                crops = self._crops(audio, audio_name(audio), generator)
            except BadAudioError as error:
                bad.append((error.name, error.reason))
                if self.on_bad_audio == "raise" or len(bad) > MAX_BAD_IN_A_ROW:
                    raise
                continue
            yield crops._replace(bad=bad)
            bad = []

    def _without_end(self) -> Iterator[Any]:
        """Yields audio values, pass after pass; nothing to a worker that has no shard."""
        for epoch in itertools.count(self._start):
            self._stream.set_epoch(epoch)
            is_empty = True
            for row in self._stream:
                is_empty = False
                yield _fetched(row[self._column])
            if is_empty:
                return

    def _crops(self, audio: Any, name: str, generator: np.random.Generator) -> Crops:
        seconds = recording_seconds(audio, self.sampling_rate, min_seconds=MIN_RECORDING_SECONDS, name=name)
        spare = seconds - self.crop_seconds
        waveforms = np.zeros((self.crops_per_item, round(self.crop_seconds * self.sampling_rate)), np.float32)
        lengths = np.zeros(self.crops_per_item, np.int64)
        for crop in range(self.crops_per_item):
            waveform = to_waveform(
                audio,
                self.sampling_rate,
                start_seconds=generator.uniform(0, max(0.0, spare)),
                duration_seconds=self.crop_seconds,
                name=name,
            )
            waveforms[crop, : len(waveform)] = waveform
            lengths[crop] = len(waveform)
        return Crops(waveforms, lengths, [])


def _fetched(audio: Any) -> Any:
    """Reads a file that lies elsewhere (a stream of plain sound files names it by its address)."""
    is_only_named = isinstance(audio, dict) and all(audio.get(key) is None for key in ("bytes", "array"))
    if is_only_named and "://" in str(audio.get("path")):
        with fsspec.open(audio["path"], "rb") as file:
            return {"bytes": file.read(), "path": audio["path"]}  # pyright: ignore[reportAttributeAccessIssue]
    return audio
