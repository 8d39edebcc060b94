"""Write the representations of sound files to a .npz, .csv or .parquet file.

    mbt embed runs/mine recordings/ --output embeddings.npz

A .npz file contains the arrays `files` (recordings,) and `embeddings` (recordings, width); a table has a row for each
recording. With `--each_window`, recordings that are longer than a window have several rows, with `start_seconds` and
`end_seconds`.
"""

from argparse import ArgumentParser, Namespace
from typing import Any

import numpy as np

from .output_files import TABLE_SUFFIXES, add_output, check_output, printable, write_table, write_whole
from .sound_files import (
    add_recordings,
    add_shared_arguments,
    check_headers,
    find_recordings,
    open_recognizer,
    report_bad_audio,
)


def add_arguments(parser: ArgumentParser) -> None:
    """Adds the command's arguments."""
    add_shared_arguments(parser)
    add_recordings(parser)
    add_output(parser, required=True, help="file to write: .npz, .csv or .parquet")


def main(args: Namespace) -> None:
    """Writes the representation of every recording."""
    check_output(args.output, (".npz", *TABLE_SUFFIXES))
    recordings = find_recordings(args.recordings)
    check_headers(recordings, args.on_bad_audio)
    recognizer = open_recognizer(args)
    windows = recognizer.embed_windows(recordings)
    files, embeddings = (windows.files, windows.values) if args.each_window else windows.averaged()
    columns: dict[str, Any] = {"files": np.array([printable(file) for file in files])}
    if args.each_window:
        columns |= {"start_seconds": windows.starts, "end_seconds": windows.ends}
    if args.output.suffix == ".npz":
        write_whole(args.output, lambda file: np.savez_compressed(file, **columns, embeddings=embeddings))
    else:
        columns = {"file": columns.pop("files"), **columns}
        columns |= {f"embedding_{i}": column for i, column in enumerate(embeddings.T)}
        rows = zip(*(column.tolist() for column in columns.values()), strict=True)
        write_table(args.output, [dict(zip(columns, row, strict=True)) for row in rows])
    print(f"{len(files)} embeddings of {embeddings.shape[1]} numbers are in {args.output}.")
    report_bad_audio(args, recognizer.left_out, str(args.output))
