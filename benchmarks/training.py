"""Pairs per second of pre-training from a folder of flac files, and where the time of a step goes.

    python -m benchmarks.training                                    # two CPU threads, float32, preset `strong`
    PYTHONPATH=FOLDER python -m benchmarks.training                  # beside the lightly in FOLDER

The same loop runs on crops read from disk, by threads between the steps (0 workers) or by processes beside them, on
crops that lie in memory, and with the loss of `lightly` where that is installed, as a plain loop would have it: on a
network in torch's usual layout. The loops take turns, so that a busy
machine slows down all of them; each ratio is the median over rounds.
"""

import argparse
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import soundfile as sf
import torch
from torch.utils.data import DataLoader

from benchmarks.objectives import Objective, lightly_loss
from mbt_speech.corpora.synthetic.corpus import load_corpus
from mbt_speech.data.crops import CropDataset, collate_crops
from mbt_speech.data.recording_index import index_recordings
from mbt_speech.data.recordings import load_recordings
from mbt_speech.data.step_sampler import StepSampler
from mbt_speech.presets import PRESETS
from mbt_speech.training.memory import keep_freed_memory
from mbt_speech.training.optimization import create_optimizer
from modeling_mbt import MBTForPreTraining

NUM_FILES = 500
READ_AHEAD = 4
Seconds = dict[str, float]
Loop = Callable[[Iterator[torch.Tensor]], Seconds]


def main() -> None:
    args = parse_args()
    torch.set_num_threads(args.num_threads)
    keep_freed_memory()  # as the scripts do
    with tempfile.TemporaryDirectory() as folder:
        crops = write_recordings(Path(folder))
        in_memory = list(read(crops, args, workers=0, num_steps=4))
        loops: dict[str, tuple[Loop, Callable[[], Iterable[torch.Tensor]]]] = {
            "crops in memory": (training_loop(args), lambda: in_memory * (args.steps // 4 + 1))
        }
        for workers in args.dataloader_num_workers:
            batches = partial(read, crops, args, workers, args.steps)
            loops[f"flac folder, {workers} workers"] = training_loop(args), batches
        if loss := lightly_loss():
            loops["plain loop, lightly's loss"] = training_loop(args, loss), loops["crops in memory"][1]
        rounds = [{name: run_round(*loop, args.steps) for name, loop in loops.items()} for _ in range(args.rounds)]
    report(args, rounds)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Times pre-training from disk against pre-training from memory.")
    parser.add_argument("--num_threads", type=int, default=2)
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--dataloader_num_workers", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--steps", type=int, default=16, help="steps of one round")
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args()


def write_recordings(folder: Path) -> CropDataset:
    """Writes some of the built-in corpus as 16 kHz flac, and indexes it as the script does."""
    for number, audio in enumerate(load_corpus("small")["unlabelled"]["audio"][:NUM_FILES]):
        samples = np.frombuffer(audio["bytes"][44:], dtype="<i2")
        sf.write(folder / f"{number:05d}.flac", samples, 16_000)
    parts, column = load_recordings(str(folder))
    start = time.perf_counter()
    index = index_recordings(parts["train"], column, cache_dir=folder)
    print(
        f"{NUM_FILES} flac files, {index.seconds.sum() / 60:.0f} min, indexed in {time.perf_counter() - start:.2f} s"
    )
    return CropDataset(index.dataset, column, index.seconds, crop_seconds=PRESETS["strong"].crop_seconds)


def read(crops: CropDataset, args: argparse.Namespace, workers: int, num_steps: int) -> Iterator[torch.Tensor]:
    # More batches than are used: workers read ahead until the last step, as they do in a run.
    sampler = StepSampler(len(crops), args.batch_size, seed=0, start_step=0, max_steps=num_steps + READ_AHEAD)
    for batch in DataLoader(crops, batch_sampler=sampler, num_workers=workers, collate_fn=collate_crops):
        yield batch["waveforms"]


def training_loop(args: argparse.Namespace, loss: Objective | None = None) -> Loop:
    """Returns a loop over batches (B, S) that counts the seconds of each part of its steps."""
    preset = PRESETS["strong"]
    torch.manual_seed(0)
    extractor, augment, model = preset.extractor(), preset.augmenter(), MBTForPreTraining(preset.config())
    if loss is None:
        model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    optimizer = create_optimizer(model.train(), 1e-3, 0.01)
    generator = torch.Generator().manual_seed(0)

    def run(batches: Iterator[torch.Tensor]) -> Seconds:
        seconds = defaultdict(float)
        for part, value in stopwatch(steps(batches)):
            seconds[part] += value
        return seconds

    def steps(batches: Iterator[torch.Tensor]) -> Iterator[str]:
        for waveforms in batches:
            yield "waiting for data"
            view_a, view_b = (augment(waveforms, extractor, generator)[0] for _ in "ab")
            yield "views"
            if loss is None:
                objective = model(view_a, view_b).loss
            else:
                objective = loss(model.project(view_a), model.project(view_b))
            yield "forward and objective"
            objective.backward()
            yield "backward"
            optimizer.step()
            optimizer.zero_grad()
            yield "optimizer"

    return run


def stopwatch(parts: Iterator[str]) -> Iterator[tuple[str, float]]:
    """Yields each part's name with the seconds that it took."""
    last = time.perf_counter()
    for part in parts:
        now = time.perf_counter()
        yield part, now - last
        last = now


def run_round(loop: Loop, batches: Callable[[], Iterable[torch.Tensor]], num_steps: int) -> Seconds:
    """Runs a loop for so many steps, after two that start workers and warm caches."""
    iterator = iter(batches())
    loop(islice(iterator, 2))
    return loop(islice(iterator, num_steps - 2))


def report(args: argparse.Namespace, rounds: list[dict[str, Seconds]]) -> None:
    print(f"torch {torch.__version__}, {args.num_threads} CPU threads, float32, {args.batch_size} pairs a step")
    reference = next(iter(rounds[0]))
    for name in rounds[0]:
        fastest = min(sum(one[name].values()) for one in rounds) / (args.steps - 2)
        ratio = statistics.median(sum(one[reference].values()) / sum(one[name].values()) for one in rounds)
        print(f"{name:32}{args.batch_size / fastest:8.0f} pairs/s{100 * ratio:8.1f} % of {reference}")
    for name in rounds[0]:
        total = {part: sum(one[name][part] for one in rounds) for part in rounds[0][name]}
        print(f"\n{name}: where the time goes")
        for part, seconds in total.items():
            milliseconds = 1000 * seconds / (args.rounds * (args.steps - 2))
            print(f"  {part:28}{milliseconds:8.1f} ms{100 * seconds / sum(total.values()):8.1f} %")


if __name__ == "__main__":
    main()
