"""The whole network from the head of the frozen one, and the weights between the two."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mbt_speech.probing.linear_fits import DISCRIMINANTS
from mbt_speech.probing.linear_head import fit_kind, fit_linear_head
from mbt_speech.training.head_first import (
    ALPHAS,
    WeightPath,
    fine_tune_head_first,
    is_clearly_better,
    preferred_alpha,
    train_from_scratch,
)
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
    ("preferred", "correct", "chosen"),
    [
        (0.0, [[0, 1]] * 5, 0.0),
        # Of 26 words that no alpha knows, one or two by chance, and none is lost: nothing is shown.
        (0.0, [[0], [], [0, 1], [0, 1, 2], [0]], 0.0),
        (0.0, [[0], [], [0], [0, 1, 2, 3], [0]], 0.75),
        # Of equally good ones, and of those that the best hardly beats, the nearest to the preferred one.
        (0.0, [[], [0, 1, 2], [0, 1, 2, 3], [0, 1, 2, 3], []], 0.25),
        # As many more, but where others are lost they say less.
        (0.0, [[0, 1, 2], [], [], [], [3, 4, 5, 6, 7, 8]], 0.0),
        (0.0, [[], [0], [0, 1, 2], range(8), range(20)], 1.0),
        # Two clips show nothing, and the probe comes before weights that are as near to the preferred ones.
        (0.25, [[0, 1]] * 5, 0.25),
        (0.25, [[0, 1], [], [], [], [0, 1]], 0.25),
        (0.25, [[0, 1, 2], [], [], [], []], 0.0),
        (0.25, [[0, 1, 2], [], [0, 1, 2], [], [0]], 0.0),
        (0.25, [[], [0], [0, 1, 2, 3], [0, 1, 2, 3], []], 0.5),
    ],
)
def test_preferred_weights_are_kept_unless_others_are_clearly_better(path, preferred, correct, chosen):
    line, start, end = path
    found = [np.isin(np.arange(26), list(clips)) for clips in correct]
    assert len(found) == len(ALPHAS)
    assert line.choose(results(found), preferred) == (chosen, found[ALPHAS.index(chosen)].mean())
    first, last = start.classifier.weight, end.classifier.weight
    torch.testing.assert_close(line.model.classifier.weight, torch.lerp(first, last, chosen))


def results(found):
    """What classifies the clips of one alpha after the other: correctly or not."""
    following = iter([np.stack([one, ~one], axis=1).astype(float) for one in found])
    return lambda: (next(following), np.zeros(len(found[0]), dtype=int))


@pytest.mark.parametrize(("num_clips", "num_classes", "alpha"), [(15, 2, 0.0), (16, 2, 0.25), (28, 15, 0.0)])
def test_a_quarter_is_preferred_where_classes_have_eight_clips(num_clips, num_classes, alpha):
    assert preferred_alpha(num_clips, num_classes) == alpha


@pytest.mark.parametrize(
    ("rates", "trained", "chosen", "accuracy"),
    [([0.1], [(0.1, 3)], 0.1, None), ([0.1, 0.2], [(0.1, 2), (0.2, 2), (0.2, 3)], 0.2, 0.2)],
)
def test_one_learning_rate_from_scratch_trains_once_and_more_are_compared(tmp_path, rates, trained, chosen, accuracy):
    runs, uploaded = [], []

    def start(rate, rows):
        def run(folder, description, uploads=None):
            runs.append((rate, len(rows)))
            uploaded.append(uploads)

        return SimpleNamespace(
            run=run,
            accuracy_on=lambda _: rate,
            accelerator=SimpleNamespace(free_memory=lambda: None),
            classifier=lambda accuracy, num_train, minutes: (rate, accuracy, num_train),
        )

    rows = {"train": np.array([0, 1]), "validation": np.array([2])}
    assert train_from_scratch(start, rates, rows, tmp_path, "", "uploads") == (chosen, accuracy, 2)
    assert runs == trained
    assert uploaded == [None] * (len(runs) - 1) + ["uploads"]  # only of the network that is kept


@pytest.mark.parametrize(
    ("gained", "lost", "is_better"),
    [(2, 0, False), (3, 0, True), (4, 1, False), (5, 1, False), (6, 1, True), (0, 9, False)],
)
def test_few_clips_show_that_a_classifier_is_better_only_if_it_hardly_loses_any(gained, lost, is_better):
    only_first, only_second = [True] * gained + [False] * lost, [False] * gained + [True] * lost
    both = [True, False] * 20
    assert is_clearly_better(np.array(only_first + both), np.array(only_second + both)) == is_better


@pytest.mark.parametrize(("learns", "alpha"), [(True, 0.25), (False, 0.0)])
def test_the_network_trains_from_the_probe_and_again_on_all_labels_unless_the_probe_is_kept(tmp_path, learns, alpha):
    generator = np.random.default_rng(0)
    labels = np.arange(60) % 3  # of which a fourth class has no clip
    features = generator.normal(size=(3, 20))[labels] + 2 * generator.standard_normal((60, 20))
    examples = SimpleNamespace(features=features, labels=labels)
    rows, runs = {"train": np.arange(30), "validation": np.arange(30, 60)}, []
    direction = torch.from_numpy(np.eye(4, 3) @ fit_kind(features, labels, 3, DISCRIMINANTS[2]).weight)

    def start(head, own):
        model = torch.nn.Linear(20, 4, dtype=torch.float64)
        with torch.no_grad():
            model.weight.copy_(torch.from_numpy(head.weight))
            model.bias.copy_(torch.from_numpy(head.bias))

        def run(folder, description, uploads=None):
            runs.append((folder, len(own), uploads))
            with torch.no_grad():
                model.weight.add_(direction if learns else -direction, alpha=20)

        return SimpleNamespace(
            model=model,
            run=run,
            logits_on=lambda of: (model(torch.from_numpy(features[of])).detach().numpy(), labels[of]),
            accelerator=SimpleNamespace(free_memory=lambda: None),
            classifier=lambda accuracy, num_train, minutes, alpha: (model, accuracy, num_train, alpha),
        )

    model, accuracy, num_train, kept = fine_tune_head_first(start, examples, rows, 4, 0, tmp_path, "", "uploads")
    assert (num_train, kept) == (30, alpha)
    again = [(tmp_path / "all_labels", 60, "uploads")] if learns else []
    assert runs == [(tmp_path, 30, None), *again]
    probe = fit_linear_head(features[:30], labels[:30], features[30:], labels[30:], 4, 0).scaled()
    moved = torch.from_numpy(probe.weight) + alpha * 20 * direction
    torch.testing.assert_close(model.weight.detach(), moved)
    assert accuracy > 0.4
