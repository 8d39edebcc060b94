"""The linear classifier on frozen representations: discriminant analysis or logistic regression, as validation says.

Validation labels are labels like any others: classifiers are compared on them, and the best kind then learns from all
labels. Where validation clips are few, both splits are one set, and cross-validation within it compares classifiers.

Axes: N clips, H features, K classes.
"""

import math
import os
import threading
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import takewhile

import numpy as np
from threadpoolctl import threadpool_limits

from .linear_fits import (
    CENTROIDS,
    DISCRIMINANTS,
    LOGISTICS,
    MAX_PRECISE,
    Coordinates,
    Kind,
    LinearHead,
    likeliest_scale,
    rank,
)

MAX_CLIPS_OF_CENTROIDS = 4  # of any class: with more, nearest centroids are not tried
MANY_VALIDATION_CLIPS = 10  # for each class, on average: with fewer, cross-validation
NUM_FOLDS = 5


def fit_linear_head(
    train_features: np.ndarray,
    train_labels: np.ndarray,
    validation_features: np.ndarray,
    validation_labels: np.ndarray,
    num_classes: int,
    seed: int = 0,
) -> LinearHead:
    """Fits heads of every kind, and returns the one that is best on clips that it did not learn from, fit on all.

    Of equally accurate ones the likelier is chosen, and of equally likely ones the one that is held back more; what is
    no discriminant analysis must be better by a standard error.
    Features are standardized by all clips given; the head that comes back takes them as they are. A class
    without such a clip is never predicted.

    Args:
        train_features: (N, H).
        train_labels: Class ids below `num_classes`, (N,).
        validation_features: (N', H).
        validation_labels: (N',).
        num_classes: K.
        seed: Of the folds of cross-validation.

    Raises:
        ValueError: The clips to learn from are of fewer than two classes, or no class has a second clip.
    """
    features = np.concatenate([train_features, validation_features])
    labels = np.concatenate([train_labels, validation_labels])
    if len(validation_labels) >= MANY_VALIDATION_CLIPS * num_classes:
        folds = np.repeat([-1, 0], [len(train_labels), len(validation_labels)])
    else:
        folds = split_folds(labels, seed)
    if folds.max(initial=-1) < 0:
        raise ValueError("No class has a second clip, to compare classifiers on: give more labels.")
    with _fitting():
        coordinates = Coordinates(features)
        logits, references = _held_out_logits(coordinates, labels, folds, num_classes)
        kind, accuracy = _choose(logits, references)
        head = _fit_on_all(coordinates, labels, num_classes, kind)
    return head._replace(validation_accuracy=accuracy, scale=likeliest_scale(logits[kind], references)[0])


def fit_kind(features: np.ndarray, labels: np.ndarray, num_classes: int, kind: Kind) -> LinearHead:
    """Fits the head of one kind on features (N, H) with labels (N,)."""
    with _fitting():
        return _fit_on_all(Coordinates(features), labels, num_classes, kind)


@contextmanager
def _fitting() -> Iterator[None]:
    """Lets each fit take one thread, and keeps scikit-learn's warnings back."""
    # Matrices are small: two threads take three times as long as one.
    with threadpool_limits(1), warnings.catch_warnings():
        # Fits that end early are compared like others, and two clips a class are few.
        warnings.simplefilter("ignore", UserWarning)
        yield


def _fit_on_all(coordinates: Coordinates, labels: np.ndarray, num_classes: int, kind: Kind) -> LinearHead:
    return coordinates.head(*next(coordinates.fit(np.arange(len(labels)), labels, num_classes, [kind])))


def split_folds(labels: np.ndarray, seed: int, num_folds: int = NUM_FOLDS) -> np.ndarray:
    """Assigns clips with labels (N,) to folds, (N,), as evenly as may be within every class.

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


def _held_out_logits(
    coordinates: Coordinates, labels: np.ndarray, folds: np.ndarray, num_classes: int
) -> tuple[dict[Kind, np.ndarray], np.ndarray]:
    """Returns kind -> logits of the clips in folds, by heads that did not learn from them, and those clips' labels."""
    kinds = (*DISCRIMINANTS, *LOGISTICS)
    if np.bincount(labels).max() <= MAX_CLIPS_OF_CENTROIDS:
        kinds = (CENTROIDS, *kinds)

    given_up = threading.Event()

    def logits_of(fold: int) -> dict[Kind, np.ndarray]:
        rows, held_out = np.flatnonzero(folds != fold), coordinates.values[folds == fold]
        fits = coordinates.fit(rows, labels[rows], num_classes, kinds)
        fits = takewhile(lambda _: not given_up.is_set(), fits)
        return {kind: held_out @ weight.T + bias for kind, weight, bias in fits}

    numbers = np.unique(folds[folds >= 0])
    # More clips than that are too many to hold for each fold.
    num_threads = min(len(numbers), os.cpu_count() or 1) if len(labels) <= MAX_PRECISE else 1
    with ThreadPoolExecutor(num_threads) as pool:
        try:
            of_folds = list(pool.map(logits_of, numbers))
        except BaseException:  # a signal that tells to stop
            given_up.set()
            raise
    references = np.concatenate([labels[folds == fold] for fold in numbers])
    return {kind: np.concatenate([logits[kind] for logits in of_folds]) for kind in kinds}, references


def _choose(logits: dict[Kind, np.ndarray], labels: np.ndarray) -> tuple[Kind, float]:
    """Chooses a kind by the logits (N, K) of clips that heads did not learn from: it, and its accuracy.

    A discriminant analysis, unless another classifier is better than the best one by more than a standard error: few
    clips decide between shrinkages, and only clear differences between classifiers.
    """
    ranks = {kind: rank(values, labels) for kind, values in logits.items()}

    def best(kinds: Sequence[Kind]) -> tuple[Kind, float]:
        chosen = max((kind for kind in kinds if kind in ranks), key=lambda kind: ranks[kind])
        return chosen, ranks[chosen][0]

    first, accuracy = best(DISCRIMINANTS)
    other, accuracy_of_other = best((CENTROIDS, *LOGISTICS))
    error = math.sqrt(accuracy * (1 - accuracy) / len(labels))
    return (other, accuracy_of_other) if accuracy_of_other > accuracy + error else (first, accuracy)
