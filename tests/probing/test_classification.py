"""What is left of a frozen fit: a classifier whose probabilities can be believed."""

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
