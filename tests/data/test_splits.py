"""Labels as class numbers, and splits as they are given or drawn."""

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from mbt_speech.data.splits import are_split_by_column, encode_labels, leave_out_unknown_splits, split_of, split_rows

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


def lists(rows: dict[str, np.ndarray]) -> dict[str, list[int]]:
    return {split: own.tolist() for split, own in rows.items()}


def whole(**columns) -> DatasetDict:
    """A data set that comes as one split."""
    return DatasetDict({"data": Dataset.from_dict(columns)})


def test_parts_are_drawn_with_every_class_in_each():
    labels = np.array(["a"] * 50 + ["b"] * 20 + ["c"] * 3)
    rows = split_rows(whole(y=labels.tolist()), "y", by_column=True, seed=1)
    assert list(rows) == ["train", "validation", "test"]
    assert sorted(np.concatenate(list(rows.values())).tolist()) == list(range(73))
    counts = {split: [labels[own].tolist().count(label) for label in "abc"] for split, own in rows.items()}
    assert counts == {"train": [41, 16, 1], "validation": [4, 2, 1], "test": [5, 2, 1]}
    assert lists(split_rows(whole(y=labels.tolist()), "y", by_column=True, seed=1)) == lists(rows)
    assert lists(split_rows(whole(y=labels.tolist()), "y", by_column=True, seed=2)) != lists(rows)


def test_a_class_too_small_for_every_part_is_named():
    with pytest.raises(ValueError, match="class 'b' of 'y'"):
        split_rows(whole(y=["a"] * 9 + ["b"] * 2), "y", by_column=True)


def test_parts_that_exist_are_kept_and_the_missing_one_is_drawn():
    dataset = Dataset.from_dict({"y": ["a", "b"] * 10})
    rows = lists(split_rows(DatasetDict({"eval": dataset.select([0]), "train": dataset}), "y", by_column=False))
    assert rows["validation"] == [0]
    assert sorted(rows["train"] + rows["test"]) == list(range(1, 21))


def test_a_part_of_another_name_is_left_out_with_a_warning(caplog):
    dataset = Dataset.from_dict({"y": ["a", "b"]})
    used = leave_out_unknown_splits(DatasetDict({"extra": dataset, "train": dataset}))
    assert list(used) == ["train"]
    assert "'extra' (2 recordings) is not used" in caplog.text
    with pytest.raises(ValueError, match="no training split among test, dev"):
        leave_out_unknown_splits(DatasetDict({"test": dataset, "dev": dataset}))


def test_splits_of_known_names_go_before_a_column_that_nobody_named():
    dataset = Dataset.from_dict({"y": ["a", "b"] * 10, "split": ["fold"] * 20})
    folders = DatasetDict({"extra": dataset, "train": dataset})
    assert not are_split_by_column(folders, None)
    rows = lists(split_rows(leave_out_unknown_splits(folders), "y", by_column=False))
    assert sorted(rows["train"] + rows["validation"] + rows["test"]) == list(range(20))


@pytest.mark.parametrize("column", ["split", "part"])
def test_a_column_can_name_the_parts(column):
    values = ["train", "dev", "Test", "train", "valid"]
    dataset = Dataset.from_dict({"y": ["a"] * 5, column: values})
    split_column = None if column == "split" else column
    expected = {"train": [0, 3], "validation": [1, 4], "test": [2]}
    assert (
        lists(split_rows(DatasetDict({"train": dataset}), "y", by_column=True, split_column=split_column)) == expected
    )
    labeled = dataset.cast_column(column, Value("string")).class_encode_column(column)
    assert (
        lists(split_rows(DatasetDict({"train": labeled}), "y", by_column=True, split_column=split_column)) == expected
    )
    with pytest.raises(ValueError, match="holds fold3"):
        split_rows(whole(y=["a"], **{column: ["fold3"]}), "y", by_column=True, split_column=split_column)


def test_a_named_column_goes_before_the_parts_that_the_recordings_came_in():
    dataset = Dataset.from_dict({"y": ["a"] * 4, "part": ["train", "dev", "train", "test"]})
    folders = DatasetDict({"extra": dataset.select([0, 1]), "test": dataset.select([2, 3])})
    assert are_split_by_column(folders, "part")
    expected = {"train": [0, 2], "validation": [1], "test": [3]}
    assert lists(split_rows(folders, "y", by_column=True, split_column="part")) == expected


def test_the_usual_names_of_parts_are_known():
    names = {"train": "train", "Training": "train", "valid": "validation", "val": "validation", "eval": "validation"}
    names |= {"dev-clean": "validation", "test_other": "test", "train.100": "train", "trainer": None, "word": None}
    assert {name: split_of(name) for name in names} == names


@pytest.mark.parametrize("missing", [None, -1])
def test_a_row_without_a_split_is_refused(missing):
    features = Features({"split": ClassLabel(names=["train", "test"])})
    dataset = Dataset.from_dict({"split": [0, 1, missing]}, features=features)
    with pytest.raises(ValueError, match="'split' holds None: write train, validation or test"):
        split_rows(DatasetDict({"train": dataset}), None, by_column=True)
