"""Seconds from the start of run_pretrain.py to the end of its first step, beyond importing what it stands on.

    python -m benchmarks.startup                                     # a folder of 10 000 flac files

The first row has no index of the folder yet, the second finds it in the cache.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile as sf

LIBRARIES = "import torch, transformers, datasets, accelerate; from transformers import PreTrainedModel"
SCRIPT = Path(__file__).parents[1] / "run_pretrain.py"
RUN = ["--preset", "tiny", "--per_device_train_batch_size", "2", "--max_steps", "1"]  # whose step takes milliseconds


def main() -> None:
    parser = argparse.ArgumentParser(description="Times the start of pre-training on a folder of many files.")
    parser.add_argument("--num_files", type=int, default=10_000)
    args = parser.parse_args()
    imports = min(seconds_until_end(LIBRARIES) for _ in range(3))
    print(f"importing torch, transformers, datasets, accelerate: {imports:.1f} s")
    with tempfile.TemporaryDirectory() as folder:
        write_files(Path(folder, "files"), args.num_files)
        for number, state in enumerate(("no index yet", "index in the cache")):
            words = [*RUN, "--train_dir", f"{folder}/files", "--output_dir", f"{folder}/run{number}"]
            first_step = seconds_until_first_step(words, f"{folder}/cache")
            more = first_step - imports
            print(f"{args.num_files} files, {state}: first step after {first_step:.1f} s, {more:.1f} s more")


def seconds_until_end(code: str) -> float:
    start = time.time()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.time() - start


def seconds_until_first_step(words: list[str], cache: str) -> float:
    """Returns the seconds until the script says that its first step is done."""
    start, environment = time.time(), {**os.environ, "HF_DATASETS_CACHE": cache}
    command = [sys.executable, str(SCRIPT), *words]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stderr is not None
        seconds = next((time.time() - start for line in process.stderr if "step 1/1" in line), None)
        process.stderr.read()
    if seconds is None:
        raise RuntimeError(f"{' '.join(command)} ended without a step.")
    return seconds


def write_files(folder: Path, number: int) -> None:
    waveform = 0.1 * np.random.default_rng(0).standard_normal(32_000).astype(np.float32)
    for index in range(number):
        path = folder / f"{index // 500:03d}" / f"{index:05d}.flac"
        path.parent.mkdir(parents=True, exist_ok=True)
        sf.write(path, waveform[: 16_000 + index % 16_000], 16_000)


if __name__ == "__main__":
    main()
