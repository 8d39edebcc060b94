"""Draw the features of a recording and pairs of views, its distorted crops; write the distorted waveforms.

    mbt show speech.wav other.wav --preset strong
    mbt show speech.wav --run runs/mine --num_pairs 5

`shown` then contains views.png, crop.wav and, if the distortions change the waveform, a wav file for each view.

Axes: B crops, S samples, T frames, M features.
"""

import json
import math
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile as sf
import torch
from torch import Tensor

from feature_extraction.augmentation import MBTAugmentation
from feature_extraction.feature_extraction_mbt import MBTFeatureExtractor
from feature_extraction.speech import recording_seconds, to_waveform
from mbt_speech.closing_line import closing_line
from mbt_speech.command_line import RECIPE_NAME, load_yaml, parse_overrides
from mbt_speech.presets import PRESETS
from mbt_speech.run_arguments import LEAST

from .style import plt, save

PICTURE_NAME = "views.png"


def add_arguments(parser: ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("file", nargs="+", help="the recording to show, and further ones that mixup may mix with it")
    parser.add_argument(
        "--preset",
        choices=sorted(PRESETS),
        help="preset with the features and distortions to show (default: strong)",
    )
    parser.add_argument("--run", type=Path, help="folder of a pre-training run whose features and distortions to show")
    parser.add_argument("--augmentation", help="JSON object of MBTAugmentation arguments, instead of the preset's")
    parser.add_argument("--start_seconds", type=float, default=0.0, help="start of the crop in seconds (default: 0)")
    parser.add_argument(
        "--crop_seconds", type=float, help="length of the crop in seconds; by default that of the run or the preset"
    )
    parser.add_argument("--num_pairs", type=int, default=3, help="number of pairs of views (default: 3)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the distortions (default: 0)")
    parser.add_argument(
        "--output_dir", type=Path, default=Path("shown"), help="folder for pictures and sounds (default: shown)"
    )


def main(args: Namespace) -> None:
    """Draws and writes what the arguments ask for."""
    if args.num_pairs < 1:
        raise ValueError(f"--num_pairs {args.num_pairs} must be at least 1.")
    if not 0 <= args.start_seconds < math.inf:
        raise ValueError(f"--start_seconds must not be negative or infinite, and is {args.start_seconds}.")
    if args.run is not None and args.preset is not None:
        raise ValueError("Give --run or --preset: a run has its own features and distortions.")
    args.preset = args.preset or "strong"
    least = LEAST["crop_seconds"]
    if args.crop_seconds is not None and not least <= args.crop_seconds < math.inf:
        raise ValueError(f"--crop_seconds must be at least {least}, not infinite, and is {args.crop_seconds}.")
    extractor, augmentation = load_sound(args)
    crops = read_crops(args, extractor.sampling_rate)
    generator = torch.Generator().manual_seed(args.seed)
    waveforms = [
        [augmentation.distort_waveforms(crops, extractor.sampling_rate, generator) for _ in "ab"]
        for _ in range(args.num_pairs)
    ]
    views = [[view(one, extractor, augmentation, generator) for one in pair] for pair in waveforms]
    args.output_dir.mkdir(parents=True, exist_ok=True)
    sounds = {"crop.wav": crops[0]}
    if augmentation.waveform:
        for number, pair in enumerate(waveforms, 1):
            sounds |= {f"view_{number}{letter}.wav": batch[0] for letter, batch in zip("ab", pair, strict=True)}
    for name, waveform in sounds.items():
        sf.write(args.output_dir / name, waveform.clamp(-1, 1).numpy(), extractor.sampling_rate)
    features, mask = extractor.extract(crops)
    draw(args, extractor, crops[0], extractor.normalize(features, mask)[0], views)
    print(closing(args, [*sounds, PICTURE_NAME]))


def closing(args: Namespace, written: Sequence[str]) -> str:
    """Returns the last line: what was written, and how to train with these distortions, or to use the run shown."""
    result = f"{', '.join(written)} are in {args.output_dir}"
    if args.run is not None:
        return closing_line(result, "mbt", "embed", args.run, "RECORDINGS", "--output", "embeddings.npz")
    words = ["--preset", args.preset, *(["--augmentation", args.augmentation] if args.augmentation else [])]
    words += ["--train_dir", "FOLDER", "--output_dir", "runs/mine"]
    return closing_line(result, "python", "run_pretrain.py", *words)


def load_sound(args: Namespace) -> tuple[MBTFeatureExtractor, MBTAugmentation]:
    """Returns the features and distortions of the preset, or of a run."""
    extractor, augmentation = PRESETS[args.preset].extractor(), PRESETS[args.preset].augmenter()
    if args.run is not None:
        extractor = MBTFeatureExtractor.from_pretrained(args.run)
        augmentation = MBTAugmentation.from_dict(json.loads((args.run / "augmentation.json").read_text()))
    if args.augmentation is not None:
        augmentation = MBTAugmentation.from_dict(parse_overrides("augmentation", args.augmentation))
    return extractor, augmentation


def crop_length(args: Namespace) -> float:
    """Returns the length of a crop in seconds: the one asked for, or that of the run or the preset."""
    if args.crop_seconds is not None:
        return args.crop_seconds
    recipe = args.run / RECIPE_NAME if args.run is not None else None
    values = load_yaml(recipe) if recipe is not None and recipe.is_file() else {}
    return values.get("crop_seconds") or PRESETS[values.get("preset", args.preset)].crop_seconds


def read_crops(args: Namespace, sampling_rate: int) -> Tensor:
    """Reads a crop of every file, (B, S); what a distortion may mix in is the other files, or else a later piece."""
    seconds = crop_length(args)
    starts = [(file, args.start_seconds) for file in args.file]
    if len(starts) == 1:
        last = max(0.0, recording_seconds(args.file[0]) - seconds)
        starts.append((args.file[0], min(args.start_seconds + seconds / 2, last)))
    crops = torch.zeros(len(starts), round(seconds * sampling_rate))
    for crop, (file, start) in zip(crops, starts, strict=True):
        waveform = to_waveform(file, sampling_rate, start_seconds=start, duration_seconds=seconds)
        crop[: len(waveform)] = torch.from_numpy(waveform)
    return crops


def view(
    waveforms: Tensor, extractor: MBTFeatureExtractor, augmentation: MBTAugmentation, generator: torch.Generator
) -> Tensor:
    """Returns the distorted features (T, M) of the first of some distorted waveforms (B, S)."""
    features, mask = extractor.extract(waveforms)
    return extractor.normalize(augmentation.distort_features(features, generator), mask)[0]


def draw(
    args: Namespace, extractor: MBTFeatureExtractor, crop: Tensor, features: Tensor, views: list[list[Tensor]]
) -> None:
    """Draws the crop's waveform and features, and below them the pairs of views, with one color scale."""
    figure, axes = plt.subplots(1 + len(views), 2, figsize=(10, 2.4 * (1 + len(views))), layout="constrained")
    time = np.arange(len(crop)) / extractor.sampling_rate
    axes[0][0].plot(time, crop.numpy(), linewidth=0.6)
    axes[0][0].set(title=f"{Path(args.file[0]).name}, {args.start_seconds:g} s", xlim=(0, time[-1]), xlabel="s")
    panels = [(axes[0][1], features, "features")]
    for row, (number, pair) in zip(axes[1:], enumerate(views, 1), strict=True):
        panels += [(axis, one, f"view {number}{letter}") for axis, one, letter in zip(row, pair, "ab", strict=True)]
    low, high = np.percentile(np.concatenate([one.numpy().ravel() for _, one, _ in panels]), (1, 99))
    extent = (0, time[-1], 0, features.shape[1])
    for axis, one, title in panels:
        axis.imshow(one.numpy().T, origin="lower", aspect="auto", vmin=low, vmax=high, extent=extent)
        axis.set(title=title, xlabel="s", ylabel="mel band" if extractor.frequency_scale == "mel" else "Fourier bin")
    figure.colorbar(axes[0][1].images[0], ax=axes, shrink=0.6, label="normalized log power")
    save(figure, args.output_dir / PICTURE_NAME)
