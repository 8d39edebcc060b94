"""Speaker verification: cosine scores of pairs of recordings, and how well they tell the same voice from another.

Axes: P pairs (trials).
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

# Of the VoxCeleb Speaker Recognition Challenge.
TARGET_PRIOR = 0.05


class Trial(NamedTuple):
    """A line of a trial list."""

    same_speaker: bool
    first: str
    second: str


class ErrorRates(NamedTuple):
    """What thresholds make of scores."""

    thresholds: np.ndarray
    """Ascending, (T,); a score at or above a threshold is accepted as the same voice."""
    false_rejections: np.ndarray
    """Share of the pairs of one voice that are rejected, (T,)."""
    false_acceptances: np.ndarray
    """Share of the pairs of two voices that are accepted, (T,)."""

    def equal_error(self) -> tuple[float, float]:
        """Give the equal error rate and its threshold, interpolated between the two thresholds around it."""
        gap = self.false_rejections - self.false_acceptances
        after = int(np.argmax(gap >= 0))
        before = max(0, after - 1)
        step = gap[after] - gap[before]
        share = 0.0 if step == 0 else -gap[before] / step
        rate = self.false_rejections[before] + share * (self.false_rejections[after] - self.false_rejections[before])
        finite = self.thresholds[[before, after]]
        threshold = finite[1] if not np.isfinite(finite).all() else finite[0] + share * (finite[1] - finite[0])
        return float(rate), float(threshold)

    def min_detection_cost(self, target_prior: float = TARGET_PRIOR) -> float:
        """Give the least detection cost, with costs of 1, relative to that of always giving the same answer.

        As in the speaker recognition evaluations of NIST.
        """
        cost = target_prior * self.false_rejections + (1 - target_prior) * self.false_acceptances
        return float(cost.min() / min(target_prior, 1 - target_prior))


def error_rates(scores: ArrayLike, same_speaker: ArrayLike) -> ErrorRates:
    """Sweep the threshold over scores (P,) of pairs (P,), of which some are of one voice and some are not.

    Raises:
        ValueError: All pairs are of one kind.
    """
    scores, same_speaker = np.asarray(scores, np.float64), np.asarray(same_speaker, bool)
    if same_speaker.all() or not same_speaker.any():
        raise ValueError("Error rates take pairs of one speaker and pairs of two: this list has only one kind.")
    thresholds = np.append(np.unique(scores), np.inf)
    targets, others = np.sort(scores[same_speaker]), np.sort(scores[~same_speaker])
    return ErrorRates(
        thresholds,
        np.searchsorted(targets, thresholds) / len(targets),
        1 - np.searchsorted(others, thresholds) / len(others),
    )


def cosine_scores(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Cosine of each row (P, H) with its counterpart (P, H)."""
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return (first * second).sum(axis=1) / np.maximum(norms, np.finfo(first.dtype).tiny)


def read_trials(path: Path) -> list[Trial]:
    """Read a list in VoxCeleb's format: `1 first.wav second.wav` for one voice, `0 ...` for two, a pair a line.

    Raises:
        ValueError: A line is not of this form.
    """
    trials = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        words = line.split()
        if not words:
            continue
        if len(words) != 3 or words[0] not in ("0", "1"):
            raise ValueError(f"Line {number} of {path} must read `1 FILE FILE` or `0 FILE FILE`, not {line!r}.")
        trials.append(Trial(words[0] == "1", words[1], words[2]))
    return trials
