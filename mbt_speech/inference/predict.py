"""Classify sound files by a fine-tuned model.

    mbt predict runs/speaker a.wav b.flac
    mbt predict runs/speaker recordings/ --output predictions.csv

Without `--output`, a JSON line is printed for each recording, with its most likely classes. A table has a row for each
of these classes.
"""

import json
from argparse import ArgumentParser, Namespace
from typing import Any

from .output_files import TABLE_SUFFIXES, add_output, check_output, printable, write_table
from .sound_files import (
    add_recordings,
    add_shared_arguments,
    check_headers,
    find_recordings,
    open_recognizer,
    report_bad_audio,
    whole_number,
)
from .speech_encoder import SpeechClassifier


def add_arguments(parser: ArgumentParser) -> None:
    """Adds the command's arguments."""
    add_shared_arguments(parser)
    add_recordings(parser)
    parser.add_argument(
        "--top_k", type=whole_number, default=5, help="number of classes to give for each recording (default: 5)"
    )
    add_output(parser, required=False, help="table to write instead of printing: .csv or .parquet")


def main(args: Namespace) -> None:
    """Prints or writes the most probable classes of every recording."""
    if args.output is not None:
        check_output(args.output, TABLE_SUFFIXES)
    recordings = find_recordings(args.recordings)
    check_headers(recordings, args.on_bad_audio)
    classifier = open_recognizer(args, SpeechClassifier)
    windows = classifier.predict_windows(recordings)
    files, probabilities = (windows.files, windows.values) if args.each_window else windows.averaged()
    predictions = classifier.name_classes(probabilities, args.top_k)
    heads: list[dict[str, Any]] = [{"file": printable(file)} for file in files]
    if args.each_window:
        for head, start, end in zip(heads, windows.starts.tolist(), windows.ends.tolist(), strict=True):
            head |= {"start_seconds": start, "end_seconds": end}
    if args.output is None:
        for head, classes in zip(heads, predictions, strict=True):
            print(json.dumps({**head, "predictions": classes}))
    else:
        rows = [{**head, **one} for head, classes in zip(heads, predictions, strict=True) for one in classes]
        write_table(args.output, rows)
        print(f"Predictions for {len(set(files))} recordings are in {args.output}.")
    report_bad_audio(args, classifier.left_out, "what is printed" if args.output is None else str(args.output))
