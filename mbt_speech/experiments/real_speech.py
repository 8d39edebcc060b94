"""Pre-train on real speech and compare frozen encoders on four tasks: both objectives, two controls.

The recordings come from Debian packages (docs/real_speech.md). `runs/real` then holds checkpoints, results.csv, the
table results.md and its picture. What is done is not done again: a second call goes on where the first one stopped.
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path

import pandas as pd

from mbt_speech.arguments import RANDOM, STATS
from mbt_speech.closing_line import closing_line
from mbt_speech.reports.accuracy_pictures import draw_accuracies

from .commands import finetune, pretrain_once, run
from .demo import METHOD_NAMES, OBJECTIVES, to_markdown

DATA_DIR, OUTPUT_DIR = Path("data/debian_speech"), Path("runs/real")
CONTROLS = (STATS, RANDOM)
SHARES = {"speaker": (0.05, 1.0), "gender": (0.1, 1.0), "nato": (1.0,), "words": (1.0,)}
"""Task -> shares of the labels to learn from."""
SEEDS = (0, 1, 2)


def add_arguments(parser: ArgumentParser) -> None:
    """Adds the command's arguments: there are none."""


def main(args: Namespace) -> None:
    """Runs every step that is left, then draws and prints what came out."""
    run("-m", "mbt_speech", "prepare", "debian_speech", "--output_dir", str(DATA_DIR))
    encoders = [OUTPUT_DIR / objective for objective in OBJECTIVES]
    for objective, encoder in zip(OBJECTIVES, encoders, strict=True):
        pretrain_once("recipes/real_pretrain.yaml", "--objective", objective, output_dir=encoder)
    for task, shares in SHARES.items():
        words = ["--model_name_or_path", *map(str, encoders), *CONTROLS, "--freeze_encoder"]
        words += ["--label_fraction", *map(str, shares), "--seed", *map(str, SEEDS)]
        finetune("--train_dir", str(DATA_DIR / task), *words, output_dir=OUTPUT_DIR / task)
    report(collect())


def collect() -> pd.DataFrame:
    """Gathers the results of all tasks: a row for each task with its share of the labels, method and seed."""
    results = pd.concat(
        [pd.read_csv(OUTPUT_DIR / task / "results.csv").assign(task=task) for task in SHARES], ignore_index=True
    )
    keys = [name if name in CONTROLS else f"{Path(name).name} frozen" for name in results["method"]]
    names = [METHOD_NAMES[key] for key in (*CONTROLS, *(f"{objective} frozen" for objective in OBJECTIVES))]
    results["method"] = pd.Categorical([METHOD_NAMES[key] for key in keys], names, ordered=True)
    shares = results["label_fraction"].map(lambda share: f"{100 * share:g} %")
    columns = [f"{task} {100 * share:g} %" for task in SHARES for share in SHARES[task]]
    results["task"] = pd.Categorical(results["task"] + " " + shares, columns, ordered=True)
    return results.sort_values(["task", "method", "seed"]).reset_index(drop=True)


def report(results: pd.DataFrame) -> None:
    """Writes results.csv, the table and the picture, and prints the table."""
    results.to_csv(OUTPUT_DIR / "results.csv", index=False)
    title = "Top-1 accuracy in %, real speech, by the share of the labels, mean ± standard deviation over seeds"
    text = f"{title}:\n\n{to_markdown(results)}\n"
    (OUTPUT_DIR / "results.md").write_text(text, encoding="utf-8")
    draw_accuracies(OUTPUT_DIR / "accuracy.png", results, "Real speech, frozen, mean and deviation over seeds")
    print(f"\n{text}\n{closing_line(f'Everything is in {OUTPUT_DIR}', 'mbt', 'report')}")
