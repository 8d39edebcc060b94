"""Labeled segments of recordings, such as phones with their times, and what they make of frames.

Axes: N recordings, P segments of a recording, T frames.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from datasets import ClassLabel, Dataset, LargeList, List, Value

from .splits import column_values, relabel

NO_LABEL = -1
# A segment may end a little after its recording, whose length is rounded in many a list.
TOLERANCE_SECONDS = 0.1


class Segments(NamedTuple):
    """The labeled stretches of one recording, by their starts."""

    starts: np.ndarray
    """In seconds, (P,)."""
    ends: np.ndarray
    """In seconds, (P,)."""
    labels: list[str]

    def classes_at(self, seconds: np.ndarray, label_names: list[str]) -> np.ndarray:
        """Returns the class of each moment (T,), or -1 outside every segment; where two overlap, that of the later."""
        numbers = {name: number for number, name in enumerate(label_names)}
        classes = np.full(len(seconds), NO_LABEL)
        for start, end, label in zip(self.starts, self.ends, self.labels, strict=True):
            classes[(seconds >= start) & (seconds < end)] = numbers[label]
        return classes


def holds_segments(dataset: Dataset, column: str) -> bool:
    """Returns whether a column is of segments: a list of structs for each recording, or a struct of lists."""
    return _fields(dataset.features.get(column)) is not None


def read_segments(
    dataset: Dataset,
    column: str,
    units_per_second: np.ndarray,
    seconds: np.ndarray,
    label_map: Mapping[str, str | None],
) -> list[Segments]:
    """Reads the segments of all recordings.

    Args:
        dataset: The recordings.
        column: Segments with a start, an end (or stop) and a label: fields whose names begin with "start" and with
            "end" or "stop", and one field of strings or classes, such as {start, end, label} or, in the Hub's TIMIT,
            {start, stop, utterance}.
        units_per_second: Of their times, for each recording, (N,).
        seconds: Lengths of the recordings, (N,).
        label_map: Of `relabel`; segments that it leaves out belong to no class.

    Raises:
        ValueError: The fields are others, a segment has no label, ends before it starts or after its recording, or
            samples are not whole.
    """
    start, end, label, names = _names_of_fields(dataset, column)
    result = []
    for row, value in enumerate(column_values(dataset, column)):
        segments = _as_structs(value)
        if any(_lacks(segment, start, end, label) for segment in segments):
            raise ValueError(f"A segment of {column!r} in recording {row} lacks its label or a time: leave it out.")
        order = sorted(segments, key=lambda segment: segment[start])
        labels = [names[s[label]] if names else s[label] for s in order]
        units = np.array([[s[start], s[end]] for s in order], np.float64).reshape(-1, 2)
        if units_per_second[row] != 1 and (units != np.round(units)).any():
            raise ValueError(f"{column!r} has fractions of samples: are its times seconds (--segment_unit seconds)?")
        times = units / units_per_second[row]
        _check(column, row, times, seconds[row])
        new = [relabel(old, label_map) for old in labels]
        kept = [number for number, name in enumerate(new) if name is not None]
        result.append(Segments(times[kept, 0], times[kept, 1], [str(new[number]) for number in kept]))
    return result


def _fields(feature: Any) -> dict[str, Any] | None:
    """Returns the type of each field of a segment, or None for a column of something else."""
    if isinstance(feature, List | LargeList) and isinstance(feature.feature, dict):
        return feature.feature
    if isinstance(feature, dict) and feature and all(isinstance(own, List | LargeList) for own in feature.values()):
        return {name: own.feature for name, own in feature.items()}
    return None


def _names_of_fields(dataset: Dataset, column: str) -> tuple[str, str, str, list[str] | None]:
    """Returns the fields for start, end and label, and the class names where labels are their numbers."""
    fields = _fields(dataset.features[column]) or {}
    starts = [name for name in fields if name.startswith("start")]
    ends = [name for name in fields if name.startswith(("end", "stop"))]
    labels = [
        name
        for name, feature in fields.items()
        if isinstance(feature, ClassLabel) or (isinstance(feature, Value) and "string" in feature.dtype)
    ]
    if not len(starts) == len(ends) == len(labels) == 1:
        raise ValueError(
            f"The segments of {column!r} have the fields {', '.join(fields)}: one must begin with start, one with end "
            "or stop, and one must hold strings."
        )
    feature = fields[labels[0]]
    return starts[0], ends[0], labels[0], feature.names if isinstance(feature, ClassLabel) else None


def _as_structs(value: Any) -> list[dict[str, Any]]:
    if isinstance(value, dict):
        return [dict(zip(value, values, strict=True)) for values in zip(*value.values(), strict=True)]
    return value or []


def _lacks(segment: Mapping[str, Any], start: str, end: str, label: str) -> bool:
    """Returns whether a time or the label is not given; a class number below 0 stands for none."""
    values = [segment[name] for name in (start, end, label)]
    is_no_class = isinstance(values[2], int) and values[2] < 0
    return is_no_class or any(value is None or value != value for value in values)


def _check(column: str, row: int, times: np.ndarray, seconds: float) -> None:
    if (times[:, 0] > times[:, 1]).any():
        raise ValueError(f"A segment of {column!r} in recording {row} ends before it starts: mend it.")
    if len(times) and times.max() > seconds + TOLERANCE_SECONDS:
        raise ValueError(
            f"A segment of {column!r} in recording {row} ends at {times.max():g} s, and the recording at "
            f"{seconds:.2f} s: are its times in the unit that --segment_unit says (seconds or samples)?"
        )
