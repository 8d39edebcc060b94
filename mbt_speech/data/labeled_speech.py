"""Labeled speech: clips, class names and parts of a task.

Axes: N clips, K classes.
"""

import hashlib
import json
from dataclasses import dataclass

import numpy as np
from accelerate import Accelerator
from datasets import Dataset, DatasetDict, concatenate_datasets

from feature_extraction.sound_sources import open_sound
from mbt_speech.arguments import FinetuneArguments
from mbt_speech.command_line import read_label_map

from .crops import ClipDataset
from .recording_index import AudioColumn
from .segments import Segments, holds_segments, read_segments
from .sources import index_speech, open_recordings
from .splits import SPLIT_ALIASES, are_split_by_column, encode_labels, leave_out_unknown_splits, map_labels, split_rows

SPLITS = tuple(SPLIT_ALIASES)


@dataclass(frozen=True)
class LabeledSpeech:
    """All clips of a task, and which of them belong to which split."""

    clips: ClipDataset
    """Every clip, cut at its start where it is too long; its `labels` are class ids, (N,), all 0 with segments."""
    label_names: list[str]
    """Class names, (K,)."""
    rows: dict[str, np.ndarray]
    """train, validation, test -> positions of its clips."""
    fingerprint: str
    """Identifies the audio."""
    segments: list[Segments] | None
    """Of each clip, (N,), where not clips are classified but their frames."""

    def labels_fingerprint(self) -> str:
        """Returns a digest of labels and splits."""
        rows = [self.rows[split].tolist() for split in SPLITS]
        segments = [[*map(np.ndarray.tolist, own[:2]), own.labels] for own in self.segments or []]
        words = json.dumps([self.label_names, self.clips.labels.tolist(), rows, segments])
        return hashlib.sha256(words.encode()).hexdigest()

    @property
    def unit(self) -> str:
        """Returns what is classified: clips or frames."""
        return "clips" if self.segments is None else "frames"


def load_labeled_speech(args: FinetuneArguments, accelerator: Accelerator, sampling_rate: int) -> LabeledSpeech:
    """Loads recordings, labels and splits of a task, without what cannot be read if asked to.

    Raises:
        ValueError: Labels or segments are not what they should be, or segments are not for a frozen encoder.
    """
    opened, audio_column = open_recordings(args, accelerator)
    if "labelled" in opened:
        opened = DatasetDict({"train": opened["labelled"]})
    by_column = are_split_by_column(opened, args.split_column_name)
    opened = opened if by_column else leave_out_unknown_splits(opened)
    in_segments = holds_segments(next(iter(opened.values())), args.label_column_name)
    opened = _map_labels(args, opened, in_segments)
    indices = [
        index_speech(args, accelerator, split, audio_column, sampling_rate, decode=True) for split in opened.values()
    ]
    good = DatasetDict({name: index.dataset for name, index in zip(opened, indices, strict=True)})
    label_column = None if in_segments else args.label_column_name
    rows = split_rows(good, label_column, by_column=by_column, split_column=args.split_column_name)
    # In the order in which they come, whatever the splits: tasks on the same recordings share their representations.
    clips, seconds = concatenate_datasets(list(good.values())), np.concatenate([index.seconds for index in indices])
    if in_segments:
        segments = _read_segments(args, clips, audio_column, seconds, sampling_rate)
        label_names, labels = _segment_names(args, segments, rows), np.zeros(len(clips), np.int64)
    else:
        segments, (label_names, labels) = None, _encode_labels(args, clips, rows)
    if len(label_names) < 2:
        raise ValueError(
            f"All recordings to learn from have one label in {args.label_column_name!r}, {', '.join(label_names)}: a "
            "classifier takes two classes at least. Name another --label_column_name, or add recordings."
        )
    recordings = ClipDataset(
        clips,
        audio_column,
        seconds,
        labels,
        sampling_rate=sampling_rate,
        max_seconds=args.max_length_seconds,
    )
    fingerprint = hashlib.sha256(" ".join(index.fingerprint for index in indices).encode()).hexdigest()
    return LabeledSpeech(recordings, label_names, rows, fingerprint, segments)


def _map_labels(args: FinetuneArguments, opened: DatasetDict, in_segments: bool) -> DatasetDict:
    """Returns the splits without what `--label_map` leaves out."""
    column, label_map = args.label_column_name, read_label_map(args.label_map)
    if in_segments and not args.freeze_encoder:
        raise ValueError(
            f"The column {column!r} holds segments, which are for the frames of frozen encoders alone: add "
            "--freeze_encoder to run_finetune.py, or name a column with one label for each recording."
        )
    if label_map and not in_segments:
        opened = DatasetDict({name: map_labels(split, column, label_map) for name, split in opened.items()})
        if empty := [name for name, split in opened.items() if len(split) == 0]:
            raise ValueError(f"--label_map leaves no recording in the split {empty[0]}: keep one of its labels.")
    return opened


def _encode_labels(
    args: FinetuneArguments, clips: Dataset, rows: dict[str, np.ndarray]
) -> tuple[list[str], np.ndarray]:
    """Returns the class names of the training split and the class ids of all clips, (N,)."""
    column = args.label_column_name
    label_names, _ = encode_labels(clips.select(rows["train"]), column)
    return label_names, encode_labels(clips, column, label_names)[1]


def _read_segments(
    args: FinetuneArguments, clips: Dataset, audio_column: str, seconds: np.ndarray, sampling_rate: int
) -> list[Segments]:
    units_per_second = np.ones(len(clips))
    if args.segment_unit == "samples":  # of the recording's own rate
        audio = AudioColumn(clips, audio_column)
        for row in range(len(audio)):
            with open_sound(audio[row][0], sampling_rate, audio[row][1]) as sound:
                units_per_second[row] = sound.sampling_rate
    label_map = read_label_map(args.label_map)
    return read_segments(clips, args.label_column_name, units_per_second, seconds, label_map)


def _segment_names(args: FinetuneArguments, segments: list[Segments], rows: dict[str, np.ndarray]) -> list[str]:
    """Returns the class names of the training split, sorted."""
    names = {split: {label for row in rows[split] for label in segments[row].labels} for split in SPLITS}
    if unknown := sorted((names["validation"] | names["test"]) - names["train"]):
        raise ValueError(
            f"The segments of {args.label_column_name!r} hold {', '.join(unknown[:5])}, which the training split "
            "lacks: move such recordings to it, or leave them out with --label_map."
        )
    return sorted(names["train"])
