"""Labels to class numbers, and one set of recordings to train, validation and test.

Axes: N recordings.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset, DatasetDict, concatenate_datasets

logger = logging.getLogger(__name__)

SPLIT_ALIASES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev", "development", "eval", "evaluation"),
    "test": ("test", "testing"),
}


def encode_labels(
    dataset: Dataset, label_column: str, label_names: Sequence[str] | None = None
) -> tuple[list[str], np.ndarray]:
    """Returns the class names of a label column, and each recording's class number, int64 (N,).

    Args:
        dataset: the recordings.
        label_column: strings, whole numbers, booleans or a ``ClassLabel``.
        label_names: the classes of the training split, when this is another split of the same data.

    Returns:
        The names (a ``ClassLabel``'s own; otherwise the sorted values as strings) and the numbers.

    Raises:
        ValueError: when the column is not there, a label is missing or is not a class, or is not in ``label_names``.
    """
    values = _label_values(dataset, label_column)
    if label_names is None:
        feature = dataset.features[label_column]
        label_names = feature.names if isinstance(feature, ClassLabel) else [str(v) for v in sorted(set(values))]
    numbers = {name: number for number, name in enumerate(label_names)}
    unknown = sorted({str(value) for value in values} - set(numbers))
    if unknown:
        raise ValueError(
            f"The label column {label_column!r} holds {', '.join(unknown[:5])}, which the training split lacks: "
            "move such recordings to it, or leave them out."
        )
    return list(label_names), np.array([numbers[str(value)] for value in values], dtype=np.int64)


def relabel(label: str, label_map: Mapping[str, str | None]) -> str | None:
    """Returns the new name of a label, None to leave out what bears it; "*" stands for those that are not named."""
    return label_map.get(label, label_map.get("*", label))


def map_labels(dataset: Dataset, label_column: str, label_map: Mapping[str, str | None]) -> Dataset:
    """Returns the recordings that `relabel` keeps, with the new names in their label column."""
    names = [relabel(str(value), label_map) for value in _label_values(dataset, label_column)]
    mapped = dataset.remove_columns(label_column).add_column(label_column, names)  # pyright: ignore
    return mapped.select([row for row, name in enumerate(names) if name is not None])


def leave_out_unknown_splits(recordings: DatasetDict) -> DatasetDict:
    """Returns the splits that are train, validation or test by their names, and warns of the others.

    Raises:
        ValueError: when none of them is a training split.
    """
    grouped = _group_by_split({str(name): len(split) for name, split in recordings.items()})
    used = {name for names in grouped.values() for name in names}
    return DatasetDict({name: split for name, split in recordings.items() if name in used})


def split_rows(
    recordings: DatasetDict,
    label_column: str | None,
    *,
    by_column: bool,
    split_column: str | None = None,
    seed: int = 0,
    validation_fraction: float = 0.1,
    test_fraction: float = 0.1,
) -> dict[str, np.ndarray]:
    """Returns the rows of train, validation and test, sorted, drawing what the data do not come with.

    Splits that exist are kept, under any of their usual names. A missing validation or test split is drawn from train,
    stratified: every class has that fraction of its recordings in it, and one at least. Without a label column all
    recordings are of one class.

    Args:
        recordings: one or more data sets; rows count on from one to the next.
        label_column: strings, whole numbers, booleans or a ``ClassLabel``.
        by_column: whether a column names the splits, and not the ``DatasetDict``; see `are_split_by_column`.
        split_column: this column; by default the one called "split", without which all recordings are to train on.
        seed: of the rows that are drawn.
        validation_fraction: the share of the training split to validate on, if there is no validation split.
        test_fraction: the share of the training split to test on, if there is no test split.

    Raises:
        ValueError: when a value of the split column names no split, when there is no training split, or when a class
            has too few recordings to be in every split that is drawn.
    """
    whole = concatenate_datasets(list(recordings.values()))
    if by_column:
        pieces = _pieces_by_column(whole, split_column)
    else:
        ends = np.cumsum([len(piece) for piece in recordings.values()])
        pieces = {
            str(name): np.arange(end - len(piece), end)
            for (name, piece), end in zip(recordings.items(), ends, strict=True)
        }
    grouped = _group_by_split({name: len(piece) for name, piece in pieces.items()})
    rows = {split: np.sort(np.concatenate([pieces[name] for name in names])) for split, names in grouped.items()}
    for split, fraction in (("test", test_fraction), ("validation", validation_fraction)):
        if split not in rows:
            train = rows["train"]
            labels = _label_values(whole.select(train), label_column) if label_column else [""] * len(train)
            stay, drawn = _stratified_rows(labels, label_column or "no column", fraction, seed)
            rows |= {"train": train[stay], split: train[drawn]}
    return {split: rows[split] for split in SPLIT_ALIASES}


def split_of(name: object) -> str | None:
    """Returns "train", "validation" or "test" for a usual name of one ("dev", "train-clean-100"), else None."""
    first_word = re.split(r"[-_. \d]", str(name).strip().lower())[0]
    return next((split for split, aliases in SPLIT_ALIASES.items() if first_word in aliases), None)


def column_values(dataset: Dataset, column: str) -> list[Any]:
    """Returns a column as plain Python values, without decoding or touching the others."""
    if column not in dataset.column_names:
        raise ValueError(f"There is no column {column!r}: the columns are {', '.join(dataset.column_names)}.")
    return dataset.select_columns([column]).with_format("arrow")[:][column].to_pylist()


def _named_values(dataset: Dataset, column: str) -> list[Any]:
    """Returns a column with the names of classes for their numbers; a number below 0 is no class."""
    values, feature = column_values(dataset, column), dataset.features[column]
    if not isinstance(feature, ClassLabel):
        return values
    return [None if value is None or value < 0 else feature.names[value] for value in values]


def _label_values(dataset: Dataset, label_column: str) -> list[Any]:
    values = _named_values(dataset, label_column)
    missing = [row for row, value in enumerate(values) if value is None or value == "" or value != value]
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(values)} recordings have no label in {label_column!r} (first: row {missing[0]}): "
            "give them one or leave them out."
        )
    # Whole numbers with gaps become floats in many tables.
    values = [int(value) if isinstance(value, float) and value.is_integer() else value for value in values]
    if not all(isinstance(value, str | int) for value in values):
        odd = next(value for value in values if not isinstance(value, str | int))
        raise ValueError(f"The label column {label_column!r} holds {odd!r}: classes are strings or whole numbers.")
    has_strings = any(isinstance(value, str) for value in values)
    return [str(value) for value in values] if has_strings else values


def are_split_by_column(recordings: DatasetDict, split_column: str | None) -> bool:
    """Returns whether not their names but a column says what the splits are: if it is named, or there is one split."""
    return len(recordings) == 1 or split_column is not None


def _group_by_split(counts: Mapping[str, int]) -> dict[str, list[str]]:
    """Returns train, validation, test -> those of some names that name it; `counts` are recordings of each name."""
    grouped: dict[str, list[str]] = {}
    for name, count in counts.items():
        split = split_of(name)
        if split is None:
            logger.warning(
                "The split %r (%d recordings) is not used: it is not train, validation or test.", name, count
            )
        else:
            grouped.setdefault(split, []).append(name)
    if "train" not in grouped:
        raise ValueError(f"There is no training split among {', '.join(counts)}: name one of them train.")
    return grouped


def _pieces_by_column(dataset: Dataset, split_column: str | None) -> dict[str, np.ndarray]:
    if split_column is None and "split" not in dataset.column_names:
        return {"train": np.arange(len(dataset))}
    split_column = split_column or "split"
    values = _named_values(dataset, split_column)
    unknown = sorted({str(value) for value in values if split_of(value) is None})
    if unknown:
        raise ValueError(
            f"The split column {split_column!r} holds {', '.join(unknown[:5])}: write train, validation or test."
        )
    return {name: np.flatnonzero(np.array(values) == name) for name in sorted(set(values))}


def _stratified_rows(
    labels: Sequence[Any], label_column: str, fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the rows that stay and the rows that are drawn, each sorted; both have every class."""
    generator = np.random.default_rng(seed)
    classes, numbers = np.unique(np.array([str(label) for label in labels]), return_inverse=True)
    drawn = []
    for number, label in enumerate(classes):
        rows = np.flatnonzero(numbers == number)
        if len(rows) < 2:
            raise ValueError(
                f"The class {str(label)!r} of {label_column!r} has too few recordings for one in every split: add "
                "some, leave the class out, or name the splits (train, validation, test) yourself."
            )
        drawn.append(generator.permutation(rows)[: min(max(1, round(fraction * len(rows))), len(rows) - 1)])
    is_drawn = np.zeros(len(numbers), dtype=bool)
    is_drawn[np.concatenate(drawn)] = True
    return np.flatnonzero(~is_drawn), np.flatnonzero(is_drawn)
