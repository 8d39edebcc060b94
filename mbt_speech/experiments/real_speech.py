"""Pre-train on real speech with BT and MBT, and compare encoders with controls on four tasks.

The recordings come from Debian packages (docs/real_speech.md), which are downloaded. `runs/real` then contains the
encoders, results.csv, the table results.md and pictures. A second call continues one that was stopped.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import pandas as pd

from mbt_speech.arguments import RANDOM, STATS, SUPERVISED
from mbt_speech.closing_line import closing_line
from mbt_speech.reports.accuracy_pictures import colors_of, draw_accuracies, draw_curves
from mbt_speech.reports.label_curves import compare_pretrainings
from mbt_speech.training.estimate import cpu_multiplies_bfloat16

from .commands import finetune, prepare, pretrain_once
from .demo import CONTINUE, METHOD_NAMES, OBJECTIVES, method_name, to_markdown

DATA_DIR, OUTPUT_DIR = Path("data/debian_speech"), Path("runs/real")
CONTROLS = (STATS, RANDOM)
CURVE = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0)
SHARES = {"speaker": CURVE, "gender": CURVE, "nato": (1.0,), "words": (1.0,)}
"""Task -> shares of the labels to learn from with frozen encoders."""
TRAINED_CURVE = (0.05, 0.1, 0.25, 1.0)
TRAINED_SHARES = {"speaker": TRAINED_CURVE, "gender": TRAINED_CURVE, "nato": (1.0,), "words": (1.0,)}
"""The same with whole networks."""
TRAINED = ("--save_steps", "0", *CONTINUE)
"""Options of the training of whole networks."""
BARS = ("speaker 5 %", "gender 10 %", "gender 100 %", "nato 100 %", "words 100 %")
SEEDS = (0, 1, 2)
"""Of the choice of labels."""
COMPARED = [
    tuple(METHOD_NAMES[key] for key in pair)
    for pair in (
        ("bt frozen", "mbt frozen"),
        ("bt trained", "mbt trained"),
        ("bt frozen", "bt trained"),
        ("mbt frozen", "mbt trained"),
    )
]
"""Pairs of methods whose difference is estimated."""


def add_arguments(parser: ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument(
        "--seed",
        type=int,
        nargs="+",
        default=[0],
        help="seeds of pre-training (default: 0); with three or more, BT and MBT are compared",
    )
    parser.add_argument(
        "--finetune",
        action="store_true",
        help="also fine-tune the encoders, and train the same network from scratch (`supervised`): hours",
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
    methods_of = {"frozen": [*encoders, *CONTROLS]}
    if args.finetune:
        methods_of |= {"full": encoders, "supervised": [SUPERVISED]}
    for kind, methods in methods_of.items():
        how, shares_of = (("--freeze_encoder",), SHARES) if kind == "frozen" else (TRAINED, TRAINED_SHARES)
        for task, shares in shares_of.items():
            words = ["--model_name_or_path", *map(str, methods), *how]
            words += ["--label_fraction", *map(str, shares), "--seed", *map(str, SEEDS)]
            finetune("--train_dir", str(DATA_DIR / task), *words, output_dir=sweep_dir(task, kind))
    report(collect(args.seed, list(methods_of)))


def encoder_dir(objective: str, seed: int) -> Path:
    """Returns the folder of an encoder."""
    return OUTPUT_DIR / f"{objective}{seed}"


def sweep_dir(task: str, kind: str) -> Path:
    """Returns the folder of a sweep."""
    return OUTPUT_DIR / f"{task}_{kind}"


def collect(seeds: Sequence[int], kinds: Sequence[str]) -> pd.DataFrame:
    """Gathers the results of all tasks: a row for each task with its share of the labels, method and seeds."""
    tables = [
        pd.read_csv(sweep_dir(task, kind) / "results.csv").assign(task=task) for kind, task in product(kinds, SHARES)
    ]
    results = pd.concat(tables, ignore_index=True)
    places = {str(encoder_dir(one, seed)): (one, seed) for seed, one in product(seeds, OBJECTIVES)}
    named = [places.get(method, (method, None)) for method in results["method"]]
    results["pretraining_seed"] = [seed for _, seed in named]
    names = [method_name(method, encoder) for (method, _), encoder in zip(named, results["encoder"], strict=True)]
    results["method"] = pd.Categorical(names, [name for name in METHOD_NAMES.values() if name in names], ordered=True)
    shares = results["label_fraction"].map(lambda share: f"{100 * share:g} %")
    columns = [f"{task} {100 * share:g} %" for task in SHARES for share in SHARES[task]]
    results["task"] = pd.Categorical(results["task"] + " " + shares, columns, ordered=True)
    return results.sort_values(["task", "method", "pretraining_seed", "seed"]).reset_index(drop=True)


def report(results: pd.DataFrame) -> None:
    """Writes results.csv, tables, differences and pictures; prints what is text."""
    results.to_csv(OUTPUT_DIR / "results.csv", index=False)
    title = "Top-1 accuracy in %, real speech, by the share of the labels, mean ± standard deviation over seeds"
    differences = []
    for first, second in COMPARED:
        if {first, second} <= set(results["method"]):
            of_pair = pd.DataFrame(results[results["method"].isin([first, second])])
            differences += compare_pretrainings(of_pair.to_dict("records"))
    text = "\n\n".join([f"{title}:", to_markdown(results), *dict.fromkeys(differences)]) + "\n"
    (OUTPUT_DIR / "results.md").write_text(text, encoding="utf-8")
    bars = pd.DataFrame(results[results["task"].isin(BARS)])
    draw_accuracies(OUTPUT_DIR / "accuracy.png", bars, "Real speech, mean and deviation over seeds")
    several = results["task"].str.startswith(tuple(task for task, shares in SHARES.items() if len(shares) > 1))
    curves = results.assign(curve=results["method"], position=100 * results["label_fraction"])
    curves["task"] = curves["task"].str.split().str[0]
    draw_curves(
        OUTPUT_DIR / "label_fractions.png",
        pd.DataFrame(curves[several]),
        "share of the labels (%)",
        "Real speech",
        colors_of(list(results["method"].cat.categories)),
    )
    print(f"\n{text}\n{closing_line(f'Everything is in {OUTPUT_DIR}', 'mbt', 'report')}")
