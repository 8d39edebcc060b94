"""Embed, classify and compare sound files with a checkpoint.

python -m mbt_speech embed runs/mine recordings/ --output embeddings.npz
python -m mbt_speech predict runs/speaker a.wav b.flac
python -m mbt_speech verify runs/mine a.wav b.wav
python -m mbt_speech verify runs/mine --trials trials.txt --trials_dir recordings --save_threshold
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from transformers.utils import logging

from feature_extraction import BadAudioError
from mbt_speech.inference.sound_files import Recognizer, find_recordings, write_table
from mbt_speech.inference.verification import cosine_scores, error_rates, read_trials
from modeling_mbt import MBTForSequenceClassification


def main(argv: list[str] | None = None) -> None:
    """Run one of the commands; a mistake ends it with a sentence."""
    args = parse_args(argv)
    logging.disable_progress_bar()  # of loading the weights
    try:
        {"embed": embed, "predict": predict, "verify": verify}[args.command](args)
    except (BadAudioError, ValueError, OSError) as error:
        sys.exit(f"{error}")


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("model_name_or_path", help="a folder, or a name on the Hub")
    shared.add_argument("--device", default="cpu", help="where to compute")
    shared.add_argument("--batch_size", type=int, default=16, help="recordings that are computed at a time")
    shared.add_argument("--max_length_seconds", type=float, default=20.0, help="longer recordings are cut to this")
    shared.add_argument("--on_bad_audio", choices=["raise", "skip"], default="raise", help="stop, or leave it out")
    parser = argparse.ArgumentParser(prog="python -m mbt_speech", description=(__doc__ or "").split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("embed", parents=[shared], help="representations, to .npz, .csv or .parquet")
    one.add_argument("recordings", nargs="+", help="sound files, and folders of them")
    one.add_argument("--output", type=Path, required=True, help="file to write")
    one = commands.add_parser("predict", parents=[shared], help="classes, printed, or to .csv or .parquet")
    one.add_argument("recordings", nargs="+", help="sound files, and folders of them")
    one.add_argument("--top_k", type=int, default=5, help="classes for each recording")
    one.add_argument("--output", type=Path, help="file to write instead of printing")
    one = commands.add_parser("verify", parents=[shared], help="whether two recordings are of one speaker")
    one.add_argument("recordings", nargs="*", help="two sound files")
    one.add_argument("--threshold", type=float, help="cosine at which to say yes; by default the checkpoint's")
    one.add_argument("--trials", type=Path, help="a list of pairs in VoxCeleb's format instead")
    one.add_argument("--trials_dir", type=Path, default=Path(), help="folder that its file names start from")
    one.add_argument("--save_threshold", action="store_true", help="keep the threshold of equal errors in the model")
    args = parser.parse_args(argv)
    if args.command == "verify" and (len(args.recordings) == 2) == (args.trials is not None):
        parser.error("verify compares two sound files, or takes --trials.")
    return args


def embed(args: argparse.Namespace) -> None:
    """Write the representation of every recording."""
    files, embeddings = recognizer(args).embed(find_recordings(args.recordings))
    if args.output.suffix == ".npz":
        np.savez_compressed(args.output, files=np.array([str(file) for file in files]), embeddings=embeddings)
    else:
        rows = [
            {"file": str(file), **{f"embedding_{i}": float(x) for i, x in enumerate(row)}}
            for file, row in zip(files, embeddings, strict=True)
        ]
        write_table(args.output, rows)
    print(f"{len(files)} embeddings of {embeddings.shape[1]} numbers are in {args.output}.")


def predict(args: argparse.Namespace) -> None:
    """Print a JSON line for every recording, or write a table with a row for every class that is named."""
    classifier = recognizer(args, MBTForSequenceClassification)
    files, predictions = classifier.predict(find_recordings(args.recordings), args.top_k)
    if args.output is None:
        for file, classes in zip(files, predictions, strict=True):
            print(json.dumps({"file": str(file), "predictions": classes}))
        return
    rows = [{"file": str(file), **one} for file, classes in zip(files, predictions, strict=True) for one in classes]
    write_table(args.output, rows)
    print(f"Predictions for {len(files)} recordings are in {args.output}.")


def verify(args: argparse.Namespace) -> None:
    """Print the cosine of two recordings with a decision, or the error rates of a list of pairs."""
    model = recognizer(args)
    if args.trials is not None:
        verify_trials(args, model)
        return
    files, embeddings = model.embed([Path(recording) for recording in args.recordings])
    if len(files) < 2:
        raise SystemExit("Both recordings must be readable.")
    score = float(cosine_scores(embeddings[:1], embeddings[1:])[0])
    threshold = model.model.config.verification_threshold if args.threshold is None else args.threshold
    result = {
        "score": score,
        "threshold": threshold,
        "same_speaker": None if threshold is None else score >= threshold,
    }
    print(json.dumps(result))
    if threshold is None:
        print("This checkpoint has no threshold: give --threshold, or find one by --trials.", file=sys.stderr)


def verify_trials(args: argparse.Namespace, model: Recognizer) -> None:
    """Score a list of pairs."""
    trials = read_trials(args.trials)
    names = sorted({name for trial in trials for name in (trial.first, trial.second)})
    files, embeddings = model.embed([args.trials_dir / name for name in names])
    rows = {file: row for row, file in enumerate(files)}
    trials = [t for t in trials if args.trials_dir / t.first in rows and args.trials_dir / t.second in rows]
    first, second = ([rows[args.trials_dir / name] for name in side] for side in list(zip(*trials, strict=True))[1:])
    scores = cosine_scores(embeddings[first], embeddings[second])
    rates = error_rates(scores, np.array([trial.same_speaker for trial in trials]))
    equal_error, threshold = rates.equal_error()
    result = {"trials": len(trials), "eer": equal_error, "min_dcf": rates.min_detection_cost(), "threshold": threshold}
    print(json.dumps(result))
    if args.save_threshold and not Path(args.model_name_or_path).is_dir():
        raise ValueError("A threshold is stored in a local folder: download the model first, or note the threshold.")
    if args.save_threshold:
        model.model.config.verification_threshold = threshold
        model.model.config.save_pretrained(args.model_name_or_path)
        print(f"The threshold is stored in {args.model_name_or_path}.", file=sys.stderr)


def recognizer(args: argparse.Namespace, *model_class) -> Recognizer:
    """Open the checkpoint."""
    return Recognizer(
        args.model_name_or_path,
        *model_class,
        device=args.device,
        batch_size=args.batch_size,
        max_length_seconds=args.max_length_seconds,
        on_bad_audio=args.on_bad_audio,
    )


if __name__ == "__main__":
    main()
