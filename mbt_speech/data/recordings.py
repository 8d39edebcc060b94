"""Sets of recordings: a folder, a data set on disk or on the Hub, as a `DatasetDict` whose audio is not decoded here.

``load_dataset("audiofolder")`` needs FFmpeg, so plain sound files are found by `scan_folder`, also those of a data set
on the Hub.
"""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from datasets import (
    Audio,
    Dataset,
    DatasetDict,
    Features,
    IterableDataset,
    Value,
    load_dataset,
    load_dataset_builder,
    load_from_disk,
)
from datasets.exceptions import DatasetBuildError
from huggingface_hub import snapshot_download

from mbt_speech.user_errors import as_sentence, looks_local

from .recording_folder import METADATA_NAMES, scan_folder

logger = logging.getLogger(__name__)

PLAIN_AUDIO: Any = {"bytes": Value("binary"), "path": Value("string")}


def load_recordings(
    train_dir: str | os.PathLike | None = None,
    dataset_name: str | None = None,
    dataset_config_name: str | None = None,
    *,
    split: str | None = None,
    audio_column_name: str | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | None = None,
    allow_outside_paths: bool = False,
) -> tuple[DatasetDict, str]:
    """Returns recordings and the name of their audio column.

    Args:
        train_dir: a folder of sound files; or
        dataset_name: a data set on the Hub, a local folder of parquet files, or one written by ``save_to_disk``.
        dataset_config_name: which configuration of it.
        split: which split of it, by default all; of parquet files and on the Hub also several, as ``load_dataset`` has
            them ("train.100+train.360").
        audio_column_name: where the audio is; by default the column of type ``Audio``, or the one called "audio".
        revision: branch, tag or commit of a data set on the Hub.
        token: for a private data set on the Hub.
        cache_dir: where data sets from the Hub are kept, instead of the cache of `datasets`.
        allow_outside_paths: whether the metadata of a local folder may name files outside of it.

    Returns:
        The splits (all in "train" where there are none), and the audio column. Its values go to `to_waveform` as they
        are: they are not decoded by `datasets`.

    Raises:
        ValueError: when there is nothing to read, or the layout or the audio column is not clear.
    """
    if (train_dir is None) == (dataset_name is None):
        raise ValueError("Name one source of recordings: train_dir (a folder) or dataset_name (a data set).")
    if train_dir is not None:
        dataset = scan_folder(train_dir, allow_outside_paths=allow_outside_paths)
    elif os.path.isdir(str(dataset_name)):
        dataset = _load_local(str(dataset_name), dataset_config_name, split, cache_dir, allow_outside_paths)
    else:
        dataset = _load_from_hub(str(dataset_name), dataset_config_name, split, revision, token, cache_dir)
    audio_column = find_audio_column(next(iter(dataset.values())), audio_column_name)
    return _without_decoding(dataset), audio_column


def load_stream(
    dataset_name: str,
    dataset_config_name: str | None = None,
    *,
    split: str,
    audio_column_name: str | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
) -> tuple[IterableDataset, str]:
    """Opens one split of a data set without downloading it; returns it with the name of its audio column.

    Args:
        dataset_name: a data set on the Hub, or a local folder of parquet or tar files.
        dataset_config_name: which configuration of it.
        split: which split of it.
        audio_column_name: where the audio is; by default as in `load_recordings`.
        revision: branch, tag or commit of a data set on the Hub.
        token: for a private data set on the Hub.

    Raises:
        ValueError: when there is no such split, or the audio column is not clear.
    """
    source = {}
    if not os.path.isdir(dataset_name):
        _check_name(dataset_name)
        source = {"revision": revision, "token": token}
    elif _is_saved_to_disk(Path(dataset_name)):
        raise ValueError(
            f"{dataset_name} was written by `save_to_disk`, which is not streamed: leave --streaming out."
        )
    stream = load_dataset(dataset_name, dataset_config_name, split=split, streaming=True, **source)
    if stream.features is None:
        stream = stream._resolve_features()
    audio_column = find_audio_column(stream, audio_column_name)
    return as_plain_audio(stream, audio_column), audio_column


def as_plain_audio(recordings: Any, audio_column: str) -> Any:
    """Returns recordings whose audio is not decoded: bytes or a path, and arrays where it is arrays.

    Args:
        recordings: A `Dataset`, or a stream.
        audio_column: Where their audio is.

    Raises:
        ValueError: Their audio is arrays without a sampling rate, or no audio at all.
    """
    feature = (recordings.features or {})[audio_column]
    if isinstance(feature, Mapping) and "array" in feature:
        return recordings
    if isinstance(feature, Value) and feature.dtype in ("string", "large_string"):  # paths
        features = Features({**recordings.features, audio_column: PLAIN_AUDIO})
        return recordings.map(
            lambda path: {audio_column: {"bytes": None, "path": path}}, input_columns=audio_column, features=features
        )
    if not (isinstance(feature, Audio) or _looks_like_audio(feature)):
        raise ValueError(
            f"The column {audio_column!r} cannot be streamed or mixed with others: its audio must be of the type "
            "`Audio`, paths, or structs of bytes and path or of array and sampling_rate."
        )
    # Not `Audio(decode=False)`, which asks for torchcodec even where there is nothing to encode.
    return recordings.cast_column(audio_column, PLAIN_AUDIO)


