"""The whole network from the head of the frozen one, and the weights between the two."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mbt_speech.training.head_first import ALPHAS, WeightPath, train_from_scratch
from modeling_mbt import MBTConfig, MBTForSequenceClassification
from tests.support.models import TINY, stir


@pytest.fixture
def path():
    """A line from one network to another, and copies of both."""
    model = stir(MBTForSequenceClassification(MBTConfig(**TINY)))
    start, path = copy.deepcopy(model), WeightPath(model)
    with torch.no_grad():
        for value in model.state_dict().values():
            value.add_(1)
    path.end_here()
    return path, start, copy.deepcopy(model)


def test_both_ends_of_the_line_are_the_networks_and_its_middle_their_mean(path):
    line, start, end = path
    for alpha, share in ((0.0, 0.0), (1.0, 1.0), (0.25, 0.25)):
        line.go_to(alpha)
        for name, value in line.model.state_dict().items():
            if value.is_floating_point():
                first, last = start.state_dict()[name], end.state_dict()[name]
                torch.testing.assert_close(value, first + share * (last - first))


@pytest.mark.parametrize(
    ("accuracies", "num_clips", "chosen"),
    [
        ([0.5, 0.5, 0.5, 0.5, 0.5], 100, 0.0),
        ([0.5, 0.4, 0.6, 0.6, 0.3], 100, 0.5),
        ([0.5, 0.4, 0.6, 0.6, 0.3], 20, 0.0),  # a standard error is 0.11
        ([0.1, 0.2, 0.3, 0.4, 0.5], 100, 1.0),
        ([0.5, 0.58, 0.6, 0.6, 0.3], 100, 0.25),
    ],
)
def test_the_probe_is_left_for_weights_that_are_clearly_better(path, accuracies, num_clips, chosen):
    line, start, end = path
    measured = iter(accuracies)
    assert line.choose(lambda: next(measured), num_clips) == (chosen, accuracies[ALPHAS.index(chosen)])
    assert len(accuracies) == len(ALPHAS)
    first, last = start.classifier.weight, end.classifier.weight
    torch.testing.assert_close(line.model.classifier.weight, torch.lerp(first, last, chosen))


@pytest.mark.parametrize(
    ("rates", "trained", "chosen", "accuracy"),
    [([0.1], [(0.1, 3)], 0.1, None), ([0.1, 0.2], [(0.1, 2), (0.2, 2), (0.2, 3)], 0.2, 0.2)],
)
def test_one_learning_rate_from_scratch_trains_once_and_more_are_compared(tmp_path, rates, trained, chosen, accuracy):
    runs = []

    def start(rate, rows):
        def run(*_):
            runs.append((rate, len(rows)))

        return SimpleNamespace(
            run=run,
            accuracy_on=lambda _: rate,
            accelerator=SimpleNamespace(free_memory=lambda: None),
            classifier=lambda accuracy, num_train, minutes: (rate, accuracy, num_train),
        )

    rows = {"train": np.array([0, 1]), "validation": np.array([2])}
    assert train_from_scratch(start, rates, rows, tmp_path, "") == (chosen, accuracy, 2)
    assert runs == trained
