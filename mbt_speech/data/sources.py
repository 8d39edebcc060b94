"""From the scripts' arguments to recordings that can be read."""

import contextlib
import fcntl
from dataclasses import replace
from pathlib import Path

from accelerate import Accelerator
from datasets import Dataset, DatasetDict, IterableDataset, interleave_datasets

from mbt_speech.arguments import SYNTHETIC, PretrainArguments
from mbt_speech.corpora.synthetic.corpus import load_corpus
from mbt_speech.run_arguments import RunArguments

from .recording_index import RecordingIndex, index_recordings
from .recordings import as_plain_audio, load_recordings, load_stream

BAD_AUDIO_NAME = "bad_audio.txt"


def source(args: RunArguments) -> str:
    """Returns the name of the data, or of all that are mixed, without the folders above them."""
    others = args.interleave_datasets if isinstance(args, PretrainArguments) else []
    return ", ".join([_first_source(args), *map(_without_folders, others)])


def _without_folders(name: str) -> str:
    return Path(name).name if Path(name).exists() else name


def _first_source(args: RunArguments) -> str:
    if args.train_dir is not None:
        return Path(args.train_dir).resolve().name
    if args.dataset_name == SYNTHETIC:
        return f"the built-in corpus of synthetic speech ({args.dataset_config_name or 'small'})"
    name = _without_folders(args.dataset_name or "")
    return " ".join(word for word in (name, args.dataset_config_name, args.train_split_name) if word)


def open_recordings(args: RunArguments, accelerator: Accelerator) -> tuple[DatasetDict, str]:
    """Opens what the arguments name; one process downloads, the others wait.

    Returns:
        The splits, or with `--train_split_name` that one alone as "train", and the audio column.

    Raises:
        ValueError: There is no such split, or nothing to read.
    """
    with accelerator.main_process_first():
        if args.dataset_name == SYNTHETIC:
            splits, audio_column = load_corpus(args.dataset_config_name or "small"), "audio"
        elif args.dataset_name is not None:  # loads no other split than the one that is named
            return load_recordings(
                dataset_name=args.dataset_name,
                dataset_config_name=args.dataset_config_name,
                split=args.train_split_name,
                audio_column_name=args.audio_column_name,
                revision=args.dataset_revision,
                token=args.hub_token,
                allow_outside_paths=args.allow_outside_paths,
            )
        else:
            splits, audio_column = load_recordings(
                args.train_dir,
                audio_column_name=args.audio_column_name,
                allow_outside_paths=args.allow_outside_paths,
            )
    if args.train_split_name is not None:
        splits = DatasetDict({"train": choose_split(splits, args.train_split_name)})
    return splits, audio_column


def open_unlabeled(args: PretrainArguments, accelerator: Accelerator) -> tuple[Dataset | IterableDataset, str]:
    """Opens what pre-training reads, one data set or a mix of several, as a stream or not, with its audio column.

    Raises:
        ValueError: There is no such split, or nothing to read.
    """
    if not args.streaming and not args.interleave_datasets:
        splits, audio_column = open_recordings(args, accelerator)
        return choose_split(splits, "unlabelled", "train"), audio_column
    names = [args.dataset_name or args.train_dir, *args.interleave_datasets]
    opened = []
    for number, name in enumerate(names):
        own = args if number == 0 else replace(
            args, dataset_name=name, train_dir=None, dataset_config_name=None, dataset_revision=None
        )  # fmt: skip
        if args.streaming:
            recordings, audio_column = load_stream(
                str(name),
                own.dataset_config_name,
                split=args.train_split_name or "train",
                audio_column_name=args.audio_column_name,
                revision=own.dataset_revision,
                token=args.hub_token,
            )
        else:
            splits, audio_column = open_recordings(own, accelerator)
            recordings = choose_split(splits, "unlabelled", "train")
        # One column of one type, whatever the data sets have beside it.
        recordings = recordings.select_columns([audio_column])
        recordings = recordings if audio_column == "audio" else recordings.rename_column(audio_column, "audio")
        opened.append(as_plain_audio(recordings, "audio"))
    if len(opened) == 1:
        return opened[0], "audio"
    mixed = interleave_datasets(
        opened, args.interleave_probabilities or None, seed=args.seed, stopping_strategy="all_exhausted"
    )
    return mixed, "audio"


def choose_split(splits: DatasetDict, *names: str) -> Dataset:
    """Returns the first of the named splits that exists.

    Raises:
        ValueError: There is none.
    """
    for name in names:
        if name in splits:
            return splits[name]
    raise ValueError(
        f"There is no split {' or '.join(names)}: choose one of {', '.join(map(str, splits))} with --train_split_name."
    )


def index_speech(
    args: RunArguments,
    accelerator: Accelerator,
    recordings: Dataset,
    audio_column: str,
    sampling_rate: int,
    *,
    decode: bool,
) -> RecordingIndex:
    """Measures the recordings; lists those that `--on_bad_audio skip` leaves out in `bad_audio.txt`.

    Args:
        args: The run.
        accelerator: One process measures, the others read its result.
        recordings: What to measure.
        audio_column: Where their audio is.
        sampling_rate: Of recordings that are arrays without one, in Hz.
        decode: Read every recording to its end, to find damage that its header does not tell of.
    """
    with accelerator.main_process_first():
        index = index_recordings(
            recordings, audio_column, sampling_rate=sampling_rate, on_bad_audio=args.on_bad_audio, decode=decode
        )
    report_bad_audio(args, index.bad)
    return index


def report_bad_audio(args: RunArguments, bad: list[tuple[str, str]]) -> None:
    """Adds recordings that were skipped to `bad_audio.txt`, each once, and prints how many there are.

    Any process may call it, with what it has found.
    """
    if not bad:
        return
    path = Path(args.output_dir) / BAD_AUDIO_NAME
    with path.open("a+", encoding="utf-8") as file:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.lockf(file, fcntl.LOCK_EX)
        file.seek(0)
        known = file.read().splitlines()
        lines = sorted({*known, *(f"{name}\t{reason}" for name, reason in bad)})
        if len(lines) > len(known):
            file.truncate(0)
            file.writelines(line + "\n" for line in lines)
            print(f"{len(lines)} recordings cannot be read and are skipped: see {path}.", flush=True)
