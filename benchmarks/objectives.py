"""Forward and backward of Barlow Twins side by side: the D x D formula, lightly's loss, ours and the modified one.

    python -m benchmarks.objectives                                  # two CPU threads, float32
    PYTHONPATH=FOLDER python -m benchmarks.objectives                # beside the lightly in FOLDER

lightly is optional: `pip install --no-deps --target FOLDER lightly` leaves this environment as it is. Contenders take
turns, so that a busy machine slows down all of them, and the fastest run of each is reported. N samples, D dimensions.
"""

import argparse
import importlib.util
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from modeling_mbt.objectives_mbt import barlow_twins_loss, modified_barlow_twins_loss

SHAPES = [(64, 1024), (64, 2048), (64, 8192), (256, 2048), (1024, 2048), (2048, 512)]
WEIGHT = 0.005

Objective = Callable[[Tensor, Tensor], Tensor]


def main() -> None:
    args = parse_args()
    torch.set_num_threads(args.num_threads)
    objectives = contenders()
    print(f"torch {torch.__version__}, {args.num_threads} CPU threads, float32, forward + backward, fastest run in ms")
    print("     N x D    " + "".join(f"{name:>16}" for name in objectives) + "   how many times faster BT is")
    for num_samples, num_dims in SHAPES:
        check_agreement(objectives, num_samples, num_dims)
        seconds = fastest_seconds(objectives, num_samples, num_dims, args.seconds_per_shape)
        ratios = [f"{seconds[name] / seconds['BT']:.1f} x {name}" for name in objectives if name not in ("BT", "MBT")]
        times = "".join(f"{1000 * value:16.2f}" for value in seconds.values())
        print(f"{num_samples:6d} x {num_dims:<5d}{times}   {', '.join(ratios)}", flush=True)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Times the Barlow Twins objective against what it replaces.")
    parser.add_argument("--num_threads", type=int, default=2)
    parser.add_argument("--seconds_per_shape", type=float, default=10, help="time to spend on each row")
    return parser.parse_args()


def contenders() -> dict[str, Objective]:
    lightly = lightly_loss()
    return {
        "formula": correlation_formula,
        **({"lightly": lightly} if lightly else {}),
        "BT": lambda z_a, z_b: barlow_twins_loss(z_a, z_b, WEIGHT).loss,
        "MBT": lambda z_a, z_b: modified_barlow_twins_loss(z_a, z_b, WEIGHT).loss,
    }


def correlation_formula(z_a: Tensor, z_b: Tensor) -> Tensor:
    """Computes batch norm, the D x D matrix, its diagonal and the rest (Zbontar et al., 2021, algorithm 1)."""
    a, b = (F.batch_norm(z, None, None, training=True) for z in (z_a, z_b))
    correlation = a.T @ b / len(a)
    difference = (correlation - torch.eye(a.shape[1])).square()
    on_diagonal = difference.diagonal().sum()
    return on_diagonal + WEIGHT * (difference.sum() - on_diagonal)


def lightly_loss() -> Objective | None:
    """Returns the loss from its own file, as lightly's package asks for torchvision; None without lightly."""
    package = importlib.util.find_spec("lightly")
    if package is None or package.origin is None:
        print("lightly is not installed: its column is left out.", file=sys.stderr)
        return None
    path = Path(package.origin).parent / "loss" / "barlow_twins_loss.py"
    spec = importlib.util.spec_from_file_location("lightly_barlow_twins_loss", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.BarlowTwinsLoss(lambda_param=WEIGHT)


def latents(num_samples: int, num_dims: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    z_a = torch.randn(num_samples, num_dims, generator=generator)
    z_b = z_a + torch.randn(num_samples, num_dims, generator=generator)
    return z_a.requires_grad_(), z_b.requires_grad_()


def check_agreement(objectives: dict[str, Objective], num_samples: int, num_dims: int) -> None:
    views = latents(num_samples, num_dims)
    expected = objectives["formula"](*views)
    for name, objective in objectives.items():
        if name != "MBT":
            torch.testing.assert_close(objective(*views), expected, rtol=1e-3, atol=0)


def fastest_seconds(
    objectives: dict[str, Objective], num_samples: int, num_dims: int, total_seconds: float
) -> dict[str, float]:
    views = latents(num_samples, num_dims)
    seconds: dict[str, list[float]] = {name: [] for name in objectives}
    deadline = time.perf_counter() + total_seconds
    while len(seconds["BT"]) < 3 or time.perf_counter() < deadline:
        for name, objective in objectives.items():
            start = time.perf_counter()
            torch.autograd.grad(objective(*views), views)
            seconds[name].append(time.perf_counter() - start)
    return {name: min(values) for name, values in seconds.items()}


if __name__ == "__main__":
    main()