def find_audio_column(dataset: Dataset | IterableDataset, audio_column_name: str | None = None) -> str:
    """Returns the audio column: the one asked for, or the only one of type ``Audio``, or the one called "audio"."""
    columns = list(dataset.features or {})
    if audio_column_name is not None:
        if audio_column_name not in columns:
            raise ValueError(f"There is no column {audio_column_name!r}: the columns are {', '.join(columns)}.")
        return audio_column_name
    found = [name for name, feature in (dataset.features or {}).items() if isinstance(feature, Audio)]
    found = found or [name for name, feature in (dataset.features or {}).items() if _looks_like_audio(feature)]
    if "audio" in found or (not found and "audio" in columns):
        return "audio"
    if len(found) != 1:
        raise ValueError(
            f"The audio column is not clear: name it with audio_column_name. The columns are {', '.join(columns)}."
        )
    return found[0]


def _looks_like_audio(feature: Any) -> bool:
    return isinstance(feature, Mapping) and (
        {"bytes", "path"} <= set(feature) or {"array", "sampling_rate"} <= set(feature)
    )


def _load_local(
    folder: str, config_name: str | None, split: str | None, cache_dir: str | None, allow_outside_paths: bool
) -> DatasetDict:
    root = Path(folder)
    if _is_saved_to_disk(root):
        _warn_of_config(folder, config_name)
        with _damage_named(folder):
            return _chosen(_as_splits(load_from_disk(folder)), split)
    if {path.name for path in root.rglob("*.parquet")} - {*METADATA_NAMES}:
        with _damage_named(folder):
            return _as_splits(load_dataset(folder, config_name, split=split, cache_dir=cache_dir))
    _warn_of_config(folder, config_name)
    return _chosen(scan_folder(folder, allow_outside_paths=allow_outside_paths), split)


def _warn_of_config(source: str, config_name: str | None) -> None:
    """Says that a configuration is not used: a recipe may name one, and the command line a copy without any."""
    if config_name is not None:
        logger.warning("%s has no configurations: --dataset_config_name %s is not used.", source, config_name)


def _is_saved_to_disk(folder: Path) -> bool:
    return (folder / "dataset_dict.json").exists() or (folder / "state.json").exists()


def _check_name(name: str) -> None:
    """Refuses a folder that is not there, before the Hub is asked for it."""
    if looks_local(name):
        raise ValueError(f"There is no folder {name}: name one, or a data set on the Hub.")


def _load_from_hub(
    name: str,
    config_name: str | None,
    split: str | None,
    revision: str | None,
    token: str | bool | None,
    cache_dir: str | None,
) -> DatasetDict:
    _check_name(name)
    source = {"revision": revision, "token": token, "cache_dir": cache_dir}
    builder = load_dataset_builder(name, config_name, **source)
    if builder.name == "audiofolder":  # plain sound files, which `datasets` reads with FFmpeg only
        _warn_of_config(name, config_name)
        return _chosen(scan_folder(snapshot_download(name, repo_type="dataset", **source)), split)
    with _damage_named(name):
        return _as_splits(load_dataset(name, config_name, split=split, **source))


@contextmanager
def _damage_named(name: str) -> Iterator[None]:
    """Says which data set it is whose files are damaged or do not belong together, and what is wrong with them."""
    try:
        yield
    except (DatasetBuildError, KeyError) as error:
        cause = error.__cause__ or error
        reason = f"{type(cause).__name__}: {as_sentence(cause)}"
        raise ValueError(f"The data set {name} cannot be read: {reason}") from error


def _chosen(splits: DatasetDict, split: str | None) -> DatasetDict:
    if split is None:
        return splits
    if split not in splits:
        raise ValueError(f"There is no split {split!r}: there are {', '.join(map(str, splits))}.")
    return DatasetDict({"train": splits[split]})


def _as_splits(dataset: Any) -> DatasetDict:
    return dataset if isinstance(dataset, DatasetDict) else DatasetDict({"train": dataset})


def _without_decoding(dataset: DatasetDict) -> DatasetDict:
    for column, feature in next(iter(dataset.values())).features.items():
        if isinstance(feature, Audio):
            dataset = dataset.cast_column(column, Audio(sampling_rate=feature.sampling_rate, decode=False))
    return dataset
