"""Means, intervals and paired differences over seeds, and the metrics that they are of."""

import numpy as np
import pytest
from PIL import Image
from scipy import stats
from sklearn import metrics

from mbt_speech.probing.classification import score
from mbt_speech.reports.label_curves import (
    describe_difference,
    estimate,
    label_curves,
    paired_difference,
    short_names,
    write_sweep,
)


def results(gain, noise=0.0, seeds=5):
    generator = np.random.default_rng(0)
    rows = []
    for fraction in (0.05, 1.0):
        for seed in range(seeds):
            base = 0.4 + 0.3 * fraction + 0.05 * generator.standard_normal()
            for method, extra in (("bt", 0.0), ("mbt", gain + noise * generator.standard_normal()), ("stats", -0.1)):
                rows.append({"task": "speaker", "method": method, "encoder": "frozen", "label_fraction": fraction,
                             "seed": seed, "num_train": int(200 * fraction), "num_test": 50, "chance": 0.1,
                             "unit": "clips", "accuracy": base + extra})  # fmt: skip
    return rows


def test_the_interval_is_students_and_one_seed_has_none():
    values = np.array([0.4, 0.5, 0.7, 0.6])
    found = estimate(values)
    low, high = stats.ttest_1samp(values, 0.5).confidence_interval(0.95)
    assert (found.mean - found.half_width, found.mean + found.half_width) == pytest.approx((low, high))
    assert str(estimate(np.array([0.5]))) == "50.0"
    assert np.isnan(estimate(np.array([0.5])).half_width)


def test_a_difference_is_paired_so_that_what_seeds_share_drops_out():
    table = results(gain=0.02, noise=1e-6)
    table = [row for row in table if row["label_fraction"] == 0.05]
    difference = paired_difference(table, "bt", "mbt")
    assert difference.mean == pytest.approx(0.02, abs=1e-5)
    assert difference.half_width < 1e-5
    unpaired = estimate(np.array([row["accuracy"] for row in table if row["method"] == "mbt"]))
    assert unpaired.half_width > 0.02
    assert paired_difference(table[::-1], "bt", "mbt") == pytest.approx(difference)
    with pytest.raises(ValueError, match="no seed in common"):
        paired_difference([row for row in table if row["method"] == "bt"], "bt", "mbt")


def test_an_interval_that_holds_zero_shows_no_difference():
    assert "no difference shown" in describe_difference(estimate(np.array([-0.1, 0.1, 0.05])), "bt", "mbt")
    assert "mbt is better" in describe_difference(estimate(np.array([0.10, 0.11, 0.12])), "bt", "mbt")
    assert "bt is better" in describe_difference(estimate(-np.array([0.10, 0.11, 0.12])), "bt", "mbt")
    always_one_of_ten = [0.8 - 0.7, 0.9 - 0.8, 0.7 - 0.6]  # which differ in their last digits
    for values in ([0.1], [0.1, 0.1, 0.1], always_one_of_ten, [0.1, 0.12]):  # one seed, no differences, too few
        assert "nothing is shown" in describe_difference(estimate(np.array(values)), "bt", "mbt")


def test_models_are_named_by_as_many_folders_as_tell_them_apart():
    assert list(short_names(["runs/bt", "me/mbt", "random"]).values()) == ["bt", "mbt", "random"]
    assert list(short_names(["/a/bt/best", "/a/mbt/best"]).values()) == ["bt/best", "mbt/best"]
    assert short_names([]) == {}


def test_the_report_holds_the_table_the_differences_and_a_picture(tmp_path):
    table = results(gain=0.05, noise=0.001)
    text = write_sweep(table, ["bt", "mbt"], tmp_path, "synthetic speech")
    curves = label_curves(table)
    few, all_labels = (point.estimate for point in curves if point.method == "mbt")
    assert f"| mbt | frozen | {few} | {all_labels} |" in text
    assert text.count("mbt is better") == 2
    assert "on 50 test clips" in text
    assert "most frequent class scores 10.0. " in text
    assert (tmp_path / "results.md").read_text() == text
    other = [{**line, "num_test": 20, "chance": 0.2} for line in table if line["method"] == "stats"]
    mixed = write_sweep([*table, *other], ["bt", "mbt"], tmp_path, "synthetic speech")
    assert "on 20 to 50 test clips" in mixed
    assert "scores 10.0 to 20.0. " in mixed
    with Image.open(tmp_path / "label_fractions.png") as picture:
        assert picture.width > 600


def test_classification_metrics_are_scikit_learns_without_a_class_too():
    generator = np.random.default_rng(0)
    references, predictions = generator.integers(0, 4, 60), generator.integers(0, 5, 60)
    found = score(predictions, references)
    assert found["accuracy"] == metrics.accuracy_score(references, predictions)
    assert found["macro_f1"] == pytest.approx(metrics.f1_score(references, predictions, average="macro"))
    recalls = [np.mean(predictions[references == label] == label) for label in range(4)]
    assert found["balanced_accuracy"] == pytest.approx(np.mean(recalls))
