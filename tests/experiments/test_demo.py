"""The demo's table and pictures."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mbt_speech.experiments.demo import METHOD_NAMES, to_markdown
from mbt_speech.reports.accuracy_pictures import draw_accuracies
from mbt_speech.reports.pictures import draw_cross_correlations, draw_losses


@pytest.fixture
def table():
    rows = [
        {"task": task, "method": method, "accuracy": 0.5 + 0.1 * seed, "chance": 0.25, "seed": seed}
        for task in ("speaker", "gender", "keyword")
        for method in METHOD_NAMES.values()
        for seed in (0, 1, 2)
    ]
    table = pd.DataFrame(rows)
    table["method"] = pd.Categorical(table["method"], list(METHOD_NAMES.values()), ordered=True)
    return table


def test_the_table_gives_mean_and_spread_of_every_method_and_task(table):
    lines = to_markdown(table).splitlines()
    assert lines[2] == "| chance | 25.0 | 25.0 | 25.0 |"
    assert lines[3:] == [f"| {name} | " + " | ".join(["60.0 ± 10.0"] * 3) + " |" for name in METHOD_NAMES.values()]


@pytest.mark.slow
def test_pictures_are_drawn_from_what_was_measured(table, tmp_path):
    log = [
        {"step": step, "loss": 10 / step, "invariance_loss": 8 / step, "redundancy_loss": 9.0} for step in (1, 2, 3)
    ]
    draw_losses(tmp_path / "a.png", {"BT": log, "MBT": log}, "title")
    draw_cross_correlations(tmp_path / "b.png", {"before": np.eye(5), "after": np.eye(5), "third": np.eye(5)}, "title")
    draw_accuracies(tmp_path / "c.png", table, "title")
    for name in "abc":
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert min(picture.size) > 200
            assert len(set(np.asarray(picture.convert("L")).ravel())) > 10
