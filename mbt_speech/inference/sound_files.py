"""Embeddings and predictions of sound files, batch by batch: what `mbt embed`, `predict` and `verify` share.

It takes no more than opening a checkpoint does: neither `datasets` nor torchaudio nor FFmpeg.

Axes: N recordings, B recordings of a batch, H features of a representation, K classes.
"""

import csv
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm
from transformers.utils import logging

from feature_extraction import BadAudioError, to_waveform
from feature_extraction.sound_sources import AUDIO_SUFFIXES
from mbt_speech.user_errors import require

from .speech_encoder import SpeechEncoder

Rows = list[dict[str, Any]]


def add_shared_arguments(parser: ArgumentParser) -> None:
    """Adds what the commands that open a checkpoint have in common."""
    parser.add_argument("model_name_or_path", help="a folder, or a name on the Hub")
    parser.add_argument("--device", default="cpu", help="where to compute (default: cpu)")
    parser.add_argument("--batch_size", type=int, default=16, help="recordings computed at a time (default: 16)")
    parser.add_argument(
        "--max_length_seconds", type=float, default=20.0, help="longer recordings are cut to this (default: 20)"
    )
    parser.add_argument(
        "--on_bad_audio", choices=["raise", "skip"], default="raise", help="stop (the default), or leave the file out"
    )


def add_recordings(parser: ArgumentParser) -> None:
    """Adds the argument that names recordings."""
    parser.add_argument("recordings", nargs="+", help="sound files, and folders of them")


def open_recognizer(args: Namespace, encoder_class: type[SpeechEncoder] = SpeechEncoder) -> "Recognizer":
    """Opens the checkpoint that `add_shared_arguments` asked for."""
    logging.disable_progress_bar()  # of loading the weights
    return Recognizer(
        encoder_class.from_pretrained(args.model_name_or_path, args.device),
        batch_size=args.batch_size,
        max_length_seconds=args.max_length_seconds,
        on_bad_audio=args.on_bad_audio,
    )


def find_recordings(paths: Sequence[str | Path]) -> list[Path]:
    """Returns the files that are named, and the sound files below the folders that are named, sorted.

    Raises:
        ValueError: There is none.
    """
    found = []
    for path in map(Path, paths):
        below = sorted(one for one in path.rglob("*") if one.suffix.lower() in AUDIO_SUFFIXES and one.is_file())
        found += below if path.is_dir() else [path]
    if not found:
        raise ValueError(f"There are no sound files in {', '.join(map(str, paths))}.")
    return found


class Recognizer:
    """Embeds and classifies sound files.

    Args:
        encoder: A `SpeechEncoder` to embed, a `SpeechClassifier` to classify.
        batch_size: Recordings that are computed at a time.
        max_length_seconds: Longer recordings are cut to this.
        on_bad_audio: "raise", or "skip" to leave out what cannot be read, with a line on stderr.
    """

    def __init__(
        self,
        encoder: SpeechEncoder,
        *,
        batch_size: int = 16,
        max_length_seconds: float = 20.0,
        on_bad_audio: str = "raise",
    ):
        self.encoder, self.batch_size, self.on_bad_audio = encoder, batch_size, on_bad_audio
        self.max_length_seconds = max_length_seconds

    def embed(self, recordings: Sequence[Path]) -> tuple[list[Path], np.ndarray]:
        """Represents recordings: those that could be read, and their representations (N, H) float32."""
        files, outputs = self._run(recordings, lambda output: output.pooler_output)
        return files, outputs

    def predict(self, recordings: Sequence[Path], top_k: int = 5) -> tuple[list[Path], list[Rows]]:
        """Classifies recordings: those that could be read, and for each what `pipeline` gives.

        That is `[{"score": ..., "label": ...}, ...]`, the most probable class first, `top_k` of them at most.
        """
        files, probabilities = self._run(recordings, lambda output: output.logits.float().softmax(1))
        names: Any = self.encoder.model.config.id2label
        return files, [
            [{"score": float(row[k]), "label": names[int(k)]} for k in np.argsort(-row, kind="stable")[:top_k]]
            for row in probabilities
        ]

    @torch.no_grad()
    def _run(self, recordings: Sequence[Path], choose: Callable[[Any], torch.Tensor]) -> tuple[list[Path], np.ndarray]:
        files, rows = [], []
        with tqdm(total=len(recordings), desc="Recordings", unit="file", disable=len(recordings) < 2) as bar:
            for batch, waveforms in self._batches(recordings, bar):
                rows.append(choose(self.encoder(waveforms)).float().cpu().numpy())
                files += batch
        if not rows:
            raise ValueError("None of the recordings can be read.")
        return files, np.concatenate(rows)

    def _batches(self, recordings: Sequence[Path], bar: tqdm) -> Iterator[tuple[list[Path], list[np.ndarray]]]:
        files, waveforms = [], []
        for number, recording in enumerate(recordings, 1):
            bar.update()
            try:
                waveforms.append(self._read(recording))
                files.append(recording)
            except BadAudioError as error:
                if self.on_bad_audio == "raise":
                    raise
                print(f"{error} It is left out.", file=sys.stderr)
            if files and (len(files) == self.batch_size or number == len(recordings)):
                yield files, waveforms
                files, waveforms = [], []

    def _read(self, recording: Path) -> np.ndarray:
        rate = self.encoder.sampling_rate
        least = self.encoder.extractor.win_length / rate
        return to_waveform(recording, rate, duration_seconds=self.max_length_seconds, min_seconds=least)


def write_table(path: Path, rows: Rows) -> None:
    """Writes rows of one kind to a .csv or .parquet file.

    Raises:
        ValueError: The name ends otherwise.
        ImportError: pandas is not installed, which parquet takes.
    """
    if path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".parquet":
        require("pyarrow", "train", "A .parquet file")
        require("pandas", "train", "A .parquet file").DataFrame(rows).to_parquet(path)
    else:
        raise ValueError(f"--output {path} must end in .csv or .parquet (or .npz for embeddings).")
