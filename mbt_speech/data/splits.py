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


def split_dataset(
    dataset: Dataset | DatasetDict,
    label_column: str | None,
    *,
    split_column: str | None = None,
    seed: int = 0,
    validation_fraction: float = 0.1,
    test_fraction: float = 0.1,
) -> DatasetDict:
    """Returns the splits train, validation and test, drawing what the data do not come with.

    Splits that exist are kept: those that ``split_column`` names, or those of a ``DatasetDict``, or those of a column
    called "split", if there is one; under any of their usual names. A missing validation or test split is drawn from
    train, stratified: every class has that fraction of its recordings in it, and one at least. Without a label column
    all recordings are of one class.

    Raises:
        ValueError: when a value of the split column names no split, when there is no training split, or when a class
            has too few recordings to be in every split that is drawn.
    """
    splits = _existing_splits(dataset, split_column)
    for split, fraction in (("test", test_fraction), ("validation", validation_fraction)):
        if split not in splits:
            whole = splits["train"]
            labels = _label_values(whole, label_column) if label_column else [""] * len(whole)
            rest, drawn = _stratified_rows(labels, label_column or "no column", fraction, seed)
            splits |= {"train": whole.select(rest), split: whole.select(drawn)}
    return DatasetDict({split: splits[split] for split in SPLIT_ALIASES})


def split_of(name: object) -> str | None:
    """Returns "train", "validation" or "test" for a usual name of one ("dev", "train-clean-100"), else None."""
    first_word = re.split(r"[-_. \d]", str(name).strip().lower())[0]
    return next((split for split, aliases in SPLIT_ALIASES.items() if first_word in aliases), None)


def column_values(dataset: Dataset, column: str) -> list[Any]:
    """Returns a column as plain Python values, without decoding or touching the others."""
    if column not in dataset.column_names:
        raise ValueError(f"There is no column {column!r}: the columns are {', '.join(dataset.column_names)}.")
    return dataset.select_columns([column]).with_format("arrow")[:][column].to_pylist()


def _label_values(dataset: Dataset, label_column: str) -> list[Any]:
    values = column_values(dataset, label_column)
    feature = dataset.features[label_column]
    if isinstance(feature, ClassLabel):
        values = [None if value is None or value < 0 else feature.names[value] for value in values]
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


def _existing_splits(dataset: Dataset | DatasetDict, split_column: str | None) -> dict[str, Dataset]:
    if isinstance(dataset, DatasetDict) and (len(dataset) == 1 or split_column is not None):
        dataset = concatenate_datasets(list(dataset.values()))
    if isinstance(dataset, DatasetDict):
        pieces = {str(name): piece for name, piece in dataset.items()}
    else:
        pieces = _pieces_by_column(dataset, split_column)
    splits: dict[str, list[Dataset]] = {}
    for name, piece in pieces.items():
        split = split_of(name)
        if split is None:
            logger.warning(
                "The split %r (%d recordings) is not used: it is not train, validation or test.", name, len(piece)
            )
        else:
            splits.setdefault(split, []).append(piece)
    if "train" not in splits:
        raise ValueError(f"There is no training split among {', '.join(pieces)}: name one of them train.")
    return {split: concatenate_datasets(pieces) for split, pieces in splits.items()}


def _pieces_by_column(dataset: Dataset, split_column: str | None) -> dict[str, Dataset]:
    if split_column is None and "split" not in dataset.column_names:
        return {"train": dataset}
    split_column = split_column or "split"
    feature = dataset.features.get(split_column)
    values = column_values(dataset, split_column)
    if isinstance(feature, ClassLabel):
        values = [feature.names[value] for value in values]
    unknown = sorted({str(value) for value in values if split_of(value) is None})
    if unknown:
        raise ValueError(
            f"The split column {split_column!r} holds {', '.join(unknown[:5])}: write train, validation or test."
        )
    return {name: dataset.select(np.flatnonzero(np.array(values) == name)) for name in sorted(set(values))}


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
