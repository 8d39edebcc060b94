"""Labelled speech: clips, class names and parts of a task.

Axes: N clips, K classes.
"""

from dataclasses import dataclass

import numpy as np
from accelerate import Accelerator
from datasets import DatasetDict, concatenate_datasets

from feature_extraction.crops import ClipDataset
from feature_extraction.splits import SPLIT_ALIASES, encode_labels, split_dataset

from .arguments import FinetuneArguments
from .speech_data import index_speech, open_recordings

PARTS = tuple(SPLIT_ALIASES)


@dataclass(frozen=True)
class LabelledSpeech:
    """All clips of a task, and which of them belong to which part."""

    clips: ClipDataset
    """Every clip, cut at its start where it is too long; its `labels` are class ids, (N,)."""
    training_clips: ClipDataset
    """The same clips, cut at random."""
    label_names: list[str]
    """Class names, (K,)."""
    rows: dict[str, np.ndarray]
    """train, validation, test -> positions of its clips."""
    fingerprint: str
    """Identifies the audio."""

    def chance(self) -> float:
        """Give the test accuracy of always naming the most frequent class of the training part."""
        labels = self.clips.labels
        return float((labels[self.rows["test"]] == np.bincount(labels[self.rows["train"]]).argmax()).mean())


def load_labelled_speech(args: FinetuneArguments, accelerator: Accelerator, sampling_rate: int) -> LabelledSpeech:
    """Find recordings, labels and parts; leave out what cannot be read, if asked to."""
    parts, audio_column = open_recordings(args, accelerator)
    if "labelled" in parts:
        parts = DatasetDict({"train": parts["labelled"]})
    good = {
        name: index_speech(args, accelerator, part, audio_column, decode=True).dataset for name, part in parts.items()
    }
    recordings = next(iter(good.values())) if len(good) == 1 else DatasetDict(good)
    split = split_dataset(recordings, args.label_column_name, split_column=args.split_column_name)
    clips = concatenate_datasets([split[part] for part in PARTS])
    index = index_speech(args, accelerator, clips, audio_column, decode=False)
    label_names, train_labels = encode_labels(split["train"], args.label_column_name)
    others = [encode_labels(split[part], args.label_column_name, label_names)[1] for part in PARTS[1:]]
    ends = np.cumsum([len(split[part]) for part in PARTS])
    datasets = [
        ClipDataset(
            index.dataset,
            audio_column,
            index.seconds,
            np.concatenate([train_labels, *others]),
            sampling_rate=sampling_rate,
            max_seconds=args.max_length_seconds,
            random_start=random_start,
            seed=args.seed[0],
        )
        for random_start in (False, True)
    ]
    rows = {part: np.arange(end - len(split[part]), end) for part, end in zip(PARTS, ends, strict=True)}
    return LabelledSpeech(datasets[0], datasets[1], label_names, rows, index.fingerprint)
