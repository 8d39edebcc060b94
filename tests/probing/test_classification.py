"""What is left of a frozen fit: a classifier whose probabilities can be believed, and its test."""

import numpy as np
from scipy.special import softmax

from mbt_speech.probing.classification import fit_frozen
from mbt_speech.probing.examples import Examples


def test_the_probabilities_of_a_frozen_classifier_are_about_as_high_as_its_accuracy():
    generator = np.random.default_rng(0)
    labels = np.arange(600) % 4
    features = generator.normal(size=(4, 60))[labels] / 2 + generator.normal(size=(600, 60)) * np.geomspace(
        0.01, 2, 60
    )
    rows = {"train": np.arange(200), "validation": np.arange(200, 400), "test": np.arange(400, 600)}
    examples = Examples(features, labels, np.arange(600), rows)
    classifier = fit_frozen(examples, rows, 4)
    confidence = softmax(classifier.fitted.logits(features[rows["test"]]), axis=1).max(axis=1).mean()
    assert 0.3 < classifier.accuracy <= 1
    assert abs(confidence - classifier.accuracy) < 0.15


def test_a_frozen_classifier_is_scored_on_the_test_split():
    labels = np.arange(60) % 2
    features = np.where(labels, 1.0, -1.0)[:, None] + 0.1 * np.random.default_rng(0).normal(size=(60, 3))
    features[40:50] *= -1  # of the test clips, a half is another way round
    rows = {"train": np.arange(20), "validation": np.arange(20, 40), "test": np.arange(40, 60)}
    classifier = fit_frozen(Examples(features, labels, np.arange(60), rows), rows, 2)
    assert (classifier.validation_accuracy, classifier.accuracy, classifier.num_test) == (1.0, 0.5, 20)
