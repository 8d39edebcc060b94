"""A folder of sound files as a `DatasetDict`: its recordings, labels and splits.

Labels are folder names, or stand in metadata files:

    folder/yes/1.wav                              label "yes"
    folder/train/yes/1.wav, folder/test/...       the same, in splits
    folder/metadata.csv (.jsonl, .parquet)        columns file_name and whatever else; or one in each split's folder
"""

import csv
import json
import logging
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Audio, Dataset, DatasetDict

from feature_extraction.sound_sources import AUDIO_SUFFIXES, files_below

from .splits import SPLIT_ALIASES, split_of

logger = logging.getLogger(__name__)

METADATA_NAMES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")


def scan_folder(folder: str | os.PathLike, *, allow_outside_paths: bool = False) -> DatasetDict:
    """Returns the sound files below a folder, sorted by path, with their labels, in splits if it has splits.

    Folders and files whose names start with a dot are passed over. Without metadata, ``label`` is the name of the
    topmost folder that tells recordings apart (below the split's), and ``parent_folder``, where folders are nested
    deeper, that of the folder the file lies in. With metadata, the columns are those of the metadata; recordings that
    it does not list are left out, with a warning, and files that it lists but that are missing stay in: reading them
    gives the `BadAudioError` that says so. With a column ``split``, all are in "train", whatever folders are called.

    Args:
        folder: the folder.
        allow_outside_paths: whether metadata may name files outside of their own folder; of somebody else's metadata
            that would be any file of this machine.

    Raises:
        ValueError: when the folder is missing or holds no recordings, when recordings lie beside the splits' folders,
            or when a metadata file cannot be read, has no ``file_name`` or names a file that it may not.
    """
    root = Path(folder)
    if not root.is_dir():
        raise ValueError(f"{root} is not a folder.")
    paths = sorted(files_below(root))
    metadata_files = [path for path in paths if path.name.lower() in METADATA_NAMES]
    recordings = [path for path in paths if path.suffix.lower() in AUDIO_SUFFIXES]
    columns: dict[str, list[Any]] = {"audio": [str(path) for path in recordings]}
    if metadata_files:
        columns = _read_metadata(metadata_files, recordings, allow_outside_paths)
    if not columns.get("audio"):
        raise ValueError(
            f"{root} holds no recordings: looked for {' '.join(AUDIO_SUFFIXES)} and for metadata.csv. A folder of "
            "parquet files, or one written by save_to_disk, is given with dataset_name."
        )
    places = [Path(os.path.relpath(path, root)).parent.parts for path in columns["audio"]]
    splits = ["train"] * len(places)
    if "split" not in columns:  # which says more than folders do
        splits, places = _splits_and_places(places, root)
    if not metadata_files:
        columns |= _folder_labels(places)
    dataset = _as_dataset(columns, root)
    rows = {split: [row for row, own in enumerate(splits) if own == split] for split in SPLIT_ALIASES}
    return DatasetDict({split: dataset.select(own_rows) for split, own_rows in rows.items() if own_rows})


def _splits_and_places(places: list[tuple[str, ...]], root: Path) -> tuple[list[str], list[tuple[str, ...]]]:
    """Returns the split of each recording, and its folders below the split's.

    A folder that holds everything says nothing and is passed over. Splits are folders only if every top folder has the
    name of one: in a set of keywords, "test" is a word.
    """
    places = _below_what_holds_everything(places)
    tops = {place[0]: split_of(place[0]) for place in places if place}
    if "train" not in tops.values() or None in tops.values():
        return ["train"] * len(places), places
    loose = sum(not place for place in places)
    if loose:
        raise ValueError(
            f"{root} holds the splits {', '.join(sorted(tops))} and {loose} recordings beside them: move them."
        )
    return [str(tops[place[0]]) for place in places], _below_what_holds_everything([place[1:] for place in places])


