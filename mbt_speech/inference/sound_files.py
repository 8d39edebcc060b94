"""Embeddings and predictions of sound files, batch by batch: what `mbt embed`, `predict` and `verify` share.

It takes no more than opening a checkpoint does: neither `datasets` nor torchaudio nor FFmpeg.

Axes: N recordings, W windows of all of them, S samples, H features of a representation, K classes.
"""

import math
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from tqdm.auto import tqdm

from feature_extraction import BadAudioError, to_waveform
from feature_extraction.sound_sources import AUDIO_SUFFIXES, files_below
from feature_extraction.speech import recording_seconds

from .speech_encoder import SpeechEncoder

WINDOW_SECONDS = 20.0
READ_AHEAD_SECONDS = 600.0  # of sound, from which windows of about the same length are batched
MIN_WINDOW_SECONDS, MAX_WINDOW_SECONDS = 0.1, 3_600.0


def add_shared_arguments(parser: ArgumentParser) -> None:
    """Adds what the commands that open a checkpoint have in common."""
    parser.add_argument("model_name_or_path", help="the model: a folder, or a name on the Hub")
    parser.add_argument("--device", default="cpu", help="such as cpu, cuda or mps (default: cpu)")
    parser.add_argument(
        "--batch_size",
        type=whole_number,
        default=16,
        help="windows computed at a time; fewer need less memory (default: 16)",
    )
    parser.add_argument(
        "--window_seconds",
        type=_seconds,
        default=WINDOW_SECONDS,
        help="longer recordings are divided into equal windows, no longer than this, whose results are averaged "
        "(default: 20)",
    )
    parser.add_argument(
        "--on_bad_audio",
        choices=["raise", "skip"],
        default="raise",
        help="what to do with files that cannot be read: stop with an error (raise, the default), or leave them out",
    )


def add_recordings(parser: ArgumentParser) -> None:
    """Adds the arguments that name recordings, and that ask for a row for each window."""
    parser.add_argument("recordings", nargs="+", help="sound files, or folders of them")
    parser.add_argument(
        "--each_window", action="store_true", help="give a row for each window, with its times, instead of the average"
    )


def whole_number(text: str) -> int:
    """Reads a number of things of which there must be one at least."""
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"must be a whole number of at least 1 and is {text!r}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not MIN_WINDOW_SECONDS <= seconds <= MAX_WINDOW_SECONDS:
        raise ArgumentTypeError(
            f"must lie between {MIN_WINDOW_SECONDS:g} and {MAX_WINDOW_SECONDS:g} seconds and is {text!r}"
        )
    return seconds


def open_recognizer(args: Namespace, encoder_class: type[SpeechEncoder] = SpeechEncoder) -> "Recognizer":
    """Opens the checkpoint that `add_shared_arguments` asked for; `report_bad_audio` tells what was left out."""
    return Recognizer(
        encoder_class.from_pretrained(args.model_name_or_path, args.device),
        batch_size=args.batch_size,
        window_seconds=args.window_seconds,
        on_bad_audio="skip",
    )


def find_recordings(paths: Sequence[str | Path]) -> list[Path]:
    """Returns the files that are named, and the sound files below the folders that are named, sorted.

    Raises:
        ValueError: There is none.
    """
    found = []
    for path in map(Path, paths):
        below = sorted(one for one in files_below(path) if one.suffix.lower() in AUDIO_SUFFIXES and one.is_file())
        found += below if path.is_dir() else [path]
    if not found:
        raise ValueError(f"There are no sound files in {', '.join(map(str, paths))}.")
    return found


def check_headers(recordings: Sequence[Path], on_bad_audio: str) -> None:
    """Looks at every header before the work begins, unless bad recordings are left out.

    Raises:
        BadAudioError: A recording is missing, or its header tells that it is bad.
    """
    for recording in recordings if on_bad_audio == "raise" else ():
        recording_seconds(recording)


