"""Linear classifiers of three kinds, each in several strengths, on standardized features.

Axes: N clips, H features, R coordinates of the features' span, K classes, of which S are seen.
"""

import warnings
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler, normalize


class Kind(NamedTuple):
    """Which classifier, and how strong it is held back."""

    name: str
    """`"discriminant"`, `"logistic"` or `"centroids"`."""
    strength: float
    """Shrinkage of a linear discriminant analysis, or C of a logistic regression."""


class LinearHead(NamedTuple):
    """Logits = features @ weight.T + bias."""

    weight: np.ndarray
    """(K, H)."""
    bias: np.ndarray
    """(K,)."""
    kind: Kind
    """What it is."""
    validation_accuracy: float = float("nan")
    """Of heads of this kind on clips that they did not learn from."""
    scale: float = 1.0
    """Factor that makes the logits of those clips likeliest."""

    def scaled(self) -> "LinearHead":
        """Returns the head that predicts the same, with probabilities that can be believed."""
        return self._replace(weight=self.scale * self.weight, bias=self.scale * self.bias, scale=1.0)

    def logits(self, features: np.ndarray) -> np.ndarray:
        """(N, K) of features (N, H)."""
        return features @ self.weight.T + self.bias

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Class ids (N,) of features (N, H)."""
        return self.logits(features).argmax(axis=1)


# Of each classifier the one that is held back most comes first.
CENTROIDS = Kind("centroids", 0.0)
DISCRIMINANTS = tuple(Kind("discriminant", 10.0 ** (exponent / 2)) for exponent in range(2, -13, -1))
LOGISTICS = tuple(Kind("logistic", 10.0**exponent) for exponent in range(-6, 6))
MAX_PRECISE = 10_000  # clips up to which fits are in double precision and end at the smaller of two tolerances
ABSENT = -1e4  # bias of a class without a clip to learn from, which is never predicted


def fit_kinds(features: np.ndarray, labels: np.ndarray, num_classes: int, *kinds: Kind) -> Iterator[LinearHead]:
    """Fits heads of some kinds on features (N, H) with labels (N,), standardized by these clips.

    Raises:
        ValueError: The clips are of fewer than two classes.
    """
    seen, numbers = np.unique(labels, return_inverse=True)
    if len(seen) < 2:
        raise ValueError("A classifier needs clips of at least two classes: give more labels.")
    features = features.astype(np.float64 if len(labels) <= MAX_PRECISE else np.float32)
    scaler = StandardScaler().fit(features)
    scaled, directions = _rotate(np.asarray(scaler.transform(features)))
    chosen = {
        name: [kind for kind in kinds if kind.name == name] for name in ("centroids", "discriminant", "logistic")
    }
    fits = {"centroids": _centroids, "discriminant": _discriminants, "logistic": _logistics}
    for name, of_name in chosen.items():
        if of_name:
            for kind, weight, bias in fits[name](scaled, numbers, of_name):
                yield _unscaled(weight, bias, kind, directions, scaler, seen, num_classes)


Fit = tuple[Kind, np.ndarray, np.ndarray]


def _centroids(features: np.ndarray, labels: np.ndarray, kinds: list[Kind]) -> Iterator[Fit]:
    """Yields the mean of each class over features of length 1, itself of length 1, (S, R), and no bias, (S,)."""
    means = np.asarray(normalize(_class_means(np.asarray(normalize(features)), labels)))
    yield from ((kind, means, np.zeros(len(means))) for kind in kinds)


def _discriminants(features: np.ndarray, labels: np.ndarray, kinds: list[Kind]) -> Iterator[Fit]:
    """Yields linear discriminant analyses, (S, R) and (S,): classes are normal distributions that share a covariance.

    To it the identity is added, `strength` times the variance of all features together: regularized discriminant
    analysis (Friedman, 1989). One eigendecomposition serves all strengths.
    """
    means, shares = _class_means(features, labels), np.bincount(labels) / len(labels)
    residuals = features - means[labels]
    variances, axes = np.linalg.eigh(residuals.T @ residuals / len(labels))
    rotated, total = means @ axes, np.square(features).sum() / len(labels)
    for kind in kinds:
        weight = (rotated / (variances.clip(min=0) + kind.strength * total)) @ axes.T
        yield kind, weight, np.log(shares) - (weight * means).sum(axis=1) / 2


def _logistics(features: np.ndarray, labels: np.ndarray, kinds: list[Kind]) -> Iterator[Fit]:
    """Yields multinomial logistic regressions, each fit from the one that is held back more; (S, R) and (S,)."""
    fit = LogisticRegression(max_iter=300, tol=1e-4 if len(labels) <= MAX_PRECISE else 1e-2, warm_start=True)
    for strength in sorted({kind.strength for kind in (*LOGISTICS, *kinds)}):
        if strength > max(kind.strength for kind in kinds):
            break
        with warnings.catch_warnings():  # fits that end early are compared like others, and two clips a class are few
            warnings.simplefilter("ignore", UserWarning)
            fit.set_params(C=strength).fit(features, labels)
        weight, bias = np.asarray(fit.coef_), np.asarray(fit.intercept_)
        if len(weight) == 1:  # scikit-learn keeps one row of a binary fit
            weight, bias = np.stack([0 * weight[0], weight[0]]), np.stack([0 * bias[0], bias[0]])
        if (kind := Kind("logistic", strength)) in kinds:
            yield kind, weight.copy(), bias.copy()


def _class_means(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return np.stack([features[labels == label].mean(axis=0) for label in range(labels.max() + 1)])


def _rotate(features: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns the coordinates (N, N) of features (N, H) in the space that they span, and its directions (N, H).

    A fit that penalizes the length of weights is the same in either, as its weights are combinations of the features.
    With N >= H there is nothing to gain, and the features come back as they are.
    """
    if len(features) >= features.shape[1]:
        return features, None
    left, singular_values, directions = np.linalg.svd(features, full_matrices=False)
    return left * singular_values, directions


def _unscaled(
    weight: np.ndarray,
    bias: np.ndarray,
    kind: Kind,
    directions: np.ndarray | None,
    scaler: StandardScaler,
    seen: np.ndarray,
    num_classes: int,
) -> LinearHead:
    """Turns a fit on rotated, standardized features of some classes into a head on features as they are, of all."""
    whole_weight, whole_bias = np.zeros((num_classes, len(np.asarray(scaler.scale_)))), np.full(num_classes, ABSENT)
    whole_weight[seen] = (weight if directions is None else weight @ directions) / scaler.scale_
    whole_bias[seen] = bias - whole_weight[seen] @ np.asarray(scaler.mean_)
    return LinearHead(whole_weight, whole_bias, kind)
