"""The linear classifier on frozen representations: multinomial logistic regression, its strength chosen on validation.

Axes: N clips, H features, K classes.
"""

from typing import NamedTuple

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

INVERSE_STRENGTHS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)


class LinearHead(NamedTuple):
    """Logits = features @ weight.T + bias."""

    weight: np.ndarray
    """(K, H)."""
    bias: np.ndarray
    """(K,)."""
    inverse_strength: float
    """C of the L2 penalty that was chosen."""

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Class ids (N,) of features (N, H)."""
        return (features @ self.weight.T + self.bias).argmax(axis=1)


def fit_linear_head(
    train_features: np.ndarray,
    train_labels: np.ndarray,
    validation_features: np.ndarray,
    validation_labels: np.ndarray,
    num_classes: int,
) -> LinearHead:
    """Fit the head with every strength of the L2 penalty, and keep the one that is best on validation.

    Features are standardised by the training clips; the head that comes back takes them as they are. A class without
    a training clip is never predicted.

    Args:
        train_features: (N, H).
        train_labels: Class ids below `num_classes`, (N,).
        validation_features: (N', H).
        validation_labels: (N',).
        num_classes: K.

    Raises:
        ValueError: The training clips are of fewer than two classes.
    """
    seen = np.unique(train_labels)
    if len(seen) < 2:
        raise ValueError("A classifier needs clips of at least two classes: give more labels.")
    scaler = StandardScaler().fit(train_features)
    scaled = scaler.transform(train_features)
    best, best_accuracy = None, -1.0
    fit = LogisticRegression(max_iter=200, tol=1e-2, warm_start=True)  # from strong to weak, each fit starts the next
    for inverse_strength in INVERSE_STRENGTHS:
        fit.set_params(C=inverse_strength).fit(scaled, train_labels)
        head = _unscaled(fit, scaler, seen, num_classes)
        accuracy = float((head.predict(validation_features) == validation_labels).mean())
        if accuracy > best_accuracy:
            best, best_accuracy = head, accuracy
    assert best is not None
    return best


def _unscaled(fit: LogisticRegression, scaler: StandardScaler, seen: np.ndarray, num_classes: int) -> LinearHead:
    coefficients, intercept = np.asarray(fit.coef_), np.asarray(fit.intercept_)
    if len(seen) == 2:  # scikit-learn keeps one row of a binary fit
        coefficients, intercept = (
            np.stack([0 * coefficients[0], coefficients[0]]),
            np.stack([0 * intercept[0], intercept[0]]),
        )
    weight = np.zeros((num_classes, coefficients.shape[1]))
    bias = np.full(num_classes, -1e4)  # a class without a training clip is never predicted
    weight[seen] = coefficients / scaler.scale_
    bias[seen] = intercept - weight[seen] @ np.asarray(scaler.mean_)
    return LinearHead(weight, bias, float(fit.C))
