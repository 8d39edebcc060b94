"""Logistic regression on frozen representations."""

import numpy as np
import pytest
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression
from sklearn.metrics.pairwise import cosine_similarity

from mbt_speech.probing import linear_head
from mbt_speech.probing.linear_head import CENTROIDS, NUM_FOLDS, fit_linear_head, split_folds


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


def few_clips(num_features: int = 200):
    """Features (24, num_features) and labels (24,) of 6 classes."""
    generator = np.random.default_rng(1)
    labels = np.repeat(np.arange(6), 4)
    return generator.normal(size=(6, num_features))[labels] + 2 * generator.standard_normal((24, num_features)), labels


def test_few_clips_are_cross_validated_and_all_of_them_learned_from():
    features, labels = few_clips()
    train = np.tile([True, True, True, False], 6)
    head = fit_linear_head(features[train], labels[train], features[~train], labels[~train], 6)
    order = np.concatenate([np.flatnonzero(train), np.flatnonzero(~train)])
    scaled = (features[order] - features.mean(0)) / features.std(0)
    reference = LogisticRegression(C=head.inverse_strength, max_iter=5000, tol=1e-10).fit(scaled, labels[order])
    new = np.random.default_rng(2).normal(size=(50, features.shape[1]))
    expected = reference.predict_log_proba((new - features.mean(0)) / features.std(0))
    found = log_softmax(head.logits(new), axis=1)
    assert (found.argmax(1) == expected.argmax(1)).mean() > 0.85
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.99
    assert 1 / 6 < head.validation_accuracy <= 1
    assert (head.predict(features) == labels).mean() >= head.validation_accuracy


def test_the_only_clip_of_a_class_is_always_learned_from_and_others_are_in_one_fold_each():
    labels = np.array([0, 1, 1, 2, 2, 2, 2, 2, 2, 2])
    folds = split_folds(labels, seed=3)
    assert folds[0] == -1
    assert folds[1:].min() >= 0
    assert folds[1] != folds[2]
    assert sorted(np.bincount(folds[3:], minlength=NUM_FOLDS)) == [1, 1, 1, 2, 2]
    assert np.array_equal(folds, split_folds(labels, seed=3))
    assert not np.array_equal(folds, split_folds(labels, seed=4))


def test_nearest_centroids_have_the_angle_to_the_mean_of_each_class(monkeypatch):
    features, labels = few_clips(num_features=10)
    monkeypatch.setattr(linear_head, "_choose", lambda logits, labels: (max(set(logits) & {CENTROIDS}), 1.0))
    head = fit_linear_head(features, labels, features[:0], labels[:0], 6)
    assert head.inverse_strength == CENTROIDS
    scaled = (features - features.mean(0)) / features.std(0)
    scaled /= np.linalg.norm(scaled, axis=1, keepdims=True)
    centroids = np.stack([scaled[labels == label].mean(0) for label in range(6)])
    new = np.random.default_rng(2).normal(size=(50, 10))
    cosines = cosine_similarity((new - features.mean(0)) / features.std(0), centroids)
    assert np.array_equal(head.predict(new), cosines.argmax(1))


def test_of_equally_accurate_heads_the_likelier_is_chosen():
    labels = np.array([0, 1, 1])
    sure, wrong = np.array([[2, 0], [0, 2], [0, 2]]), np.array([[0, 9]] * 3)
    chosen, accuracy = linear_head._choose({0.01: sure / 2, 1.0: sure, 10.0: wrong}, labels)
    assert (chosen, accuracy) == (1.0, 1.0)


def test_one_clip_of_every_class_in_either_part_is_enough():
    labels = np.arange(12)
    train = np.eye(12) + 0.01 * np.random.default_rng(0).normal(size=(12, 12))
    head = fit_linear_head(train, labels, np.eye(12), labels, 12)
    assert np.array_equal(head.predict(np.eye(12)), labels)
    assert head.validation_accuracy == 1
    assert np.array_equal(head.scaled().predict(train), labels)
