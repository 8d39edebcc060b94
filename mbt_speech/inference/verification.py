"""Decide whether two recordings are of one speaker, by the cosine of their representations.

    mbt verify runs/mine a.wav b.wav
    mbt verify runs/mine --trials trials.txt --trials_dir recordings --save_threshold

For a list of pairs, in lines such as `1 a.wav b.wav` (1: the same speaker, 0: another), this prints the equal error
rate (`eer`), the minimal detection cost (`min_dcf`) and the threshold of equal errors.

Axes: P pairs (trials).
"""

import json
import math
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from modeling_mbt import MBTConfig

from .sound_files import add_shared_arguments, check_headers, open_recognizer, report_bad_audio

# Of the VoxCeleb Speaker Recognition Challenge.
TARGET_PRIOR = 0.05


def add_arguments(parser: ArgumentParser) -> None:
    """Adds the command's arguments."""
    add_shared_arguments(parser)
    parser.add_argument("recordings", nargs="*", help="two sound files to compare")
    parser.add_argument(
        "--threshold", type=_number, help="lowest cosine of one speaker (default: that stored in the model)"
    )
    parser.add_argument("--trials", type=Path, help="a list of pairs, in VoxCeleb's format, instead of two files")
    parser.add_argument("--trials_dir", type=Path, help="folder of the files in the list (default: the current one)")
    parser.add_argument(
        "--save_threshold", action="store_true", help="store the threshold of equal errors in the model"
    )


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ArgumentTypeError(f"it must be a number, not {text}")
    return number


def main(args: Namespace) -> None:
    """Prints the cosine of two recordings with a decision, or the error rates of a list of pairs."""
    if len(args.recordings) != (2 if args.trials is None else 0):
        raise ValueError("`mbt verify` compares two sound files, or takes --trials.")
    if args.trials is None and (args.save_threshold or args.trials_dir is not None):
        raise ValueError("--save_threshold and --trials_dir belong to --trials.")
    if args.trials is not None and args.threshold is not None:
        raise ValueError("--threshold is for two sound files: --trials finds one.")
    if args.trials is not None:
        verify_trials(args)
        return
    recordings = [Path(recording) for recording in args.recordings]
    check_headers(recordings, "raise")
    recognizer = open_recognizer(args)
    files, embeddings = recognizer.embed(recordings)
    if len(files) < 2:
        raise ValueError("Both recordings must be readable.")
    score = float(cosine_scores(embeddings[:1], embeddings[1:])[0])
    threshold = recognizer.encoder.model.config.verification_threshold if args.threshold is None else args.threshold
    result = {
        "score": score,
        "threshold": threshold,
        "same_speaker": None if threshold is None else score >= threshold,
    }
    print(json.dumps(result))
    if threshold is None:
        print("This checkpoint has no threshold: give --threshold, or find one by --trials.", file=sys.stderr)


def verify_trials(args: Namespace) -> None:
    """Scores a list of pairs.

    Raises:
        ValueError: The list is none, or a threshold is to be stored elsewhere than in a local folder.
    """
    if args.save_threshold and not Path(args.model_name_or_path).is_dir():
        raise ValueError("A threshold is stored in a local folder: download the model first, or note the threshold.")
    trials, folder = read_trials(args.trials), args.trials_dir or Path()
    names = sorted({name for trial in trials for name in (trial.first, trial.second)})
    check_headers([folder / name for name in names], args.on_bad_audio)
    recognizer = open_recognizer(args)
    files, embeddings = recognizer.embed([folder / name for name in names])
    rows = {file: row for row, file in enumerate(files)}
    trials = [t for t in trials if folder / t.first in rows and folder / t.second in rows]
    if not trials:
        raise ValueError(f"Of no pair of {args.trials} both recordings can be read.")
    first, second = ([rows[folder / name] for name in side] for side in list(zip(*trials, strict=True))[1:])
    scores = cosine_scores(embeddings[first], embeddings[second])
    rates = error_rates(scores, np.array([trial.same_speaker for trial in trials]))
    equal_error, threshold = rates.equal_error()
    result = {"trials": len(trials), "eer": equal_error, "min_dcf": rates.min_detection_cost(), "threshold": threshold}
    print(json.dumps(result))
    if args.save_threshold:
        config = MBTConfig.from_pretrained(args.model_name_or_path)
        config.verification_threshold = threshold
        config.save_pretrained(args.model_name_or_path)
        print(f"The threshold is stored in {args.model_name_or_path}.", file=sys.stderr)
    report_bad_audio(args, recognizer.left_out, "the result")


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
        """Returns the equal error rate and its threshold, interpolated between the two thresholds around it."""
        gap = self.false_rejections - self.false_acceptances
        after = int(np.argmax(gap >= 0))
        before = max(0, after - 1)
        step = gap[after] - gap[before]
        share = 0.0 if step == 0 else -gap[before] / step
        rate = self.false_rejections[before] + share * (self.false_rejections[after] - self.false_rejections[before])
        # Every threshold down to the next lower score gives the same rates: the middle is safest for other recordings.
        middles = self.thresholds.copy()
        middles[1:-1] = (self.thresholds[:-2] + self.thresholds[1:-1]) / 2
        middles[-1] = self.thresholds[-2]  # beyond all scores
        return float(rate), float(middles[before] + share * (middles[after] - middles[before]))

    def min_detection_cost(self, target_prior: float = TARGET_PRIOR) -> float:
        """Returns the least detection cost, with costs of 1, relative to that of always answering the same.

        As in the speaker recognition evaluations of NIST.
        """
        cost = target_prior * self.false_rejections + (1 - target_prior) * self.false_acceptances
        return float(cost.min() / min(target_prior, 1 - target_prior))


def error_rates(scores: ArrayLike, same_speaker: ArrayLike) -> ErrorRates:
    """Sweeps the threshold over scores (P,) of pairs (P,), of which some are of one voice and some are not.

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
    """Computes the cosine of each row (P, H) with its counterpart (P, H)."""
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return (first * second).sum(axis=1) / np.maximum(norms, np.finfo(first.dtype).tiny)


def read_trials(path: Path) -> list[Trial]:
    """Reads a list in VoxCeleb's format: `1 first.wav second.wav` for one voice, `0 ...` for two, a pair a line.

    Raises:
        ValueError: It is no text, is empty, or a line is not of this form.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise ValueError(
            f"{path} is no text: it must hold a pair on each line, `1 FILE FILE` or `0 FILE FILE`."
        ) from None
    trials = []
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words:
            continue
        if len(words) != 3 or words[0] not in ("0", "1"):
            raise ValueError(f"Line {number} of {path} must read `1 FILE FILE` or `0 FILE FILE`, not {line!r}.")
        trials.append(Trial(words[0] == "1", words[1], words[2]))
    if not trials:
        raise ValueError(f"{path} holds no pairs: write one on each line, `1 FILE FILE` or `0 FILE FILE`.")
    return trials
