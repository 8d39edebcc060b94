"""Seconds from the start of run_pretrain.py to its first step, beyond importing what it stands on.

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
UNTIL_FIRST_STEP = """import sys, time
import run_pretrain
from mbt_speech.training import loop

def stop(*_):
    print(time.time())
    raise SystemExit

loop._Run.take_step = stop
run_pretrain.main(sys.argv[1:])"""


def main() -> None:
    parser = argparse.ArgumentParser(description="Times the start of pre-training on a folder of many files.")
    parser.add_argument("--num_files", type=int, default=10_000)
    args = parser.parse_args()
    imports = min(seconds_until_end(LIBRARIES) for _ in range(3))
    print(f"importing torch, transformers, datasets, accelerate: {imports:.1f} s")
    with tempfile.TemporaryDirectory() as folder:
        write_files(Path(folder, "files"), args.num_files)
        for state in ("no index yet", "index in the cache"):
            words = ["--train_dir", f"{folder}/files", "--max_steps", "1", "--output_dir", f"{folder}/run"]
            start = time.time()
            environment = {**os.environ, "HF_DATASETS_CACHE": f"{folder}/cache"}
            done = subprocess.run(
                [sys.executable, "-c", UNTIL_FIRST_STEP, *words],
                capture_output=True, text=True, check=True, env=environment,
            )  # fmt: skip
            first_step = float(done.stdout.splitlines()[-1]) - start
            more = first_step - imports
            print(f"{args.num_files} files, {state}: first step after {first_step:.1f} s, {more:.1f} s more")


def seconds_until_end(code: str) -> float:
    start = time.time()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.time() - start


def write_files(folder: Path, number: int) -> None:
    waveform = 0.1 * np.random.default_rng(0).standard_normal(32_000).astype(np.float32)
    for index in range(number):
        path = folder / f"{index // 500:03d}" / f"{index:05d}.flac"
        path.parent.mkdir(parents=True, exist_ok=True)
        sf.write(path, waveform[: 16_000 + index % 16_000], 16_000)


if __name__ == "__main__":
    main()
