"""Linear classifiers of three kinds, each in several strengths, on standardized features.

Axes: N clips, H features, R coordinates of the features' span, K classes, of which S are seen.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import log_softmax
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
    """(K,), minus infinity for a class without a clip to learn from, which is never predicted."""
    kind: Kind
    """What it is."""
    validation_accuracy: float = float("nan")
    """Of heads of this kind on clips that they did not learn from."""
    scale: float = 1.0
    """Factor that makes the logits of those clips likeliest."""

    def scaled(self) -> "LinearHead":
        """Returns the head that predicts the same, with probabilities that can be believed, and finite biases."""
        bias = np.where(np.isneginf(self.bias), ABSENT, self.scale * self.bias)
        return self._replace(weight=self.scale * self.weight, bias=bias, scale=1.0)

    def calibrated(self, features: np.ndarray, labels: np.ndarray) -> "LinearHead":
        """Returns the head with the scale that makes labels (N,) of features (N, H) likeliest."""
        return self._replace(scale=likeliest_scale(self.logits(features), labels)[0])

    def logits(self, features: np.ndarray) -> np.ndarray:
        """(N, K) of features (N, H)."""
        return features @ self.weight.T + self.bias

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Class ids (N,) of features (N, H)."""
        return self.logits(features).argmax(axis=1)


def likeliest_scale(logits: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Returns the factor of logits (N, K) under which labels (N,) are likeliest, and their mean log-likelihood.

    Clips of a class that is never predicted do not count: no factor makes them likelier.
    """
    possible = np.isfinite(logits[np.arange(len(labels)), labels])
    if not possible.any():
        return 1.0, -np.inf
    logits, labels = logits[possible], labels[possible]
    scales, each = 2.0 ** np.arange(-12, 13), np.arange(len(labels))
    likelihoods = [float(log_softmax(scale * logits, axis=1)[each, labels].mean()) for scale in scales]
    best = int(np.argmax(likelihoods))
    return float(scales[best]), likelihoods[best]


def rank(logits: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Returns what classifiers are compared by: their accuracy, and then their mean log-likelihood, as scaled best."""
    return float((logits.argmax(axis=1) == labels).mean()), likeliest_scale(logits, labels)[1]


# Of each classifier the one that is held back most comes first.
CENTROIDS = Kind("centroids", 0.0)
DISCRIMINANTS = tuple(Kind("discriminant", 10.0 ** (exponent / 2)) for exponent in range(2, -13, -1))
LOGISTICS = tuple(Kind("logistic", 10.0**exponent) for exponent in range(-6, 6))
MAX_PRECISE = 10_000  # clips up to which fits are in double precision and end at small tolerances
ABSENT = -1e9  # bias in a network of a class without a clip to learn from, far below any other: weights must be finite


Fit = tuple[Kind, np.ndarray, np.ndarray]


class Coordinates:
    """Clips with features (N, H), standardized, in the R <= min(N, H) coordinates of the space that they span.

    A fit that penalizes the length of weights is the same there, as its weights are combinations of the features, and
    takes a fraction of the time.
    """

    def __init__(self, features: np.ndarray):
        features = features.astype(np.float64 if len(features) <= MAX_PRECISE else np.float32)
        self.scaler = StandardScaler().fit(features)
        self.values, self.directions = _rotate(np.asarray(self.scaler.transform(features)))

    def fit(self, rows: np.ndarray, labels: np.ndarray, num_classes: int, kinds: Sequence[Kind]) -> Iterator[Fit]:
        """Fits classifiers on the clips at some positions with labels (len(rows),): weights (K, R) and biases (K,).

        Raises:
            ValueError: The clips are of fewer than two classes.
        """
        seen, numbers = np.unique(labels, return_inverse=True)
        if len(seen) < 2:
            raise ValueError("A classifier needs clips of at least two classes: give more labels.")
        fits = {"centroids": _centroids, "discriminant": _discriminants, "logistic": _logistics}
        for name, fit in fits.items():
            if of_name := [kind for kind in kinds if kind.name == name]:
                for kind, weight, bias in fit(self.values[rows], numbers, of_name):
                    whole_weight, whole_bias = np.zeros((num_classes, weight.shape[1])), np.full(num_classes, -np.inf)
                    whole_weight[seen], whole_bias[seen] = weight, bias
                    yield kind, whole_weight, whole_bias

    def head(self, kind: Kind, weight: np.ndarray, bias: np.ndarray) -> LinearHead:
        """Returns the head that takes features as they are, of a fit on coordinates."""
        weight = (weight if self.directions is None else weight @ self.directions) / self.scaler.scale_
        return LinearHead(weight, bias - weight @ np.asarray(self.scaler.mean_), kind)


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
    # No variance at all is left where an encoder says the same of every clip.
    rotated, total = means @ axes, max(np.square(features).sum() / len(labels), np.finfo(features.dtype).tiny)
    for kind in kinds:
        weight = (rotated / (variances.clip(min=0) + kind.strength * total)) @ axes.T
        yield kind, weight, np.log(shares) - (weight * means).sum(axis=1) / 2


def _logistics(features: np.ndarray, labels: np.ndarray, kinds: list[Kind]) -> Iterator[Fit]:
    """Yields multinomial logistic regressions, each fit from the one that is held back more; (S, R) and (S,).

    Several of more than two classes are to be compared, and end earlier: with the same accuracies, in less than half
    of the iterations.
    """
    compared = len(kinds) > 1 and labels.max() > 1
    tolerance = 1e-2 if len(labels) > MAX_PRECISE else 1e-3 if compared else 1e-4
    fit = LogisticRegression(max_iter=300, tol=tolerance, warm_start=True)
    for strength in sorted({kind.strength for kind in (*LOGISTICS, *kinds)}):
        if strength > max(kind.strength for kind in kinds):
            break
        fit.set_params(C=strength).fit(features, labels)
        weight, bias = np.asarray(fit.coef_), np.asarray(fit.intercept_)
        if len(weight) == 1:  # scikit-learn keeps one row of a binary fit
            weight, bias = np.stack([0 * weight[0], weight[0]]), np.stack([0 * bias[0], bias[0]])
        if (kind := Kind("logistic", strength)) in kinds:
            yield kind, weight.copy(), bias.copy()


def _class_means(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return np.stack([features[labels == label].mean(axis=0) for label in range(labels.max() + 1)])


def _rotate(features: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns coordinates (N, R) of features (N, H) and the directions (R, H) that they are along.

    With N >= H there is nothing to gain, and the features come back as they are.
    """
    if len(features) >= features.shape[1]:
        return features, None
    squares, axes = np.linalg.eigh(features @ features.T)
    kept = squares > squares[-1] * np.finfo(features.dtype).eps * len(features)
    kept[-1] = True  # also where all clips are alike
    lengths = np.sqrt(squares[kept].clip(min=np.finfo(features.dtype).tiny))
    return axes[:, kept] * lengths, (axes[:, kept] / lengths).T @ features
