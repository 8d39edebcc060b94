"""Linear classifiers on frozen representations."""

from itertools import count

import numpy as np
import pytest
from scipy.special import log_softmax
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.metrics.pairwise import cosine_similarity

from mbt_speech.probing import linear_head
from mbt_speech.probing.linear_fits import ABSENT, CENTROIDS, DISCRIMINANTS, LOGISTICS, Coordinates, Kind, rank
from mbt_speech.probing.linear_head import NUM_FOLDS, fit_kind, fit_linear_head, split_folds


def clouds(num_clips: int, num_classes: int, num_features: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features (N, H) and labels (N,) of classes that overlap, and vary more in some directions than in others."""
    generator = np.random.default_rng(seed)
    mixing = np.random.default_rng(9).normal(size=(num_features, num_features))
    centers = np.random.default_rng(8).normal(size=(num_classes, num_features))
    labels = np.arange(num_clips) % num_classes
    return 5 + 2 * centers[labels] + generator.standard_normal((num_clips, num_features)) @ mixing, labels


@pytest.mark.parametrize("num_classes", [2, 4])
@pytest.mark.parametrize("num_features", [10, 200])
def test_a_logistic_head_is_the_logistic_regression_of_standardized_features(num_classes, num_features):
    features, labels = clouds(80, num_classes, num_features)
    new, _ = clouds(200, num_classes, num_features, seed=1)
    mean, scale = features.mean(0), features.std(0)
    reference = LogisticRegression(C=0.01, max_iter=5000, tol=1e-8).fit((features - mean) / scale, labels)
    head = fit_kind(features, labels, num_classes, Kind("logistic", 0.01))
    expected = reference.predict_log_proba((new - mean) / scale)
    np.testing.assert_allclose(log_softmax(head.logits(new), axis=1), expected, atol=0.02)


@pytest.mark.parametrize("num_features", [10, 200])
def test_a_discriminant_head_is_the_discriminant_analysis_of_standardized_features(num_features):
    features, labels = clouds(80, 4, num_features)
    new, _ = clouds(200, 4, num_features, seed=1)
    standardized = (features - features.mean(0)) / features.std(0)
    shrinkage = 0.3  # (1 - s) S + s tr(S) / H is (1 - s) times what a strength of s tr(S) / H / (1 - s) / H adds to S
    within = sum(standardized[labels == label].var(0).sum() for label in range(4)) / 4
    strength = shrinkage * within / num_features / (1 - shrinkage) / num_features
    reference = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage).fit(standardized, labels)
    head = fit_kind(features, labels, 4, Kind("discriminant", strength))
    expected = reference.predict_log_proba((new - features.mean(0)) / features.std(0))
    found = log_softmax(head.logits(new) / (1 - shrinkage), axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("num_classes", [2, 4])
def test_the_head_is_of_the_kind_that_validation_prefers_and_learns_from_all_labels(num_classes):
    features, labels = clouds(160, num_classes, 30)
    train, validation = slice(0, 80), slice(80, 160)
    head = fit_linear_head(features[train], labels[train], features[validation], labels[validation], num_classes)
    accuracies = {}
    for kind in (*DISCRIMINANTS, *LOGISTICS):
        coordinates = Coordinates(features)
        _, weight, bias = next(coordinates.fit(np.arange(80), labels[train], num_classes, [kind]))
        other = coordinates.head(kind, weight, bias)
        accuracies[kind] = (other.predict(features[validation]) == labels[validation]).mean()
    assert head.validation_accuracy == accuracies[head.kind] == max(accuracies[kind] for kind in DISCRIMINANTS)
    assert min(accuracies.values()) < max(accuracies.values())
    again = fit_kind(features, labels, num_classes, head.kind)
    np.testing.assert_allclose(head.weight, again.weight)


def test_a_class_without_a_training_clip_is_never_predicted():
    features, labels = np.random.default_rng(0).normal(size=(40, 3)), np.arange(40) % 2 * 2
    head = fit_linear_head(features, labels, features, labels, 3)
    assert set(head.predict(100 * features)) == {0, 2}
    with pytest.raises(ValueError, match="two classes"):
        fit_linear_head(features, 0 * labels, features, labels, 3)


def test_clips_of_a_class_that_is_never_predicted_are_wrong_and_do_not_move_the_probabilities_of_others():
    features, labels = clouds(80, 2, 10)
    head, strange = fit_kind(features, labels, 3, DISCRIMINANTS[5]), np.append(labels, 2)
    longer = np.concatenate([features, features[:1]])
    assert head.calibrated(longer, strange).scale == head.calibrated(features, labels).scale != 2.0**-12
    assert head.calibrated(longer, strange).scaled().bias[2] == ABSENT
    accuracy, likelihood = rank(head.logits(features), labels)
    assert rank(head.logits(longer), strange) == (pytest.approx(accuracy * 80 / 81), pytest.approx(likelihood))
    assert rank(head.logits(features), np.full(80, 2)) == (0, -np.inf)


def test_probabilities_that_are_as_sharp_as_can_be_change_no_prediction():
    generator = np.random.default_rng(0)
    labels, centers = np.arange(120) % 40, 1e3 + 20 * generator.normal(size=(40, 8))
    features = centers[labels] + 1e-2 * generator.normal(size=(120, 8))
    head = fit_kind(features, labels, 41, DISCRIMINANTS[0]).calibrated(features, labels)
    assert np.abs(head.scaled().bias[:40]).max() > 1e4
    assert (head.scaled().predict(features) == labels).all()


def few_clips(num_features: int = 200):
    """Features (24, num_features) and labels (24,) of 6 classes."""
    generator = np.random.default_rng(1)
    labels = np.repeat(np.arange(6), 4)
    return generator.normal(size=(6, num_features))[labels] + 2 * generator.standard_normal((24, num_features)), labels


def test_few_clips_are_cross_validated_and_all_of_them_learned_from():
    features, labels = few_clips()
    train = np.tile([True, True, True, False], 6)
    head = fit_linear_head(features[train], labels[train], features[~train], labels[~train], 6)
    np.testing.assert_allclose(head.weight, fit_kind(features, labels, 6, head.kind).weight)
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
    assert head.kind == CENTROIDS
    scaled = (features - features.mean(0)) / features.std(0)
    scaled /= np.linalg.norm(scaled, axis=1, keepdims=True)
    centroids = np.stack([scaled[labels == label].mean(0) for label in range(6)])
    new = np.random.default_rng(2).normal(size=(50, 10))
    cosines = cosine_similarity((new - features.mean(0)) / features.std(0), centroids)
    assert np.array_equal(head.predict(new), cosines.argmax(1))


def test_of_equally_accurate_heads_the_likelier_is_chosen():
    labels = np.array([0, 1, 1, 0])
    sure, unsure = np.array([[2, 0], [0, 2], [0, 2], [0, 0.1]]), np.array([[0.1, 0], [0, 0.1], [0, 0.1], [0, 2]])
    weak, strong, other = DISCRIMINANTS[:3]
    logits = {weak: unsure, strong: sure, other: np.array([[0, 9]] * 4), LOGISTICS[0]: sure}
    assert linear_head._choose(logits, labels) == (strong, 0.75)


@pytest.mark.parametrize(("num_right", "kind"), [(55, DISCRIMINANTS[0]), (56, LOGISTICS[0])])
def test_another_classifier_is_chosen_where_it_is_better_by_a_standard_error(num_right, kind):
    labels = np.zeros(100, int)
    right, wrong = np.array([[1.0, 0]]), np.array([[0, 1.0]])
    logits = {  # the standard error of 50 % is 5 points
        DISCRIMINANTS[0]: np.repeat([right[0], wrong[0]], 50, axis=0),
        LOGISTICS[0]: np.repeat([right[0], wrong[0]], [num_right, 100 - num_right], axis=0),
    }
    assert linear_head._choose(logits, labels)[0] == kind


def test_clips_of_a_class_each_cannot_be_compared():
    with pytest.raises(ValueError, match="second clip"):
        fit_linear_head(np.eye(3), np.arange(3), np.empty((0, 3)), np.arange(0), 3)


def test_one_clip_of_every_class_in_either_part_is_enough():
    labels = np.arange(12)
    train = np.eye(12) + 0.01 * np.random.default_rng(0).normal(size=(12, 12))
    head = fit_linear_head(train, labels, np.eye(12), labels, 12)
    assert np.array_equal(head.predict(np.eye(12)), labels)
    assert head.validation_accuracy == 1
    assert np.array_equal(head.scaled().predict(train), labels)


def test_clips_that_are_all_alike_are_classified_by_the_frequency_of_classes():
    labels = np.array([0, 0, 1, 0] * 5)
    for num_features in (3, 40):
        head = fit_linear_head(np.ones((20, num_features)), labels, np.ones((20, num_features)), labels, 2)
        assert np.isfinite(head.weight).all()
        assert head.predict(np.ones((4, num_features))).tolist() == [0, 0, 0, 0]


def test_a_signal_ends_the_fits_of_all_folds(monkeypatch):
    begun = []

    def fit(self, rows, labels, num_classes, kinds):
        begun.append(rows)
        if len(begun) == 1:  # the fold that is waited for
            raise KeyboardInterrupt
        yield from ((kinds[0], np.zeros((2, self.values.shape[1])), np.zeros(2)) for _ in count())

    monkeypatch.setattr(Coordinates, "fit", fit)
    features, labels = clouds(20, 2, 4)
    with pytest.raises(KeyboardInterrupt):
        fit_linear_head(features[:10], labels[:10], features[10:], labels[10:], 2)
