"""Real speech from Debian packages: a pool to pre-train on, and four labeled tasks.

    mbt prepare debian_speech --output_dir data/debian_speech

The packages are downloaded with apt-get (on Debian or Ubuntu; nothing is installed), or read from a folder of .deb
files. The result is five folders, `pool`, `speaker`, `gender`, `nato` and `words`, each for --train_dir: 16 kHz mono
wav files and metadata.csv. docs/real_speech.md describes contents and licenses.
"""

import csv
import hashlib
import shutil
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import soundfile as sf
from tqdm.auto import tqdm

from feature_extraction.speech import BadAudioError
from mbt_speech.closing_line import closing_line

from .debian_packages import download_packages, find_packages, unpack_package
from .debian_recordings import PACKAGES, SAMPLING_RATE, list_recordings, read_clip
from .debian_tasks import SPLITS, Clip, Example, make_pool, make_tasks

COLUMNS = ("file_name", "label", "speaker", "language", "split")
FOLDERS = ("pool", "speaker", "gender", "nato", "words")
CONTENTS_NAME = "contents.md"


def add_arguments(parser: ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("--output_dir", type=Path, required=True, help="folder for the pool and the tasks")
    parser.add_argument("--packages_dir", type=Path, help="a folder with the .deb files, instead of downloading them")


def main(args: Namespace) -> None:
    """Prepares the set, unless it is there, and prints how much is in it."""
    contents = args.output_dir / CONTENTS_NAME  # written last
    if not contents.is_file():
        prepare(args.output_dir, args.packages_dir)
    print(contents.read_text(encoding="utf-8").partition("\n\n")[0])
    result = f"Everything is in {args.output_dir}; {CONTENTS_NAME} names the packages, and what was left out"
    words = ("--train_dir", args.output_dir / "pool", "--output_dir", "runs/mine")
    print(f"\n{closing_line(result, 'python', 'run_pretrain.py', *words)}")


def prepare(output_dir: Path, packages_dir: Path | None = None) -> None:
    """Builds the set from its packages.

    Args:
        output_dir: Gets `pool`, a folder for each task, `contents.md`, and `packages`, where they are downloaded to.
        packages_dir: Where the packages are, if they need not be downloaded.

    Raises:
        ValueError: A package is missing or damaged, or the folder holds one that is to be written.
    """
    for folder in FOLDERS:
        if (output_dir / folder).exists():
            raise ValueError(
                f"{output_dir / folder} is there, but the set is not complete: delete it, or name another folder."
            )
    packages = get_packages(output_dir, packages_dir)
    unfinished = output_dir / "unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    for name, path in tqdm(packages.items(), desc="Unpacking", unit="package"):
        unpack_package(path, unfinished / "unpacked" / name)
    clips, faults = decode_all(unfinished / "unpacked", unfinished / "clips")
    tasks = make_tasks(clips)
    pool = make_pool(clips, tasks)
    for name, examples in tasks.items():
        write_folder(unfinished / name, examples, unfinished / "clips")
    write_folder(unfinished / "pool", pool, unfinished / "clips", place=shutil.move)
    folders = {"pool": pool, **tasks}
    for name in folders:
        (unfinished / name).rename(output_dir / name)
    (output_dir / CONTENTS_NAME).write_text(describe(folders, packages.values(), faults), encoding="utf-8")
    shutil.rmtree(unfinished)


def get_packages(output_dir: Path, packages_dir: Path | None) -> dict[str, Path]:
    """Returns the file of each package; those that are missing are downloaded into `output_dir/packages`.

    Raises:
        ValueError: A package is not in `packages_dir`, or cannot be downloaded.
    """
    folder = packages_dir or output_dir / "packages"
    if packages_dir is None:
        folder.mkdir(parents=True, exist_ok=True)
        missing = [name for name, path in find_packages(PACKAGES, folder).items() if path is None]
        if missing:
            download_packages(missing, folder)
    found = find_packages(PACKAGES, folder)
    if missing := [name for name, path in found.items() if path is None]:
        raise ValueError(
            f"{folder} lacks {', '.join(missing)}: get the files there with `apt-get download {' '.join(missing)}`."
        )
    return {name: path for name, path in found.items() if path is not None}


def decode_all(unpacked: Path, clips_dir: Path) -> tuple[list[Clip], list[BadAudioError]]:
    """Decodes all recordings to wav files, each sound once.

    Returns:
        The clips, and what is wrong with the recordings that gave none.
    """
    clips_dir.mkdir(parents=True)
    clips, faults, seen = [], [], set()
    for recording in tqdm(list_recordings(unpacked), desc="Decoding", unit="recording"):
        try:
            waveform = read_clip(recording.path)
        except BadAudioError as error:
            faults.append(BadAudioError(recording.key, error.reason))
            continue
        samples = np.round(waveform * 32_767).astype(np.int16)
        digest = hashlib.sha256(samples.tobytes()).digest()
        if digest not in seen:
            seen.add(digest)
            tag = hashlib.sha256(recording.key.encode()).hexdigest()[:8]
            file_name = f"{recording.speaker}-{recording.word}-{tag}.wav"
            sf.write(clips_dir / file_name, samples, SAMPLING_RATE, subtype="PCM_16")
            clips.append(Clip(recording, file_name, len(samples) / SAMPLING_RATE))
    return clips, faults


def write_folder(
    folder: Path,
    examples: Iterable[Example],
    clips_dir: Path,
    place: Callable[[Path, Path], object] = shutil.copyfile,
) -> None:
    """Copies (or moves) the clips of a task, or of the pool, and writes their metadata.csv."""
    folder.mkdir()
    with (folder / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(COLUMNS)
        for clip, label, split in sorted(examples, key=lambda example: example.clip.file_name):
            place(clips_dir / clip.file_name, folder / clip.file_name)
            rows.writerow([clip.file_name, label, clip.recording.speaker, clip.recording.language, split])


def describe(folders: dict[str, list[Example]], packages: Iterable[Path], faults: list[BadAudioError]) -> str:
    """Returns a page: how much there is of what, from which packages, and what was left out."""
    lines = ["| | " + " | ".join(SPLITS) + " | labels | voices | hours |", "|---|---|---|---|---|---|---|"]
    for name, examples in folders.items():
        counts = [sum(example.split == split for example in examples) for split in SPLITS]
        labels = len({example.label for example in examples}) if name != "pool" else ""
        voices = len({example.clip.recording.speaker for example in examples})
        hours = sum(example.clip.seconds for example in examples) / 3600
        lines.append(f"| {name} | " + " | ".join(map(str, [*counts, labels, voices, f"{hours:.2f}"])) + " |")
    lines += ["", "Packages:", "", *(f"- {path.name}" for path in packages)]
    if faults:
        lines += ["", "Recordings that were left out:", "", *(f"- {fault}" for fault in faults)]
    return "\n".join(lines) + "\n"