def _below_what_holds_everything(places: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    while all(len(place) > 1 for place in places) and len({place[0] for place in places}) == 1:
        places = [place[1:] for place in places]
    return places


def _folder_labels(places: list[tuple[str, ...]]) -> dict[str, list[str | None]]:
    labels = {}
    if any(places):
        labels["label"] = [place[0] if place else None for place in places]
    if any(len(place) > 1 for place in places):
        labels["parent_folder"] = [place[-1] if place else None for place in places]
    return labels


def _as_dataset(columns: dict[str, list[Any]], root: Path) -> Dataset:
    try:
        return Dataset.from_dict(columns).cast_column("audio", Audio(decode=False))
    except UnicodeEncodeError as error:
        raise ValueError(f"Rename {error.object!r}: names of files and folders must be UTF-8.") from error
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
        raise ValueError(
            f"A column of the metadata in {root} mixes types, or its numbers are too large: {error}."
        ) from error


def _read_metadata(
    metadata_files: list[Path], recordings: list[Path], allow_outside_paths: bool
) -> dict[str, list[Any]]:
    """Returns the columns of all metadata files together, with the paths of ``file_name`` as ``audio``."""
    if len({path.parent for path in metadata_files}) < len(metadata_files):
        raise ValueError(f"Keep one metadata file a folder: there are {', '.join(map(str, metadata_files))}.")
    rows = []
    tables = {path: _read_rows(path) for path in metadata_files}
    cells = [row for path, table in tables.items() if path.suffix.lower() == ".csv" for row in table]
    for column in {name for row in cells for name in row} - {"file_name"}:
        _type_cells([row for row in cells if column in row], column)
    for path, table in tables.items():
        for row in table:
            if not row.get("file_name") or "audio" in row:
                raise ValueError(
                    f"Every row of {path} must have a file_name (a path beside it), and none may have a column called "
                    f"audio: there is one with {row}."
                )
            named = os.path.normpath(path.parent / str(row.pop("file_name")))
            if not allow_outside_paths and not Path(named).is_relative_to(os.path.normpath(path.parent)):
                raise ValueError(
                    f"{path} names {named}, a file outside of its folder: if you trust it, allow that with "
                    "--allow_outside_paths."
                )
            rows.append({"audio": named, **row})
    counts = Counter(row["audio"] for row in rows)
    if twice := [path for path, count in counts.items() if count > 1]:
        raise ValueError(
            f"The metadata in {metadata_files[0].parent} lists {len(twice)} recordings more than once (first: "
            f"{twice[0]}): keep one row for each."
        )
    unlisted = sorted({os.path.normpath(path) for path in recordings} - {row["audio"] for row in rows})
    if unlisted:
        logger.warning("%d recordings are left out: no metadata lists them (first: %s).", len(unlisted), unlisted[0])
    columns = {column: None for row in rows for column in row}
    return {column: [row.get(column) for row in rows] for column in columns}


def _read_rows(path: Path) -> list[dict[str, Any]]:
    try:
        if path.suffix.lower() == ".parquet":
            return pq.read_table(path).to_pylist()
        with open(path, encoding="utf-8-sig", newline="") as file:
            if path.suffix.lower() == ".jsonl":
                return [dict(json.loads(line)) for line in file if line.strip()]
            reader = csv.DictReader(file, strict=True)
            names = reader.fieldnames or []
            if twice := [name for name, count in Counter(names).items() if count > 1]:
                raise ValueError(f"it has more than one column {twice[0]!r}")
            rows = list(reader)
            if any(None in row for row in rows):
                raise ValueError("a line has more cells than the first; quote cells that hold commas")
    except (ValueError, TypeError, RecursionError, OSError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    return rows


def _type_cells(rows: list[dict[str, Any]], column: str) -> None:
    """Converts empty cells of a csv column to missing values, and whole numbers to numbers; "007" stays a string."""
    filled = [row for row in rows if row[column]]
    is_whole = all(re.fullmatch(r"-?[1-9]\d{,17}|0", row[column]) for row in filled)
    for row in rows:
        row[column] = (int(row[column]) if is_whole else row[column]) if row[column] else None