def report_bad_audio(args: Namespace, left_out: Sequence[BadAudioError], where: str) -> None:
    """Prints after the work how many recordings it lacks.

    Raises:
        ValueError: There are some, and they were not to be left out.
    """
    if not left_out:
        return
    number = "1 recording is" if len(left_out) == 1 else f"{len(left_out)} recordings are"
    if args.on_bad_audio == "raise":
        raise ValueError(f"{number} bad, as said above, and left out; {where} holds all others.")
    print(f"{number} bad, as said above, and left out.", file=sys.stderr)


# What `pipeline` makes of logits, by the config's `problem_type`.
SCORES_OF_LOGITS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "single_label_classification": lambda logits: logits.softmax(1),
    "multi_label_classification": torch.sigmoid,
    "regression": lambda logits: logits,
}

Window = tuple[int, float, float, np.ndarray]
"""Number of its recording, start and end in seconds, and waveform (S,)."""


class Windows(NamedTuple):
    """What was computed, a row for each window, in the order of the recordings."""

    files: list[Path]
    """Of which recording, (W,)."""
    starts: np.ndarray
    """In seconds, (W,)."""
    ends: np.ndarray
    """In seconds, (W,)."""
    values: np.ndarray
    """(W, H) or (W, K) float32."""

    def averaged(self) -> tuple[list[Path], np.ndarray]:
        """Returns the recordings (N,), and the mean over the windows of each, (N, H) or (N, K)."""
        first = np.flatnonzero(self.starts == 0)
        counts = np.diff(first, append=len(self.files))
        return [self.files[row] for row in first], np.add.reduceat(self.values, first) / counts[:, None]


