"""The whole network from the head of the frozen one, and the weights between the two."""

import copy

import pytest
import torch

from mbt_speech.training.head_first import ALPHAS, WeightPath
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
    ],
)
def test_the_probe_is_left_for_weights_that_are_clearly_better(path, accuracies, num_clips, chosen):
    line, start, end = path
    measured = iter(accuracies)
    assert line.choose(lambda: next(measured), num_clips) == (chosen, accuracies[ALPHAS.index(chosen)])
    assert len(accuracies) == len(ALPHAS)
    first, last = start.classifier.weight, end.classifier.weight
    torch.testing.assert_close(line.model.classifier.weight, torch.lerp(first, last, chosen))
