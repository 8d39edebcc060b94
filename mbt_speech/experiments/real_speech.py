"""Pre-train on real speech with BT and MBT, and compare frozen encoders with two controls on four tasks.

The recordings come from Debian packages (docs/real_speech.md), which are downloaded. `runs/real` then contains the
encoders, results.csv, the table results.md and pictures. A second call continues one that was stopped.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import pandas as pd

from mbt_speech.arguments import RANDOM, STATS
from mbt_speech.closing_line import closing_line
from mbt_speech.reports.accuracy_pictures import draw_accuracies, draw_curves
from mbt_speech.reports.label_curves import compare_pretrainings
from mbt_speech.training.estimate import cpu_multiplies_bfloat16

from .commands import finetune, prepare, pretrain_once
from .demo import METHOD_NAMES, OBJECTIVES, to_markdown

DATA_DIR, OUTPUT_DIR = Path("data/debian_speech"), Path("runs/real")
CONTROLS = (STATS, RANDOM)
CURVE = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0)
SHARES = {"speaker": CURVE, "gender": CURVE, "nato": (1.0,), "words": (1.0,)}
"""Task -> shares of the labels to learn from."""
BARS = ("speaker 5 %", "gender 10 %", "gender 100 %", "nato 100 %", "words 100 %")
SEEDS = (0, 1, 2)
"""Of the choice of labels."""


def add_arguments(parser: ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument(
        "--seed",
        type=int,
        nargs="+",
        default=[0],
        help="seeds of pre-training (default: 0); with three or more, BT and MBT are compared",
    )


def main(args: Namespace) -> None:
    """Runs every step that is left, then draws and prints what came out."""
    prepare("debian_speech", "--output_dir", str(DATA_DIR))
    encoders = []
    for seed, objective in product(args.seed, OBJECTIVES):
        encoders.append(encoder_dir(objective, seed))
        words = ["recipes/real_pretrain.yaml", "--objective", objective, "--seed", str(seed)]
        words += ["--mixed_precision", "bf16"] if cpu_multiplies_bfloat16() else []
        pretrain_once(*words, output_dir=encoders[-1])
    for task, shares in SHARES.items():
        words = ["--model_name_or_path", *map(str, encoders), *CONTROLS, "--freeze_encoder"]
        words += ["--label_fraction", *map(str, shares), "--seed", *map(str, SEEDS)]
        finetune("--train_dir", str(DATA_DIR / task), *words, output_dir=OUTPUT_DIR / task)
    report(collect(args.seed))


def encoder_dir(objective: str, seed: int) -> Path:
    """Returns the folder of an encoder."""
    return OUTPUT_DIR / f"{objective}{seed}"


def collect(seeds: Sequence[int]) -> pd.DataFrame:
    """Gathers the results of all tasks: a row for each task with its share of the labels, method and seeds."""
    places = {str(encoder_dir(one, seed)): (f"{one} frozen", seed) for seed, one in product(seeds, OBJECTIVES)}
    places |= {control: (control, None) for control in CONTROLS}
    results = pd.concat(
        [pd.read_csv(OUTPUT_DIR / task / "results.csv").assign(task=task) for task in SHARES], ignore_index=True
    )
    results["pretraining_seed"] = [places[name][1] for name in results["method"]]
    results["method"] = pd.Categorical(
        [METHOD_NAMES[places[name][0]] for name in results["method"]],
        [METHOD_NAMES[key] for key in (*CONTROLS, *(f"{objective} frozen" for objective in OBJECTIVES))],
        ordered=True,
    )
    shares = results["label_fraction"].map(lambda share: f"{100 * share:g} %")
    columns = [f"{task} {100 * share:g} %" for task in SHARES for share in SHARES[task]]
    results["task"] = pd.Categorical(results["task"] + " " + shares, columns, ordered=True)
    return results.sort_values(["task", "method", "pretraining_seed", "seed"]).reset_index(drop=True)


def report(results: pd.DataFrame) -> None:
    """Writes results.csv, tables, differences and pictures; prints what is text."""
    results.to_csv(OUTPUT_DIR / "results.csv", index=False)
    title = "Top-1 accuracy in %, real speech, by the share of the labels, mean ± standard deviation over seeds"
    objectives = {METHOD_NAMES[f"{objective} frozen"]: objective.upper() for objective in OBJECTIVES}
    compared = results.assign(method=results["method"].map(objectives.get)).to_dict("records")
    text = "\n\n".join([f"{title}:", to_markdown(results), *compare_pretrainings(compared)]) + "\n"
    (OUTPUT_DIR / "results.md").write_text(text, encoding="utf-8")
    bars = pd.DataFrame(results[results["task"].isin(BARS)])
    draw_accuracies(OUTPUT_DIR / "accuracy.png", bars, "Real speech, frozen, mean and deviation over seeds")
    several = results["task"].str.startswith(tuple(task for task, shares in SHARES.items() if len(shares) > 1))
    curves = results.assign(curve=results["method"], position=100 * results["label_fraction"])
    curves["task"] = curves["task"].str.split().str[0]
    draw_curves(
        OUTPUT_DIR / "label_fractions.png",
        pd.DataFrame(curves[several]),
        "share of the labels (%)",
        "Real speech, frozen",
    )
    print(f"\n{text}\n{closing_line(f'Everything is in {OUTPUT_DIR}', 'mbt', 'report')}")