class Recognizer:
    """Embeds and classifies sound files.

    Args:
        encoder: A `SpeechEncoder` to embed, a `SpeechClassifier` to classify.
        batch_size: Windows that are computed at a time.
        window_seconds: Longer recordings are computed in equal windows, none of which is longer than this.
        max_windows: What lies beyond so many windows of a recording is not read; by default everything is.
        on_bad_audio: "raise", or "skip" to leave out what cannot be read, with a line on stderr.

    Attributes:
        left_out: What was wrong with the recordings that "skip" left out.

    Raises:
        ValueError: Halves of such a window are shorter than the extractor's own.
    """

    def __init__(
        self,
        encoder: SpeechEncoder,
        *,
        batch_size: int = 16,
        window_seconds: float = WINDOW_SECONDS,
        max_windows: int | None = None,
        on_bad_audio: str = "raise",
    ):
        least = 2 * encoder.extractor.win_length / encoder.sampling_rate
        if window_seconds < least:
            raise ValueError(f"This model takes windows of at least {least:g} seconds, not of {window_seconds:g}.")
        self.encoder, self.batch_size, self.on_bad_audio = encoder, batch_size, on_bad_audio
        self.window_seconds, self.max_seconds = window_seconds, window_seconds * (max_windows or math.inf)
        self.left_out: list[BadAudioError] = []

    def embed(self, recordings: Sequence[Path]) -> tuple[list[Path], np.ndarray]:
        """Represents recordings: those that could be read, and their representations (N, H) float32."""
        return self.embed_windows(recordings).averaged()

    def embed_windows(self, recordings: Sequence[Path]) -> Windows:
        """Represents the windows of recordings, (W, H)."""
        return self._run(recordings, lambda output: output.pooler_output)

    def predict(self, recordings: Sequence[Path], top_k: int = 5) -> tuple[list[Path], list[list[dict[str, Any]]]]:
        """Classifies recordings: those that could be read, and for each what `pipeline` gives.

        That is `[{"score": ..., "label": ...}, ...]`, the highest score first, `top_k` of them at most. Scores are
        probabilities: of all classes together, or of each by itself where `problem_type` is multi-label; and for a
        regression, the values.
        """
        files, scores = self.predict_windows(recordings).averaged()
        return files, self.name_classes(scores, top_k)

    def predict_windows(self, recordings: Sequence[Path]) -> Windows:
        """Computes the scores of the classes in the windows of recordings, (W, K)."""
        problem_type = self.encoder.model.config.problem_type
        as_scores = SCORES_OF_LOGITS.get(problem_type, SCORES_OF_LOGITS["single_label_classification"])
        return self._run(recordings, lambda output: as_scores(output.logits.float()))

    def name_classes(self, scores: np.ndarray, top_k: int) -> list[list[dict[str, Any]]]:
        """Returns the classes of the highest scores of each row (..., K), as `predict` does."""
        names: Any = self.encoder.model.config.id2label
        return [
            [{"score": float(row[k]), "label": names[int(k)]} for k in np.argsort(-row, kind="stable")[:top_k]]
            for row in scores
        ]

    @torch.no_grad()
    def _run(self, recordings: Sequence[Path], choose: Callable[[Any], torch.Tensor]) -> Windows:
        windows, values = [], []
        bad: dict[int, BadAudioError] = {}
        with tqdm(total=len(recordings), desc="Recordings", unit="file", disable=len(recordings) < 2) as bar:
            for batch in self._batches(recordings, bad, bar):
                values.append(choose(self.encoder([waveform for *_, waveform in batch])).float().cpu().numpy())
                windows += [window[:3] for window in batch]
                bar.update(sum(start == 0.0 for _, start, *_ in batch))
        self.left_out += bad.values()
        in_order = sorted(range(len(windows)), key=lambda row: windows[row])
        kept = [row for row in in_order if windows[row][0] not in bad]  # damage may show in a later window
        if not kept:
            raise ValueError("None of the recordings can be read.")
        numbers, starts, ends = zip(*(windows[row] for row in kept), strict=True)
        files = [recordings[number] for number in numbers]
        return Windows(files, np.array(starts), np.array(ends), np.concatenate(values)[kept])

    def _batches(self, recordings: Sequence[Path], bad: dict[int, BadAudioError], bar: tqdm) -> Iterator[list[Window]]:
        """Yields windows of about the same length, which need little padding."""
        read: list[Window] = []
        seconds = 0.0
        for window in self._all_windows(recordings, bad, bar):
            read.append(window)
            seconds += window[2] - window[1]
            if len(read) >= self.batch_size and seconds >= READ_AHEAD_SECONDS:
                yield from self._sorted_batches(read)
                read, seconds = [], 0.0
        yield from self._sorted_batches(read)

    def _sorted_batches(self, windows: list[Window]) -> Iterator[list[Window]]:
        windows.sort(key=lambda window: len(window[-1]))
        yield from (windows[first : first + self.batch_size] for first in range(0, len(windows), self.batch_size))

    def _all_windows(self, recordings: Sequence[Path], bad: dict[int, BadAudioError], bar: tqdm) -> Iterator[Window]:
        for number, recording in enumerate(recordings):
            is_begun = False
            try:
                for window in self._windows(recording):
                    is_begun = True
                    yield number, *window
            except BadAudioError as error:
                if self.on_bad_audio == "raise":
                    raise
                bad[number] = error
                tqdm.write(f"{error} It is left out.", file=sys.stderr)
                bar.update(not is_begun)

    def _windows(self, recording: Path) -> Iterator[tuple[float, float, np.ndarray]]:
        """Yields the windows of a recording: start and end in seconds, and waveform (S,)."""
        rate = self.encoder.sampling_rate
        least = self.encoder.extractor.win_length / rate
        first = to_waveform(recording, rate, duration_seconds=self.window_seconds, min_seconds=least)
        seconds, window_samples = len(first) / rate, round(self.window_seconds * rate)
        if len(first) >= window_samples and self.window_seconds < self.max_seconds:  # there may be more than was read
            seconds = min(max(seconds, recording_seconds(recording)), self.max_seconds)
        number = math.ceil(round(seconds * rate) / window_samples)
        if number == 1:
            yield 0.0, seconds, first
            return
        times = [round(seconds * rate * window / number) / rate for window in range(number + 1)]
        for start, end in pairwise(times):
            yield start, end, to_waveform(recording, rate, start_seconds=start, duration_seconds=end - start)
