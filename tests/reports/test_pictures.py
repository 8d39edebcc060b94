"""What pictures say: legends, titles, ticks."""

import numpy as np
import pandas as pd
import pytest

from mbt_speech.reports import accuracy_pictures, pictures
from mbt_speech.reports.ablation_table import ablation_text
from mbt_speech.reports.style import plt


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are drawn, in place of files."""
    figures = []
    for module in (pictures, accuracy_pictures):
        monkeypatch.setattr(module, "save", lambda figure, path: figures.append(figure))
    yield figures
    plt.close("all")


def legend(axis):
    return [text.get_text() for text in axis.get_legend().get_texts()]


def log(floor, losses=(500.0, 50.0)):
    return [
        {"step": step, "loss": loss, "invariance_loss": 2.0, "redundancy_loss": 9.0, "loss_floor": floor}
        for step, loss in enumerate(losses, 1)
    ]


def test_the_floor_of_the_loss_is_drawn_and_labeled_once_where_runs_share_it(drawn, tmp_path):
    pictures.draw_losses(tmp_path, {"BT": log(35.0), "MBT": log(35.0)}, "title")
    pictures.draw_losses(tmp_path, {"BT": log(35.0), "MBT": log(12.0)}, "title")
    pictures.draw_losses(tmp_path, {"BT": log(0.0)}, "title")
    assert legend(drawn[0].axes[0]) == ["BT", "MBT", "floor for this batch: 35"]
    assert legend(drawn[1].axes[0]) == ["BT", "MBT", "floor of BT: 35", "floor of MBT: 12"]
    assert legend(drawn[2].axes[0]) == ["BT"]
    assert list(drawn[0].axes[0].lines[-1].get_ydata()) == [35.0, 35.0]


def test_a_logarithmic_loss_has_ticks_in_plain_numbers(drawn, tmp_path):
    pictures.draw_losses(tmp_path, {"BT": log(35.0)}, "title")
    drawn[0].draw_without_rendering()
    loss, invariance = drawn[0].axes[:2]
    assert (loss.get_yscale(), invariance.get_yscale()) == ("log", "linear")
    assert {"50", "100", "200", "500"} <= {label.get_text() for label in loss.get_yticklabels()}


@pytest.mark.parametrize(("before", "after", "verb"), [(0.1, 0.2, "rose from"), (0.2, 0.1, "fell from")])
def test_the_title_tells_whether_the_off_diagonal_rose_or_fell(before, after, verb, drawn, tmp_path):
    matrices = {
        f"BT {moment} pre-training": np.where(np.eye(4, dtype=bool), 0.5, value)
        for moment, value in (("before", before), ("after", after))
    }
    pictures.draw_cross_correlations(tmp_path, matrices, "title")
    assert (
        f"BT: diagonal stayed, 0.50 to 0.50, off-diagonal {verb} {before:.3f} to {after:.3f}"
        in drawn[0].get_suptitle()
    )
    title = drawn[0].axes[0].get_title()
    assert title == f"BT before pre-training\nmean of the diagonal 0.50\noff-diagonal rms {before:.3f}"


def test_bars_stand_by_kind_and_the_legend_names_the_kinds(drawn, tmp_path):
    methods = [
        "supervised from scratch",
        "MBT, fine-tuned",
        "BT, frozen",
        "log-mel statistics",
        "random encoder, frozen",
    ]
    rows = [{"task": "x", "method": method, "accuracy": 0.5, "chance": 0.2} for method in methods]
    accuracy_pictures.draw_accuracies(tmp_path, pd.DataFrame(rows), "title")
    entries = ["controls", "log-mel statistics", "random encoder, frozen", "frozen, linear head", "BT, frozen",
               "fine-tuned", "MBT, fine-tuned", "supervised", "supervised from scratch"]  # fmt: skip
    axis = drawn[0].axes[0]
    assert legend(axis) == [*entries, "most frequent class"]
    left = {bars.get_label(): bars.patches[0].get_x() for bars in axis.containers if hasattr(bars, "patches")}
    assert sorted(left, key=left.__getitem__) == [entry for entry in entries if entry in methods]


def test_an_ablation_says_which_rows_are_baselines(drawn, tmp_path):
    rows = [
        {"task": "x", "curve": curve, "position": position, "accuracy": 0.5, "chance": 0.2, "label_fraction": 1.0,
         "cell": curve, "pretraining_seed": None}
        for curve, position in (("stats", None), ("pre-trained", 0.2), ("pre-trained", 1.0))
    ]  # fmt: skip
    text = ablation_text({"title": "t", "data": "d", "axis": "model.density", "results": rows})
    assert "Baselines, dashed in the picture and the same for every density: stats." in text
    table = pd.DataFrame(rows)
    table["position"] = ["" if pd.isna(value) else value for value in table["position"]]
    accuracy_pictures.draw_curves(tmp_path, table, "density", "t")
    assert "dashed: baselines, the same for every density" in drawn[0].get_suptitle()
    assert sorted(legend(drawn[0].axes[0])) == ["baseline: stats", "most frequent class", "pre-trained"]


def test_a_map_shows_the_twelve_most_frequent_classes_each_by_its_own_mark(drawn, tmp_path):
    labels = np.repeat(np.arange(14), [*[6] * 12, 3, 3])
    features = {"a": np.random.default_rng(0).standard_normal((len(labels), 4))}
    pictures.draw_embedding_maps(tmp_path, features, labels, [f"s{k}" for k in range(14)], "title")
    axis = drawn[0].axes[0]
    assert sorted(legend(axis)) == sorted(f"s{k}" for k in range(12))
    marks = {(tuple(one.get_facecolor()[0]), len(one.get_paths()[0].vertices)) for one in axis.collections}
    assert len(marks) == 12
    assert "the 12 most frequent of 14" in drawn[0].get_suptitle()


@pytest.mark.parametrize("count", [1, 2, 30])
def test_representations_that_are_all_alike_or_few_are_drawn_at_one_point(count, drawn, tmp_path):
    pictures.draw_embedding_maps(tmp_path, {"a": np.ones((count, 4))}, np.zeros(count, int), ["s"], "title")
    (points,) = drawn[0].axes[0].collections
    assert points.get_offsets().tolist() == [[0.0, 0.0]] * count
