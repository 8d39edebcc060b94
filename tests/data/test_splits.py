"""Labels as class numbers, and splits as they are given or drawn."""

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from mbt_speech.data.splits import encode_labels, split_dataset, split_of

# Labels


@pytest.mark.parametrize(
    ("values", "names", "numbers"),
    [
        (["b", "a", "b"], ["a", "b"], [1, 0, 1]),
        ([10, 9, 10], ["9", "10"], [1, 0, 1]),
        ([2.0, 0.0, 2.0], ["0", "2"], [1, 0, 1]),
        ([True, False, True], ["False", "True"], [1, 0, 1]),
    ],
)
def test_labels_of_any_type_become_class_numbers(values, names, numbers):
    found_names, found_numbers = encode_labels(Dataset.from_dict({"y": values}), "y")
    assert found_names == names
    assert found_numbers.dtype == np.int64
    assert found_numbers.tolist() == numbers


def test_a_class_label_keeps_its_names_and_order():
    features = Features({"y": ClassLabel(names=["yes", "no", "never"])})
    names, numbers = encode_labels(Dataset.from_dict({"y": [1, 0, 1]}, features=features), "y")
    assert (names, numbers.tolist()) == (["yes", "no", "never"], [1, 0, 1])


def test_another_part_is_numbered_by_the_names_of_training():
    names, numbers = encode_labels(Dataset.from_dict({"y": ["c", "a"]}), "y", ["a", "b", "c"])
    assert (names, numbers.tolist()) == (["a", "b", "c"], [2, 0])
    with pytest.raises(ValueError, match="'y' holds d"):
        encode_labels(Dataset.from_dict({"y": ["d", "a"]}), "y", ["a", "b"])


@pytest.mark.parametrize(
    ("values", "match"),
    [
        (["a", None], "1 of 2 recordings have no label"),
        (["a", ""], "no label"),
        ([1.0, float("nan")], "no label"),
        ([0.5, 1.0], "0.5"),
        ([["a"], ["b"]], "classes are strings"),
    ],
)
def test_what_is_no_label_is_refused(values, match):
    with pytest.raises(ValueError, match=match):
        encode_labels(Dataset.from_dict({"y": values}), "y")


def test_a_missing_class_label_and_a_missing_column_are_refused():
    dataset = Dataset.from_dict({"y": [0, -1]}, features=Features({"y": ClassLabel(names=["a"])}))
    with pytest.raises(ValueError, match="no label"):
        encode_labels(dataset, "y")
    with pytest.raises(ValueError, match="the columns are y"):
        encode_labels(dataset, "z")


# Splits


def rows_of(splits: DatasetDict) -> dict[str, list[int]]:
    return {str(split): rows["row"][:] for split, rows in splits.items()}


def test_parts_are_drawn_with_every_class_in_each():
    labels = ["a"] * 50 + ["b"] * 20 + ["c"] * 3
    dataset = Dataset.from_dict({"y": labels, "row": list(range(73))})
    splits = split_dataset(dataset, "y", seed=1)
    assert list(splits) == ["train", "validation", "test"]
    assert sorted(row for rows in rows_of(splits).values() for row in rows) == list(range(73))
    counts = {split: [rows["y"][:].count(label) for label in "abc"] for split, rows in splits.items()}
    assert counts == {"train": [41, 16, 1], "validation": [4, 2, 1], "test": [5, 2, 1]}
    assert rows_of(split_dataset(dataset, "y", seed=1)) == rows_of(splits)
    assert rows_of(split_dataset(dataset, "y", seed=2)) != rows_of(splits)


def test_a_class_too_small_for_every_part_is_named():
    with pytest.raises(ValueError, match="class 'b' of 'y'"):
        split_dataset(Dataset.from_dict({"y": ["a"] * 9 + ["b"] * 2}), "y")


def test_parts_that_exist_are_kept_and_the_missing_one_is_drawn():
    dataset = Dataset.from_dict({"y": ["a", "b"] * 10, "row": list(range(20))})
    given_splits = DatasetDict({"train": dataset, "eval": dataset.select([0]), "extra": dataset})
    splits = split_dataset(given_splits, "y")
    assert rows_of(splits)["validation"] == [0]
    assert sorted(rows_of(splits)["train"] + rows_of(splits)["test"]) == list(range(20))
    with pytest.raises(ValueError, match="no training split among test, dev"):
        split_dataset(DatasetDict({"test": dataset, "dev": dataset}), "y")


@pytest.mark.parametrize("column", ["split", "part"])
def test_a_column_can_name_the_parts(column):
    values = ["train", "dev", "Test", "train", "valid"]
    dataset = Dataset.from_dict({"y": ["a"] * 5, "row": list(range(5)), column: values})
    splits = split_dataset(DatasetDict({"train": dataset}), "y", split_column=None if column == "split" else column)
    assert rows_of(splits) == {"train": [0, 3], "validation": [1, 4], "test": [2]}
    labeled = dataset.cast_column(column, Value("string")).class_encode_column(column)
    assert rows_of(split_dataset(labeled, "y", split_column=column)) == rows_of(splits)
    with pytest.raises(ValueError, match="holds fold3"):
        split_dataset(Dataset.from_dict({"y": ["a"], column: ["fold3"]}), "y", split_column=column)


def test_a_named_column_goes_before_the_parts_that_the_recordings_came_in():
    dataset = Dataset.from_dict({"y": ["a"] * 4, "row": list(range(4)), "part": ["train", "dev", "train", "test"]})
    folders = DatasetDict({"train": dataset.select([0, 1]), "test": dataset.select([2, 3])})
    expected = {"train": [0, 2], "validation": [1], "test": [3]}
    assert rows_of(split_dataset(folders, "y", split_column="part")) == expected


def test_the_usual_names_of_parts_are_known():
    names = {"train": "train", "Training": "train", "valid": "validation", "val": "validation", "eval": "validation"}
    names |= {"dev-clean": "validation", "test_other": "test", "train.100": "train", "trainer": None, "word": None}
    assert {name: split_of(name) for name in names} == names
