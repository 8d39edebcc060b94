"""Files per second from a folder of sound to representations, against a loop over the files.

    python -m benchmarks.embedding                                   # two CPU threads, float32

`Recognizer` is what `mbt embed` runs. The loops read one file at a time with librosa, compute features and call the
model: ours with our extractor, ours on log-mels of librosa, and AST at its usual size with transformers' extractor,
which pads to ten seconds, and computes in NumPy where torchaudio is not installed. Contenders take turns, and the
fastest run of each is reported.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import librosa
import numpy as np
import soundfile as sf
import torch
from transformers import ASTConfig, ASTFeatureExtractor, ASTModel, BatchFeature

from benchmarks.features import fastest_seconds
from feature_extraction import MBTFeatureExtractor
from mbt_speech.inference.sound_files import Recognizer
from mbt_speech.inference.speech_encoder import SpeechEncoder
from mbt_speech.presets import PRESETS
from modeling_mbt import MBTModel

AST_FILES = 4


def main() -> None:
    args = parse_args()
    torch.set_num_threads(args.num_threads)
    print(f"torch {torch.__version__}, {args.num_threads} CPU threads, float32, fastest of three runs")
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        files = write_files(Path(folder), args.num_files)
        preset = PRESETS["strong"]
        model, extractor = MBTModel(preset.config()).eval(), preset.extractor()
        contenders = {
            "Recognizer, as in mbt embed": (files, lambda: Recognizer(SpeechEncoder(model, extractor)).embed(files)),
            "a loop, our extractor": (files, lambda: [model(**features(extractor, file)) for file in files]),
            "a loop, log-mels of librosa": (files, lambda: [model(log_mels(extractor, file)) for file in files]),
            "a loop, AST": (files[:AST_FILES], ast_loop(files[:AST_FILES])),
        }
        seconds = fastest_seconds({name: run for name, (_, run) in contenders.items()}, total_seconds=0)
        rates = {name: len(files) / seconds[name] for name, (files, _) in contenders.items()}
        print(f"\n{len(files)} flac files of 1 to 5 s")
        first = next(iter(rates.values()))
        for name, rate in rates.items():
            print(f"{name:34}{rate:10.1f} files/s   {first / rate:6.1f} x slower")
        print_memory(model, extractor, Path(folder))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Times representations of sound files against loops over them.")
    parser.add_argument("--num_threads", type=int, default=2)
    parser.add_argument("--num_files", type=int, default=400)
    return parser.parse_args()


def write_files(folder: Path, number: int) -> list[Path]:
    generator = np.random.default_rng(0)
    paths = [folder / "recordings" / f"{index:05d}.flac" for index in range(number)]
    paths[0].parent.mkdir()
    for path in paths:
        sf.write(path, 0.1 * generator.standard_normal(generator.integers(16_000, 80_000)), 16_000)
    return paths


def read(file: Path) -> np.ndarray:
    return librosa.load(file, sr=16_000)[0]


def features(extractor: MBTFeatureExtractor | ASTFeatureExtractor, file: Path) -> BatchFeature:
    return extractor(read(file), sampling_rate=16_000, return_tensors="pt")


def log_mels(extractor: MBTFeatureExtractor, file: Path) -> torch.Tensor:
    power = librosa.feature.melspectrogram(
        y=read(file), sr=16_000, n_fft=extractor.n_fft, hop_length=extractor.hop_length, n_mels=extractor.feature_size
    )
    values = librosa.power_to_db(power).T
    return torch.from_numpy((values - values.mean()) / values.std()).unsqueeze(0)


def ast_loop(files: list[Path]) -> Callable[[], object]:
    model, extractor = ASTModel(ASTConfig()).eval(), ASTFeatureExtractor()
    return lambda: [model(**features(extractor, file)) for file in files]


def print_memory(model: MBTModel, extractor: MBTFeatureExtractor, folder: Path) -> None:
    """Prints what the command takes at most, in a process of its own."""
    for part in (model, extractor):
        part.save_pretrained(folder / "model")
    words = ["embed", str(folder / "model"), str(folder / "recordings"), "--output", str(folder / "embeddings.npz")]
    # What the kernel counts for a child begins with the peak of its parent, except for this line.
    code = f"""
from pathlib import Path
from mbt_speech.__main__ import main
main({words})
print(*(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")))
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    kilobytes = int(done.stdout.split()[-2])
    print(f"mbt embed: {kilobytes / 2**20:.2f} GiB at most")


if __name__ == "__main__":
    main()
