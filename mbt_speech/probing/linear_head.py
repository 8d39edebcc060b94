"""The linear classifier on frozen representations: multinomial logistic regression, its strength chosen on validation.

Validation labels are labels like any others. Where they are many, heads that learn from the training clips are
compared on them. Where they are few, both are one set, heads are compared by cross-validation within it, and the best
kind of head then learns from all of it.

Axes: N clips, H features, K classes.
"""

import math
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler, normalize

INVERSE_STRENGTHS = tuple(10.0**exponent for exponent in range(-6, 6))
CENTROIDS = 0.0  # in the place of an inverse strength
MAX_CLIPS_OF_CENTROIDS = 4  # of any class: with more, nearest centroids are not tried
MANY_VALIDATION_CLIPS = 10  # for each class, on average: with fewer, cross-validation
NUM_FOLDS = 5
MAX_PRECISE = 10_000  # clips up to which fits are in double precision and end at the smaller of two tolerances
ABSENT = -1e4  # bias of a class without a clip to learn from, which is never predicted


class LinearHead(NamedTuple):
    """Logits = features @ weight.T + bias."""

    weight: np.ndarray
    """(K, H)."""
    bias: np.ndarray
    """(K,)."""
    inverse_strength: float
    """C of the L2 penalty that was chosen, 0 for nearest centroids."""
    validation_accuracy: float = float("nan")
    """Of heads of this strength on clips that they did not learn from."""
    scale: float = 1.0
    """Factor that makes the logits of those clips likeliest."""

    def scaled(self) -> "LinearHead":
        """Give the head that predicts the same, with probabilities that can be believed."""
        return self._replace(weight=self.scale * self.weight, bias=self.scale * self.bias, scale=1.0)

    def logits(self, features: np.ndarray) -> np.ndarray:
        """(N, K) of features (N, H)."""
        return features @ self.weight.T + self.bias

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Class ids (N,) of features (N, H)."""
        return self.logits(features).argmax(axis=1)


def fit_linear_head(
    train_features: np.ndarray,
    train_labels: np.ndarray,
    validation_features: np.ndarray,
    validation_labels: np.ndarray,
    num_classes: int,
    seed: int = 0,
) -> LinearHead:
    """Fit heads of every strength of the L2 penalty, and keep the one that is best on clips it did not learn from.

    Of equally accurate ones the likelier is kept, and of equally likely ones the one of the stronger penalty. Features
    are standardized by the clips to learn from; the head that comes back takes them as they are. A class without such
    a clip is never predicted.

    Args:
        train_features: (N, H).
        train_labels: Class ids below `num_classes`, (N,).
        validation_features: (N', H).
        validation_labels: (N',).
        num_classes: K.
        seed: Of the folds of cross-validation.

    Raises:
        ValueError: The clips to learn from are of fewer than two classes.
    """
    if has_many_validation_clips(len(validation_labels), num_classes):
        heads = {head.inverse_strength: head for head in _fit_all(train_features, train_labels, num_classes)}
        logits = {strength: head.logits(validation_features) for strength, head in heads.items()}
        strength, accuracy = _choose(logits, validation_labels)
        scale = _likeliest_scale(logits[strength], validation_labels)
        return heads[strength]._replace(validation_accuracy=accuracy, scale=scale)
    features = np.concatenate([train_features, validation_features])
    labels = np.concatenate([train_labels, validation_labels])
    logits, references = _cross_validate(features, labels, num_classes, seed)
    strength, accuracy = _choose(logits, references)
    head = fit_strength(features, labels, num_classes, strength)
    return head._replace(validation_accuracy=accuracy, scale=_likeliest_scale(logits[strength], references))


def fit_strength(features: np.ndarray, labels: np.ndarray, num_classes: int, inverse_strength: float) -> LinearHead:
    """Fit the head of one strength on features (N, H) with labels (N,)."""
    *_, head = _fit_all(features, labels, num_classes, up_to=inverse_strength)
    return head


def has_many_validation_clips(num_clips: int, num_classes: int) -> bool:
    """Whether so many validation clips suffice to compare classifiers on them alone."""
    return num_clips >= MANY_VALIDATION_CLIPS * num_classes


def split_folds(labels: np.ndarray, seed: int, num_folds: int = NUM_FOLDS) -> np.ndarray:
    """Assign clips with labels (N,) to folds, (N,), as evenly as may be within every class.

    The only clip of a class is in no fold, -1: classifiers always learn from it.
    """
    generator = np.random.default_rng([seed, 1])
    folds, count = np.full(len(labels), -1), 0
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        if len(members) > 1:
            folds[members] = (count + np.arange(len(members))) % num_folds
            count += len(members)
    return folds


def _cross_validate(
    features: np.ndarray, labels: np.ndarray, num_classes: int, seed: int
) -> tuple[dict[float, np.ndarray], np.ndarray]:
    """Give strength -> logits of the clips in folds, by heads that did not learn from them, and their labels."""
    folds = split_folds(labels, seed)
    with_centroids = np.bincount(labels).max() <= MAX_CLIPS_OF_CENTROIDS
    logits: dict[float, list[np.ndarray]] = {}
    for fold in range(NUM_FOLDS):
        held_out = folds == fold
        if held_out.any():
            for head in _fit_all(features[~held_out], labels[~held_out], num_classes, with_centroids):
                logits.setdefault(head.inverse_strength, []).append(head.logits(features[held_out]))
    references = np.concatenate([labels[folds == fold] for fold in range(NUM_FOLDS)])
    return {strength: np.concatenate(parts) for strength, parts in logits.items()}, references


def _choose(logits: dict[float, np.ndarray], labels: np.ndarray) -> tuple[float, float]:
    """Choose a strength by the logits (N, K) of clips that heads did not learn from: it, and its accuracy.

    Nearest centroids are chosen where they are better than every regression by more than a standard error.
    """
    accuracies = {strength: float((values.argmax(1) == labels).mean()) for strength, values in logits.items()}
    each = np.arange(len(labels))
    likelihoods = {strength: log_softmax(values, axis=1)[each, labels].mean() for strength, values in logits.items()}
    strengths = [strength for strength in INVERSE_STRENGTHS if strength in logits]
    best = max(strengths, key=lambda strength: (accuracies[strength], likelihoods[strength]))
    error = math.sqrt(accuracies[best] * (1 - accuracies[best]) / len(labels))
    best = CENTROIDS if accuracies.get(CENTROIDS, 0.0) > accuracies[best] + error else best
    return best, accuracies[best]


def _likeliest_scale(logits: np.ndarray, labels: np.ndarray) -> float:
    """Give the factor of logits (N, K) under which labels (N,) are likeliest."""
    scales, each = 2.0 ** np.arange(-6, 13), np.arange(len(labels))
    return float(max(scales, key=lambda scale: log_softmax(scale * logits, axis=1)[each, labels].mean()))


def _fit_all(
    features: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    with_centroids: bool = False,
    up_to: float = INVERSE_STRENGTHS[-1],
) -> Iterator[LinearHead]:
    """Give a head of every strength up to one, the strongest penalty first; each fit starts the next."""
    seen = np.unique(labels)
    if len(seen) < 2:
        raise ValueError("A classifier needs clips of at least two classes: give more labels.")
    is_precise = len(labels) <= MAX_PRECISE
    features = features.astype(np.float64 if is_precise else np.float32)
    scaler = StandardScaler().fit(features)
    scaled, directions = _rotate(np.asarray(scaler.transform(features)))
    if with_centroids or up_to == CENTROIDS:
        centroids = _centroids(scaled, labels, seen)
        yield _unscaled(centroids, np.zeros(len(seen)), directions, scaler, seen, num_classes, CENTROIDS)
    fit = LogisticRegression(max_iter=300, tol=1e-4 if is_precise else 1e-2, warm_start=True)
    for strength in INVERSE_STRENGTHS:
        if strength <= up_to:
            with (
                warnings.catch_warnings()
            ):  # fits that end early are compared like others, and two clips a class are few
                warnings.simplefilter("ignore", UserWarning)
                fit.set_params(C=strength).fit(scaled, labels)
            weight, bias = np.asarray(fit.coef_), np.asarray(fit.intercept_)
            if len(seen) == 2:  # scikit-learn keeps one row of a binary fit
                weight, bias = np.stack([0 * weight[0], weight[0]]), np.stack([0 * bias[0], bias[0]])
            yield _unscaled(weight, bias, directions, scaler, seen, num_classes, strength)


def _rotate(features: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Give the coordinates (N, N) of features (N, H) in the space that they span, and its directions (N, H).

    An L2-penalised fit is the same in either, as its weights are combinations of the features. With N >= H: nothing.
    """
    if len(features) >= features.shape[1]:
        return features, None
    left, singular_values, directions = np.linalg.svd(features, full_matrices=False)
    return left * singular_values, directions


def _centroids(features: np.ndarray, labels: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Give the mean of each class over features of length 1, itself of length 1: (len(seen), H)."""
    directions = np.asarray(normalize(features))
    return np.asarray(normalize(np.stack([directions[labels == label].mean(axis=0) for label in seen])))


def _unscaled(
    weight: np.ndarray,
    bias: np.ndarray,
    directions: np.ndarray | None,
    scaler: StandardScaler,
    seen: np.ndarray,
    num_classes: int,
    inverse_strength: float,
) -> LinearHead:
    """Make a fit on rotated, standardized features of some classes a head on features as they are, of all classes."""
    whole_weight, whole_bias = np.zeros((num_classes, len(np.asarray(scaler.scale_)))), np.full(num_classes, ABSENT)
    whole_weight[seen] = (weight if directions is None else weight @ directions) / scaler.scale_
    whole_bias[seen] = bias - whole_weight[seen] @ np.asarray(scaler.mean_)
    return LinearHead(whole_weight, whole_bias, inverse_strength)
