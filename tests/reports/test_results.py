"""Which result of a sweep is the best one."""

import json

import pytest

from mbt_speech.reports.results import validation_rank


@pytest.mark.parametrize(
    ("accuracies", "best"),
    [([0.2, 0.5, 0.4], 1), ([None, 0.0], 1), ([None, None], 0), ([0.3, None], 0)],
)
def test_a_result_that_was_not_validated_is_the_best_only_where_no_other_was(accuracies, best):
    lines = json.loads(json.dumps([{"validation_accuracy": accuracy} for accuracy in accuracies]))
    assert max(lines, key=validation_rank) is lines[best]
