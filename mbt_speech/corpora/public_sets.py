"""Write a metadata file for an unpacked public data set, with labels and splits, to give its folder as `--train_dir`.

    mbt prepare speech_commands data/speech_commands_v0.02 --output_dir data/commands_35

The recordings stay where they are. `docs/datasets.md` says where to get each data set, and which files it needs.
"""

import csv
import json
import os
import re
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf

from feature_extraction.sound_sources import files_below
from mbt_speech.closing_line import closing_line

from .timit import read_timit

Rows = list[dict[str, Any]]
"""A row for each recording: `file_name` (its path), labels, and splits (train, validation, test)."""

COMMANDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
UNKNOWN, SILENCE = "_unknown_", "_silence_"
CREMA_D_EMOTIONS = {
    "ANG": "anger", "DIS": "disgust", "FEA": "fear", "HAP": "happiness", "NEU": "neutral", "SAD": "sadness",
}  # fmt: skip
GENDERS = {"F": "female", "M": "male"}
RAVDESS_EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
VALIDATION_SHARE, TEST_SHARE = 0.1, 0.2  # of the speakers, where a set names no splits
BLOCK_SHARE = 0.1  # of a speaker's clips, for validation and for the test each


def add_arguments(parser: ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("folder", type=Path, help="folder of the unpacked data set")
    parser.add_argument(
        "--output_dir", type=Path, required=True, help="folder for the metadata file, later the --train_dir"
    )
    parser.add_argument("--test_dir", type=Path, help="for speech_commands_12: folder of its unpacked test set")


def main(args: Namespace) -> None:
    """Describes a set."""
    if (args.test_dir is not None) != (args.set == "speech_commands_12"):
        raise ValueError("--test_dir belongs to speech_commands_12, which needs it.")
    folders = [args.folder] if args.test_dir is None else [args.folder, args.test_dir, args.output_dir]
    try:
        rows = READERS[args.set](*folders)
    except (OSError, ValueError, LookupError, sf.SoundFileError) as error:
        raise ValueError(
            f"{args.folder} is not laid out as docs/datasets.md says of {args.set}: {error!r}."
        ) from error
    if not rows:
        raise ValueError(
            f"{args.folder} holds no recordings of {args.set}: name the folder that docs/datasets.md shows."
        )
    result = f"{len(rows)} recordings stay where they are, listed in {write_metadata(args.output_dir, rows)}"
    words = ("--train_dir", args.output_dir, "--allow_outside_paths", "--output_dir", "runs/mine")
    print(closing_line(result, "python", "run_pretrain.py", *words))


def write_metadata(output_dir: Path, rows: Rows) -> Path:
    """Writes rows to `metadata.csv`, or to `metadata.jsonl` if they hold segments, and returns its path."""
    output_dir.mkdir(parents=True, exist_ok=True)
    rows = [{**row, "file_name": os.path.relpath(row["file_name"], output_dir)} for row in rows]
    if any(isinstance(value, list) for value in rows[0].values()):
        path = output_dir / "metadata.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path
    path = output_dir / "metadata.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def speech_commands(folder: Path) -> Rows:
    """Reads Speech Commands v2, 35 words (arXiv 1804.03209); splits are those of its two lists."""
    parts = _listed_parts(folder)
    return [
        {"file_name": path, "keyword": path.parent.name, "speaker": path.name.split("_")[0], "split": parts(path)}
        for path in _sounds(folder)
        if not path.parent.name.startswith("_")
    ]


def speech_commands_12(folder: Path, test_folder: Path, output_dir: Path) -> Rows:
    """Reads Speech Commands v2, ten words, `_unknown_` and `_silence_`, tested on the set that was made for that.

    Of the 25 other words, as many clips are drawn for training and validation as a word has on average; silence is
    the recordings of background noise, cut into seconds below `output_dir`.
    """
    rows = [row for row in speech_commands(folder) if row["split"] != "test"]
    known = [row for row in rows if row["keyword"] in COMMANDS]
    others = [{**row, "keyword": UNKNOWN} for row in rows if row["keyword"] not in COMMANDS]
    for part in ("train", "validation"):
        number = sum(row["split"] == part for row in known) // len(COMMANDS)
        of_part = [row for row in others if row["split"] == part]
        chosen = np.random.default_rng(0).permutation(len(of_part))[:number]
        known += [of_part[index] for index in sorted(chosen)]
    test = [
        {"file_name": path, "keyword": path.parent.name, "speaker": path.name.split("_")[0], "split": "test"}
        for path in _sounds(test_folder)
    ]
    if not test:
        raise ValueError(f"{test_folder} holds no recordings: name the folder of the test set's archive.")
    return known + _cut_silence(folder / "_background_noise_", output_dir / SILENCE) + test


def voxceleb1(folder: Path) -> Rows:
    """Reads VoxCeleb-1: speakers, in the splits for identification of `iden_split.txt` (`split`).

    With `vox1_meta.csv` also their gender, in splits by speaker (`speaker_split`).
    """
    numbers = {"1": "train", "2": "validation", "3": "test"}
    rows = []
    for line in _read_lines(folder / "iden_split.txt"):
        number, name = line.split()
        path = folder / "wav" / name
        rows.append({"file_name": path, "speaker": name.split("/")[0], "split": numbers[number]})
    if (folder / "vox1_meta.csv").is_file():
        lines = [line.split("\t") for line in _read_lines(folder / "vox1_meta.csv")]
        speaker_column, gender_column = (lines[0].index(name) for name in ("VoxCeleb1 ID", "Gender"))
        genders = {line[speaker_column]: GENDERS[line[gender_column].upper()] for line in lines[1:]}
        rows = [{**row, "gender": genders[row["speaker"]]} for row in rows]
        rows = _split_by_speaker(rows, "speaker_split")
    return rows


def librispeech(folder: Path) -> Rows:
    """Reads LibriSpeech (the folder of `SPEAKERS.TXT`): speakers and gender, in its own splits by speaker."""
    fields = [line.split("|") for line in _read_lines(folder / "SPEAKERS.TXT") if not line.startswith(";")]
    genders = {speaker.strip(): GENDERS[gender.strip()] for speaker, gender, *_ in fields}
    rows = []
    for path in _sounds(folder):
        subset, speaker, chapter = path.relative_to(folder).parts[:3]
        part = {"train": "train", "dev": "validation", "test": "test"}[subset.split("-")[0]]
        rows.append(
            {"file_name": path, "speaker": speaker, "chapter": chapter, "gender": genders[speaker], "split": part}
        )
    return rows


def five_leaders(folder: Path) -> Rows:
    """Clips of one second cut from speeches, a folder for each speaker: splits drawn at random, and in blocks.

    Clips that follow one another are of one speech, so that a random test split is all but seen in training.
    `block_split` leaves the last clips of every speaker for the test, those before them for validation.
    """
    rows = []
    generator = np.random.default_rng(0)
    for speaker_folder in sorted(path for path in folder.iterdir() if path.is_dir()):
        if speaker_folder.name in ("other", "_background_noise_"):
            continue
        paths = sorted(_sounds(speaker_folder), key=_natural_key)
        if not paths:
            continue
        if len(paths) < 3:
            raise ValueError(f"{speaker_folder} holds fewer than three clips, one for each split")
        in_blocks = _blocks(len(paths))
        at_random = generator.permutation(np.array(in_blocks))
        rows += [
            {"file_name": path, "speaker": speaker_folder.name, "random_split": str(drawn), "block_split": block}
            for path, drawn, block in zip(paths, at_random, in_blocks, strict=True)
        ]
    return rows


def crema_d(folder: Path) -> Rows:
    """Reads CREMA-D (the folder of `AudioWAV`): six emotions, in splits by actor that are drawn here."""
    rows = []
    for path in _sounds(folder / "AudioWAV"):
        actor, _, emotion, _ = path.stem.split("_")
        rows.append({"file_name": path, "speaker": actor, "emotion": CREMA_D_EMOTIONS[emotion]})
    if (folder / "VideoDemographics.csv").is_file():
        with (folder / "VideoDemographics.csv").open(newline="", encoding="utf-8-sig") as file:
            genders = {row["ActorID"]: row["Sex"].lower() for row in csv.DictReader(file)}
        rows = [{**row, "gender": genders[row["speaker"]]} for row in rows]
    return _split_by_speaker(rows, "split")


def ravdess(folder: Path) -> Rows:
    """Reads RAVDESS, speech: eight emotions, in splits by actor that are drawn here; odd actors are men."""
    rows = []
    for path in _sounds(folder):
        _, channel, emotion, intensity, _, _, actor = path.stem.split("-")
        if channel == "01":
            rows.append(
                {
                    "file_name": path,
                    "speaker": actor,
                    "gender": ("female", "male")[int(actor) % 2],
                    "emotion": RAVDESS_EMOTIONS[int(emotion) - 1],
                    "intensity": ("normal", "strong")[int(intensity) - 1],
                }
            )
    return _split_by_speaker(rows, "split")


READERS: dict[str, Callable[..., Rows]] = {
    "crema_d": crema_d,
    "five_leaders": five_leaders,
    "librispeech": librispeech,
    "ravdess": ravdess,
    "speech_commands": speech_commands,
    "speech_commands_12": speech_commands_12,
    "timit": read_timit,
    "voxceleb1": voxceleb1,
}


def _sounds(folder: Path) -> list[Path]:
    return sorted(path for path in files_below(folder) if path.suffix.lower() in (".wav", ".flac"))


def _read_lines(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _listed_parts(folder: Path) -> Callable[[Path], str]:
    lists = {"validation": "validation_list.txt", "test": "testing_list.txt"}
    parts = {name: part for part, file in lists.items() for name in _read_lines(folder / file)}
    return lambda path: parts.get(path.relative_to(folder).as_posix(), "train")


def _cut_silence(folder: Path, output_dir: Path) -> Rows:
    """Cuts recordings into seconds: of each the last tenth for validation, what is before it for training."""
    recordings = _sounds(folder)
    if not recordings:
        raise ValueError(f"{folder} has no recordings of background noise: is the set complete?")
    output_dir.mkdir(parents=True, exist_ok=True)
    rows = []
    for path in recordings:
        samples, rate = sf.read(path, dtype="int16")
        number = len(samples) // rate
        for second in range(number):
            piece = output_dir / f"{path.stem}_{second:03d}.wav"
            sf.write(piece, samples[second * rate : (second + 1) * rate], rate)
            part = "train" if second < number - max(1, number // 10) else "validation"
            rows.append({"file_name": piece, "keyword": SILENCE, "speaker": "", "split": part})
    return rows


def _natural_key(path: Path) -> list[tuple[int, str]]:
    return [(int(digits or 0), letters) for digits, letters in re.findall(r"(\d*)(\D*)", path.stem)]


def _blocks(number: int) -> list[str]:
    held_out = max(1, round(BLOCK_SHARE * number))
    return ["train"] * (number - 2 * held_out) + ["validation"] * held_out + ["test"] * held_out


def _split_by_speaker(rows: Rows, column: str) -> Rows:
    """Draws speakers for validation and test, the same ones every time."""
    speakers = sorted({row["speaker"] for row in rows})
    if len(speakers) < 3:
        raise ValueError(f"There are {len(speakers)} speakers: three splits need at least three. Is the set complete?")
    drawn: Iterable[int] = np.random.default_rng(0).permutation(len(speakers))
    num_test, num_validation = (max(1, round(share * len(speakers))) for share in (TEST_SHARE, VALIDATION_SHARE))
    parts = dict.fromkeys(speakers, "train")
    for place, number in enumerate(drawn):
        if place < num_test + num_validation:
            parts[speakers[number]] = "test" if place < num_test else "validation"
    return [{**row, column: parts[row["speaker"]]} for row in rows]
