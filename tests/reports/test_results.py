"""Which result of a sweep is the best one."""

import json
from types import SimpleNamespace

import pytest

from mbt_speech.arguments import FinetuneArguments
from mbt_speech.reports import results
from mbt_speech.reports.results import Results, SweepRun, validation_rank


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


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """Calls with one method after the other, each with its digest; every result that is left to compute is written."""
    monkeypatch.setattr(results, "_settings", lambda args, speech: "the same")
    saved = []

    def call(accuracies, **digests):
        args = FinetuneArguments(model_name_or_path=["x"], train_dir="x", output_dir=str(tmp_path))
        runs = [SweepRun(method.replace("_", "/"), 1.0, 0, digest) for method, digest in digests.items()]
        found = Results(args, SimpleNamespace(unit="clips"), runs)
        found.begin()
        for run, accuracy in zip(runs, accuracies, strict=True):
            if run not in found:
                line = {"run": run.name, "settings": "the same", "method": run.method, "label_fraction": 1.0,
                        "model_type": "mbt", "encoder": "frozen", "validation_accuracy": accuracy}  # fmt: skip
                if found.is_best(line):
                    saved.append(run)
                found.add(line)
        return found

    return call, saved


def test_results_of_a_model_that_was_trained_anew_do_not_count_any_more(sweep):
    call, saved = sweep
    call([0.6, 0.5], a_m="old", b_n="one")
    found = call([0.4, 0.3], a_m="new", b_n="one")  # the model at the top was of a/m: all are to be fitted again
    assert [(run.method, run.digest) for run in saved] == [("a/m", "old"), ("a/m", "new")]
    assert [line["validation_accuracy"] for line in found.lines] == [0.4, 0.3]
    found = call([0.4, 0.35], a_m="new", b_n="two")  # it is of a/m still
    assert [line["validation_accuracy"] for line in found.lines] == [0.4, 0.35]
    assert [(run.method, run.digest) for run in saved[2:]] == []
    assert call([0.4, 0.35], a_m="new", b_n="two").lines == found.lines


def test_a_model_whose_folder_is_written_in_another_way_is_the_same(sweep, tmp_path):
    call, saved = sweep
    call([0.6], a_m="one")
    (line,) = call([0.1], **{"a_._m": "one"}).lines
    assert (line["method"], line["validation_accuracy"]) == ("a/./m", 0.6)
    assert len(saved) == 1
