"""Write the representations of sound files to a .npz, .csv or .parquet file.

    mbt embed runs/mine recordings/ --output embeddings.npz

A .npz file holds `files` (N,) and `embeddings` (N, H); a table has a row for each recording.
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path

import numpy as np

from .sound_files import add_recordings, add_shared_arguments, find_recordings, open_recognizer, write_table


def add_arguments(parser: ArgumentParser) -> None:
    """Adds the command's arguments."""
    add_shared_arguments(parser)
    add_recordings(parser)
    parser.add_argument("--output", type=Path, required=True, help="file to write")


def main(args: Namespace) -> None:
    """Writes the representation of every recording."""
    files, embeddings = open_recognizer(args).embed(find_recordings(args.recordings))
    if args.output.suffix == ".npz":
        np.savez_compressed(args.output, files=np.array([str(file) for file in files]), embeddings=embeddings)
    else:
        rows = [
            {"file": str(file), **{f"embedding_{i}": float(x) for i, x in enumerate(row)}}
            for file, row in zip(files, embeddings, strict=True)
        ]
        write_table(args.output, rows)
    print(f"{len(files)} embeddings of {embeddings.shape[1]} numbers are in {args.output}.")
