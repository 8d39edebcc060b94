"""Shares of the labels: stratified, nested, seeded."""

import numpy as np


def select_label_fraction(labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Chooses the clips whose labels are given.

    Every class keeps its share, rounded, and at least one clip. With one seed a smaller share is contained in every
    larger one, so that a curve over fractions adds clips and never exchanges them.

    Args:
        labels: Class ids, (N,).
        fraction: Share of each class, in (0, 1].
        seed: Seed of the choice.

    Returns:
        Sorted positions in `labels`.

    Raises:
        ValueError: The fraction is outside (0, 1].
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"--label_fraction must lie in (0, 1] and is {fraction}.")
    generator = np.random.default_rng([seed, 0])
    chosen = []
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        chosen.append(members[: max(1, round(fraction * len(members)))])
    return np.sort(np.concatenate(chosen))
