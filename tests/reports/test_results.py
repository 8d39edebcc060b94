"""Which result of a sweep is the best one."""

import json

import pytest

from mbt_speech.reports.results import validation_rank


@pytest.mark.parametrize(
    ("accuracies", "best"),
    [([0.2, 0.5, 0.4], 1), ([None, 0.0], 1), ([None, None], 0), ([0.3, None], 0)],
)
def test_a_result_that_was_not_validated_is_the_best_only_where_no_other_was(accuracies, best):
    lines = [{"validation_accuracy": accuracy, "label_fraction": 1.0} for accuracy in accuracies]
    lines = json.loads(json.dumps(lines))
    assert max(lines, key=validation_rank) is lines[best]


def test_a_result_with_more_labels_is_better_whatever_validation_says():
    few, many = ({"validation_accuracy": 1 - share, "label_fraction": share} for share in (0.05, 0.5))
    assert max([few, many], key=validation_rank) is many
