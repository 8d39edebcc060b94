"""Forward and backward pass of fine-tuning on recordings of different lengths, by how batches are padded.

    python -m benchmarks.finetuning                                  # one CPU thread, float32, preset `strong`

Lengths are drawn like those of real speech from Debian: log-normal, half of them below 1.1 s. Contenders take turns,
so that a busy machine slows down all of them, and the fastest run of each is reported.
"""

import argparse
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.features import fastest_seconds
from mbt_speech.presets import PRESETS
from mbt_speech.training.fine_tuning import CLIPS_OF_PART, split_by_length
from mbt_speech.training.memory import keep_freed_memory
from modeling_mbt import MBTForSequenceClassification

FRAMES_PER_SECOND = 100
MEDIAN_SECONDS, SPREAD = 1.1, 0.65  # of the logarithm of seconds
SHORTEST, LONGEST = 0.3, 14.0
NUM_CLASSES = 15


def main() -> None:
    args = parse_args()
    torch.set_num_threads(args.num_threads)
    keep_freed_memory()  # as the scripts do
    torch.manual_seed(0)
    model = MBTForSequenceClassification(PRESETS["strong"].config(num_labels=NUM_CLASSES)).train()
    model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    batches = [draw_batch(args.batch_size, model.config.num_mel_bins) for _ in range(args.num_batches)]
    num_parts = -(-args.batch_size // CLIPS_OF_PART)
    names = {"whole batches": 1, f"{num_parts} parts": num_parts, "clip by clip": args.batch_size}
    contenders: dict[str, Callable[[], object]] = {
        name: pass_over(model, batches, parts) for name, parts in names.items()
    }
    seconds = fastest_seconds(contenders, args.seconds)

    padding = 100 * (1 - torch.cat([mask.flatten() for _, mask, _ in batches]).float().mean())
    print(f"torch {torch.__version__}, {args.num_threads} CPU threads, batches of {args.batch_size} clips")
    print(f"{padding:.0f} % of the frames of whole batches are padding")
    for name, value in seconds.items():
        clips = args.num_batches * args.batch_size / value
        print(f"{name:16}{clips:8.0f} clips/s{seconds['whole batches'] / value:8.2f} times as fast as whole batches")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Times fine-tuning on padded batches, whole and in parts.")
    parser.add_argument("--num_threads", type=int, default=1)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--num_batches", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long contenders take turns")
    return parser.parse_args()


def draw_batch(size: int, num_mel_bins: int) -> tuple[Tensor, Tensor, Tensor]:
    """Draws features (B, T, M), their mask (B, T) and labels (B,)."""
    seconds = (MEDIAN_SECONDS * (SPREAD * torch.randn(size)).exp()).clamp(SHORTEST, LONGEST)
    lengths = (FRAMES_PER_SECOND * seconds).long()
    mask = (torch.arange(int(lengths.max())) < lengths[:, None]).long()
    return torch.randn(*mask.shape, num_mel_bins) * mask[..., None], mask, torch.randint(NUM_CLASSES, (size,))


def pass_over(
    model: MBTForSequenceClassification, batches: list[tuple[Tensor, Tensor, Tensor]], num_parts: int
) -> Callable[[], None]:
    """Returns a forward and backward pass over all batches, each in so many parts."""

    def run() -> None:
        for batch in batches:
            for features, mask, labels in split_by_length(*batch, num_parts):
                model(features, mask, labels=labels).loss.backward()
        model.zero_grad()

    return run


if __name__ == "__main__":
    main()
