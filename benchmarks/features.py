"""Features of 64 one-second clips side by side, and what the views of a pre-training step cost beside its network.

    python -m benchmarks.features                                    # two CPU threads

Contenders take turns, so that a busy machine slows down all of them, and the fastest run of each is reported. All
compute log-mels of 25 ms windows every 10 ms: librosa at our extractor's settings, to the same numbers;
ASTFeatureExtractor 64 bands of one second, or as it comes, 128 bands padded to ten seconds, in NumPy where torchaudio
is not installed. The step is that of the scripts, without their looks at the gradient.
"""

import argparse
import time
from collections.abc import Callable

import librosa
import numpy as np
import torch
from transformers import ASTFeatureExtractor

from feature_extraction import MBTAugmentation, MBTFeatureExtractor
from mbt_speech.presets import PRESETS
from mbt_speech.training.memory import keep_freed_memory
from mbt_speech.training.optimization import create_optimizer
from modeling_mbt import MBTForPreTraining

NUM_CLIPS = 64
BATCH_SIZE = 128
FLOAT32, BFLOAT16 = "network, objective, optimizer", "the same in bfloat16"


def main() -> None:
    args = parse_args()
    torch.set_num_threads(args.num_threads)
    keep_freed_memory()  # as the scripts do
    print(f"torch {torch.__version__}, {args.num_threads} CPU threads, fastest run in ms")
    seconds = fastest_seconds(extractors(), args.seconds_per_table)
    ours = seconds["MBTFeatureExtractor"]
    print(f"\nfeatures of {NUM_CLIPS} clips of 1 s, as arrays")
    for name, value in seconds.items():
        print(f"{name:34}{1000 * value:10.2f}   {value / ours:6.1f} x MBTFeatureExtractor")

    seconds = fastest_seconds(step_parts(), args.seconds_per_table)
    in_bfloat16 = seconds.pop(BFLOAT16)
    step = sum(seconds.values())
    print(f"\none pre-training step of `strong`, {BATCH_SIZE} pairs")
    for name, value in seconds.items():
        print(f"{name:34}{1000 * value:10.2f}   {100 * value / step:6.1f} % of the step")
    print(f"{BFLOAT16:34}{1000 * in_bfloat16:10.2f}   {seconds[FLOAT32] / in_bfloat16:6.1f} times as fast")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Times the features and the views against what they replace.")
    parser.add_argument("--num_threads", type=int, default=2)
    parser.add_argument("--seconds_per_table", type=float, default=20)
    return parser.parse_args()


def extractors() -> dict[str, Callable[[], object]]:
    ours = MBTFeatureExtractor()
    clips = [0.1 * np.random.default_rng(seed).standard_normal(16000, np.float32) for seed in range(NUM_CLIPS)]
    ast, ast_as_it_comes = ASTFeatureExtractor(num_mel_bins=ours.feature_size, max_length=98), ASTFeatureExtractor()

    def librosas() -> np.ndarray:
        power = librosa.feature.melspectrogram(
            y=np.stack(clips),
            sr=ours.sampling_rate,
            n_fft=ours.n_fft,
            hop_length=ours.hop_length,
            win_length=ours.win_length,
            pad_mode="constant",
            n_mels=ours.feature_size,
            fmin=ours.min_frequency,
            fmax=ours.max_frequency,
            htk=True,
            norm=None,
        )
        features = librosa.power_to_db(power, amin=ours.power_floor, top_db=None).swapaxes(1, 2)
        return (features - features.mean((1, 2), keepdims=True)) / features.std((1, 2), keepdims=True)

    expected = ours(clips, sampling_rate=ours.sampling_rate, return_tensors="np")["input_features"]
    np.testing.assert_allclose(librosas(), expected, atol=1e-3)
    return {
        "MBTFeatureExtractor": lambda: ours(clips, sampling_rate=ours.sampling_rate, return_tensors="np"),
        "librosa.feature.melspectrogram": librosas,
        "ASTFeatureExtractor": lambda: ast(clips, sampling_rate=16000, return_tensors="np"),
        "ASTFeatureExtractor as it comes": lambda: ast_as_it_comes(clips, sampling_rate=16000, return_tensors="np"),
    }


def step_parts() -> dict[str, Callable[[], object]]:
    preset = PRESETS["strong"]
    extractor, augment, model = preset.extractor(), preset.augmenter(), MBTForPreTraining(preset.config())
    generator = torch.Generator().manual_seed(0)
    waveforms = 0.1 * torch.randn(BATCH_SIZE, int(preset.crop_seconds * extractor.sampling_rate), generator=generator)
    model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    optimizer = create_optimizer(model, 1e-3, 0.01)
    view_a, view_b = views(waveforms, extractor, augment, generator)

    def network(in_bfloat16: bool) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=in_bfloat16):
            loss = model(view_a, view_b).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return {
        "two views": lambda: views(waveforms, extractor, augment, generator),
        FLOAT32: lambda: network(in_bfloat16=False),
        BFLOAT16: lambda: network(in_bfloat16=True),
    }


def views(
    waveforms: torch.Tensor, extractor: MBTFeatureExtractor, augment: MBTAugmentation, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    return augment(waveforms, extractor, generator)[0], augment(waveforms, extractor, generator)[0]


def fastest_seconds(contenders: dict[str, Callable[[], object]], total_seconds: float) -> dict[str, float]:
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    deadline = time.perf_counter() + total_seconds
    while time.perf_counter() < deadline or min(map(len, seconds.values())) < 3:
        for name, run in contenders.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {name: min(values) for name, values in seconds.items()}


if __name__ == "__main__":
    main()
