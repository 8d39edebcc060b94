"""Pre-train and fine-tune on synthetic speech: both objectives, three tasks, three controls, by the scripts' commands.

`runs/demo` then holds checkpoints, results.csv and pictures.
"""

import time
from argparse import ArgumentParser, Namespace
from pathlib import Path

import numpy as np
import pandas as pd

from mbt_speech.reports.pictures import draw_accuracies, draw_cross_correlations, draw_losses
from mbt_speech.training.run_log import read_log

from .commands import finetune, pretrain, run

OUTPUT_DIR = Path("runs/demo")
OBJECTIVES = ("bt", "mbt")
# A demo that was stopped goes on where it was.
CONTINUE = ("--resume_from_checkpoint", "auto")
TASKS = {"speaker": "speaker_split", "gender": "split", "keyword": "split"}
METHOD_NAMES = {
    "stats": "log-mel statistics",
    "random": "random encoder, frozen",
    "bt frozen": "BT, frozen",
    "mbt frozen": "MBT, frozen",
    "supervised": "supervised from scratch",
    "bt trained": "BT, fine-tuned",
    "mbt trained": "MBT, fine-tuned",
}


def add_arguments(parser: ArgumentParser) -> None:
    """Adds the command's arguments: there are none."""


def main(args: Namespace) -> None:
    """Runs every step, then draws and prints what came out."""
    start = time.perf_counter()
    run("-m", "mbt_speech", "prepare", "synthetic", "--size", "small")
    for objective in OBJECTIVES:
        words = ("--objective", objective, *CONTINUE)
        pretrain("recipes/demo_pretrain.yaml", *words, output_dir=OUTPUT_DIR / objective)
    encoders = [str(OUTPUT_DIR / objective) for objective in OBJECTIVES]
    for task, split_column in TASKS.items():
        words = ("--label_column_name", task, "--split_column_name", split_column, "--model_name_or_path", *encoders)
        frozen, full = (*words, "random", "stats", *CONTINUE), (*words, "supervised", *CONTINUE)
        finetune("recipes/demo_frozen.yaml", *frozen, output_dir=OUTPUT_DIR / f"{task}_frozen")
        finetune("recipes/demo_full.yaml", *full, output_dir=OUTPUT_DIR / f"{task}_full")
    report(collect())
    print(f"The demo took {(time.perf_counter() - start) / 60:.1f} minutes; everything is in {OUTPUT_DIR}.")


def collect() -> pd.DataFrame:
    """Gather the results of all tasks: a row for each task, method and seed."""
    results = pd.concat([pd.read_csv(path) for path in sorted(OUTPUT_DIR.glob("*_*/results.csv"))])
    names = results["method"].map(lambda method: Path(method).name)
    keys = names.where(~names.isin(OBJECTIVES), names + " " + results["encoder"])
    results["method"] = pd.Categorical(keys.map(METHOD_NAMES.get), list(METHOD_NAMES.values()), ordered=True)
    results["task"] = pd.Categorical(results["task"], list(TASKS), ordered=True)
    return results.sort_values(["task", "method", "seed"]).reset_index(drop=True)


def report(results: pd.DataFrame) -> None:
    """Write results.csv and the pictures, and print the table."""
    results.assign(data="synthetic").to_csv(OUTPUT_DIR / "results.csv", index=False)
    share = f"{100 * results['label_fraction'].iloc[0]:g} % of the labels"
    logs = {objective.upper(): read_log(OUTPUT_DIR / objective) for objective in OBJECTIVES}
    draw_losses(OUTPUT_DIR / "loss.png", logs, "Pre-training on synthetic speech")
    matrices = {}
    for objective in OBJECTIVES:
        with np.load(OUTPUT_DIR / objective / "cross_correlation.npz") as saved:
            matrices |= {f"{objective.upper()} {moment} pre-training": saved[moment] for moment in ("before", "after")}
    draw_cross_correlations(
        OUTPUT_DIR / "cross_correlation.png", matrices, "Cross-correlation of latents, synthetic speech"
    )
    draw_accuracies(OUTPUT_DIR / "accuracy.png", results, f"Synthetic speech, {share}, mean and deviation over seeds")
    print(f"\nTop-1 accuracy in %, synthetic speech, {share}, mean ± standard deviation over seeds:\n")
    print(to_markdown(results))


def to_markdown(results: pd.DataFrame) -> str:
    """Format the table of task x method."""
    tasks = list(dict.fromkeys(results["task"]))
    chance = [f"{100 * results[results['task'] == task]['chance'].mean():.1f}" for task in tasks]
    lines = [
        "| | " + " | ".join(tasks) + " |",
        "|---|" + "---|" * len(tasks),
        "| chance | " + " | ".join(chance) + " |",
    ]
    for method in results["method"].cat.categories:
        cells = []
        for task in tasks:
            values = 100 * results[(results["task"] == task) & (results["method"] == method)]["accuracy"]
            cells.append(f"{values.mean():.1f} ± {values.std():.1f}")
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
