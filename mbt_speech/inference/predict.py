"""Classify sound files: a JSON line for each recording, or a table with a row for each class that is named.

mbt predict runs/speaker a.wav b.flac
mbt predict runs/speaker recordings/ --output predictions.csv
"""

import json
from argparse import ArgumentParser, Namespace
from pathlib import Path

from .sound_files import add_recordings, add_shared_arguments, find_recordings, open_recognizer, write_table
from .speech_encoder import SpeechClassifier


def add_arguments(parser: ArgumentParser) -> None:
    """Adds the command's arguments."""
    add_shared_arguments(parser)
    add_recordings(parser)
    parser.add_argument("--top_k", type=int, default=5, help="classes for each recording (default: 5)")
    parser.add_argument("--output", type=Path, help=".csv or .parquet file to write instead of printing")


def main(args: Namespace) -> None:
    """Prints or writes the most probable classes of every recording."""
    classifier = open_recognizer(args, SpeechClassifier)
    files, predictions = classifier.predict(find_recordings(args.recordings), args.top_k)
    if args.output is None:
        for file, classes in zip(files, predictions, strict=True):
            print(json.dumps({"file": str(file), "predictions": classes}))
        return
    rows = [{"file": str(file), **one} for file, classes in zip(files, predictions, strict=True) for one in classes]
    write_table(args.output, rows)
    print(f"Predictions for {len(files)} recordings are in {args.output}.")
