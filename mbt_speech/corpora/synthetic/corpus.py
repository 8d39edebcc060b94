"""Build the corpus of synthetic speech that the demo and the tests use, and print what it contains.

    mbt prepare synthetic --size small --output_dir data/synthetic

`load_corpus("small")` returns a `DatasetDict` of two splits: `unlabelled`, sentences for pre-training; and `labelled`,
the 35 words of Speech Commands by *other* speakers in one-second clips, with labels. espeak-ng speaks them; synthetic
rooms, microphones and noise are added. Results on this corpus compare methods and say nothing about real voices.
"""

import csv
import json
import os
import tempfile
from argparse import ArgumentParser, Namespace
from importlib import metadata
from pathlib import Path
from typing import Any

import datasets.config
from datasets import ClassLabel, Dataset, DatasetDict
from tqdm.auto import tqdm

from mbt_speech.closing_line import closing_line
from mbt_speech.user_errors import require

from .build import build_corpus
from .degradation import SAMPLING_RATE
from .plan import SIZES

# Raise it with every change of the sound: it is part of the cache's key.
CORPUS_VERSION = 3
WAV_HEADER_BYTES, BYTES_PER_SAMPLE = 44, 2


def load_corpus(
    size: str = "small", *, cache_dir: str | os.PathLike | None = None, num_proc: int | None = None
) -> DatasetDict:
    """Loads the built-in synthetic corpus, synthesising it on first use.

    Args:
        size: "tiny" (tests), "small" (the demo) or "base".
        cache_dir: where built corpora are kept; by default a folder in the Hugging Face datasets cache.
        num_proc: helper processes at once; by default one per CPU. The result is the same to the bit.

    Returns:
        `unlabelled` with `audio` and `utterance_id`; `labelled` with `audio`, the ClassLabels `speaker`, `gender`,
        `keyword` and `style`, `phones` (a list of `phone`, `start_seconds`, `end_seconds`), `take`, `room`, and two
        ways to divide it into train, validation and test: `split` by speaker, `speaker_split` by take and by room.
        Audio is 16 kHz mono wav in bytes.

    Raises:
        ValueError: for a size that does not exist.
        ImportError: without espeakng-loader.
    """
    if size not in SIZES:
        raise ValueError(
            f"The built-in corpus comes in the sizes {', '.join(SIZES)}: choose one of them, not {size!r}."
        )
    library, data, espeak_version = _find_espeak()
    cache = Path(cache_dir or Path(datasets.config.HF_DATASETS_CACHE) / "mbt_synthetic_corpus").resolve()
    path = cache / f"{size}-v{CORPUS_VERSION}-espeakng-{espeak_version}"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=cache) as workplace:
            corpus = build_corpus(SIZES[size], library, data, Path(workplace), num_proc or _available_cpus())
            _publish(corpus, Path(workplace) / "corpus", path)
    return DatasetDict.load_from_disk(path)


def export_corpus(corpus: DatasetDict, directory: str | os.PathLike) -> None:
    """Writes a corpus as wav files, each split in a folder of its own with a `metadata.csv`.

    The columns of metadata.csv are `file_name` and the labels: ClassLabels by name, phones as JSON.
    """
    for part, dataset in corpus.items():
        folder = Path(directory) / str(part)
        folder.mkdir(parents=True, exist_ok=True)
        columns = ["audio", *(name for name in dataset.features if name != "audio")]
        features = [dataset.features[name] for name in columns[1:]]
        with open(folder / "metadata.csv", "w", newline="", encoding="utf-8") as stream:
            rows = csv.writer(stream)
            rows.writerow(["file_name", *columns[1:]])
            for row in tqdm(dataset, desc=f"Writing {folder}", unit="clip"):
                audio, *labels = (row[name] for name in columns)
                (folder / audio["path"]).write_bytes(audio["bytes"])
                rows.writerow([audio["path"], *map(_as_string, labels, features)])


def corpus_summary(corpus: DatasetDict) -> str:
    """Returns a few lines about how much there is of what."""
    features = corpus["labelled"].features
    classes = ", ".join(f"{features[name].num_classes} {name}s" for name in ("speaker", "keyword", "style"))
    parts = [f"{part}: {len(dataset)} clips, {_hours(dataset):.2f} hours" for part, dataset in corpus.items()]
    return "\n".join(["synthetic speech (espeak-ng), 16 kHz mono", *parts, f"labels: {classes}"])


def add_arguments(parser: ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("--size", choices=list(SIZES), default="small", help="size of the corpus (default: small)")
    parser.add_argument("--output_dir", help="folder to write the corpus to, as wav files with metadata.csv")
    parser.add_argument("--num_proc", type=int, help="number of helper processes (default: one for each CPU)")


def main(args: Namespace) -> None:
    """Builds the corpus, and exports it where asked to."""
    corpus = load_corpus(args.size, num_proc=args.num_proc)
    print(corpus_summary(corpus))
    result = "The corpus is in the cache"
    words = ["--dataset_name", "synthetic", "--dataset_config_name", args.size]
    if args.output_dir:
        export_corpus(corpus, args.output_dir)
        result = f"The corpus is in {args.output_dir}"
        words = ["--train_dir", Path(args.output_dir, "unlabelled")]
    print(closing_line(result, "python", "run_pretrain.py", *words, "--output_dir", "runs/mine"))


def _find_espeak() -> tuple[Path, Path, str]:
    """Returns espeak-ng's shared library, its data folder and the version of the package that brings them."""
    espeakng_loader = require("espeakng_loader", "demo", "The corpus of synthetic speech")
    return (
        Path(espeakng_loader.get_library_path()),
        Path(espeakng_loader.get_data_path()),
        metadata.version("espeakng-loader"),
    )


def _available_cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _publish(corpus: DatasetDict, staging: Path, path: Path) -> None:
    """Saves aside and renames: a corpus under its own name is whole. Who comes second keeps what is there."""
    corpus.save_to_disk(staging)
    try:
        staging.rename(path)
    except OSError:
        if not path.exists():
            raise


def _as_string(value: Any, feature: object) -> str:
    if isinstance(feature, ClassLabel):
        return feature.names[value]
    return json.dumps(value) if isinstance(value, list) else str(value)


def _hours(dataset: Dataset) -> float:
    num_bytes = sum(len(audio["bytes"]) - WAV_HEADER_BYTES for audio in dataset["audio"])
    return num_bytes / BYTES_PER_SAMPLE / SAMPLING_RATE / 3600
