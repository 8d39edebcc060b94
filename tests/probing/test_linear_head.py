"""Logistic regression on frozen representations."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from mbt_speech.probing.linear_head import fit_linear_head


@pytest.mark.parametrize("num_classes", [2, 4])
def test_the_head_is_the_logistic_regression_that_validation_prefers(num_classes):
    generator = np.random.default_rng(0)
    labels = np.arange(240) % num_classes
    features = 5 + generator.normal(size=(num_classes, 10))[labels] + 2 * generator.standard_normal((240, 10))
    train, validation, test = slice(0, 80), slice(80, 160), slice(160, 240)
    head = fit_linear_head(features[train], labels[train], features[validation], labels[validation], num_classes)
    mean, scale = features[train].mean(0), features[train].std(0)
    reference = LogisticRegression(C=head.inverse_strength, max_iter=5000, tol=1e-8)
    reference.fit((features[train] - mean) / scale, labels[train])
    expected = reference.predict((features[test] - mean) / scale)
    assert (head.predict(features[test]) == expected).mean() > 0.97
    best = (head.predict(features[validation]) == labels[validation]).mean()
    for strength in (0.001, 0.01, 0.1):
        other = LogisticRegression(C=strength, max_iter=5000).fit((features[train] - mean) / scale, labels[train])
        assert best >= other.score((features[validation] - mean) / scale, labels[validation]) - 0.03


def test_a_class_without_a_training_clip_is_never_predicted():
    features, labels = np.random.default_rng(0).normal(size=(40, 3)), np.arange(40) % 2 * 2
    head = fit_linear_head(features, labels, features, labels, 3)
    assert set(head.predict(100 * features)) == {0, 2}
    with pytest.raises(ValueError, match="two classes"):
        fit_linear_head(features, 0 * labels, features, labels, 3)
