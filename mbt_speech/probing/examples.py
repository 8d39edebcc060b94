"""What a linear head learns from and is tested on: clips or frames, represented by a frozen encoder.

Axes: N examples, F frames of all clips in a row, H features of a representation.
"""

from dataclasses import dataclass

import numpy as np
from accelerate import Accelerator

from mbt_speech.arguments import FinetuneArguments
from mbt_speech.data.label_fractions import select_label_fraction
from mbt_speech.data.labeled_speech import LabeledSpeech
from mbt_speech.data.segments import NO_LABEL

from .embeddings import Embedder, cached_arrays
from .encoders import ClipEncoder, FrozenEncoder


@dataclass(frozen=True)
class Examples:
    """Clips or frames."""

    features: np.ndarray
    """Their representations, (N, H)."""
    labels: np.ndarray
    """Their class ids, (N,), -1 for frames of no class."""
    clips: np.ndarray
    """The clip that each one is of, (N,)."""
    rows: dict[str, np.ndarray]
    """train, validation, test -> positions of the examples of a class."""
    max_train: int | None = None
    """At most about so many of each part are learned from."""

    def choose(self, part: str, clips: np.ndarray, seed: int) -> np.ndarray:
        """Returns positions of the examples of some clips of a split; of too many, a stratified choice."""
        rows = self.rows[part]
        rows = rows[np.isin(self.clips[rows], clips)]
        if self.max_train is None or len(rows) <= self.max_train:
            return rows
        return rows[select_label_fraction(self.labels[rows], self.max_train / len(rows), seed)]


def represent(
    args: FinetuneArguments, accelerator: Accelerator, speech: LabeledSpeech, encoder: ClipEncoder
) -> Examples:
    """Represents all clips of a task, or their frames, by a frozen encoder, from the cache if this was done before.

    Raises:
        ValueError: No frame of a split lies in a segment.
    """
    batch_size, workers = args.per_device_train_batch_size, args.dataloader_num_workers
    embedder = Embedder(accelerator, speech.clips, batch_size, workers, f"Representing the {speech.unit}")
    key = {"audio": speech.fingerprint, "max_length_seconds": args.max_length_seconds, **encoder.fingerprint()}
    if speech.segments is None:
        features = cached_arrays(accelerator, key, lambda: {"clips": embedder.embed_clips(encoder)})["clips"]
        return Examples(features, speech.clips.labels, np.arange(len(features)), speech.rows)
    assert isinstance(encoder, FrozenEncoder)
    arrays = cached_arrays(accelerator, {**key, "unit": "frames"}, lambda: embedder.embed_frames(encoder))
    labels = label_frames(speech, encoder, arrays["counts"])
    clips = np.repeat(np.arange(len(arrays["counts"])), arrays["counts"])
    rows = {part: np.flatnonzero(np.isin(clips, own) & (labels != NO_LABEL)) for part, own in speech.rows.items()}
    for part, own in rows.items():
        if not len(own):
            raise ValueError(
                f"No frame of the {part} split lies in a segment of {args.label_column_name!r}: look at its times and "
                "at --segment_unit (seconds or samples)."
            )
    return Examples(arrays["frames"], labels, clips, rows, args.max_train_frames)


def label_frames(speech: LabeledSpeech, encoder: FrozenEncoder, counts: np.ndarray) -> np.ndarray:
    """Returns the class of each frame (F,), that of the segment that holds its center; `counts` (N,) of each clip."""
    assert speech.segments is not None
    seconds = encoder.centers(int(counts.max())).numpy() / encoder.sampling_rate
    return np.concatenate(
        [
            segments.classes_at(seconds[:count], speech.label_names)
            for segments, count in zip(speech.segments, counts, strict=True)
        ]
    )
