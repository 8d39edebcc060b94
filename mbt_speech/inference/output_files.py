"""The files that commands write: checked before the work, and under their names only when they are whole."""

import csv
import io
import os
import tempfile
import uuid
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from mbt_speech.user_errors import require

Rows = list[dict[str, Any]]
TABLE_SUFFIXES = (".csv", ".parquet")


def add_output(parser: ArgumentParser, *, required: bool, help: str) -> None:
    """Adds the argument that names the file."""
    parser.add_argument("--output", type=Path, required=required, help=help)


def check_output(path: Path, suffixes: Sequence[str]) -> None:
    """Sees to it that a file can be written, before the work whose result it is to hold.

    Raises:
        ValueError: Its name ends in none of the suffixes, or nothing can be written there.
        ImportError: What writes parquet is not installed.
    """
    if path.suffix not in suffixes:
        raise ValueError(f"--output {path} must end in {' or '.join(suffixes)}.")
    if path.is_dir():
        raise ValueError(f"--output {path} is a folder: name a file in it.")
    if not path.parent.is_dir():
        raise ValueError(f"The folder of --output {path} does not exist: create it, or name another.")
    if path.suffix == ".parquet":
        require("pyarrow", "train", "A .parquet file")
        require("pandas", "train", "A .parquet file")
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise ValueError(f"--output {path} cannot be written: {error.strerror}.") from None


def write_whole(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """Writes a file under another name, and renames it when it is on the disk.

    Raises:
        ValueError: It cannot be written; what was there before is untouched.
    """
    partial = path.with_name(f".{uuid.uuid4().hex}.partial")
    try:
        with partial.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        raise ValueError(f"{path} cannot be written: {error.strerror or error}.") from error
    finally:
        partial.unlink(missing_ok=True)


def write_table(path: Path, rows: Rows) -> None:
    """Writes rows of one kind to a .csv or .parquet file; errors as of `write_whole`."""
    if path.suffix == ".parquet":
        table = require("pandas", "train", "A .parquet file").DataFrame(rows)
        write_whole(path, lambda file: table.to_parquet(file))
    else:
        write_whole(path, lambda file: _write_csv(file, rows))


def _write_csv(file: BinaryIO, rows: Rows) -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    writer = csv.DictWriter(text, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    text.flush()
    text.detach()


def printable(path: Path) -> str:
    r"""Returns a file's name as text; bytes of it that are not UTF-8 as `\xff`."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
