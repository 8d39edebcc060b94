"""Pre-train and fine-tune on synthetic speech with BT and MBT, and compare them with three controls on three tasks.

It takes minutes on two CPU cores. `runs/demo` then contains the models, results.csv and pictures. A second call
continues one that was stopped.
"""

import json
import time
from argparse import ArgumentParser, Namespace
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from mbt_speech.arguments import RANDOM, STATS, SUPERVISED, SYNTHETIC
from mbt_speech.closing_line import closing_line
from mbt_speech.reports.accuracy_pictures import draw_accuracies
from mbt_speech.reports.label_curves import SWEEP_NAME
from mbt_speech.reports.pictures import draw_cross_correlations, draw_losses
from mbt_speech.reports.tables import markdown_table
from mbt_speech.training.run_log import read_log

from .commands import finetune, prepare, pretrain_once

OUTPUT_DIR = Path("runs/demo")
OBJECTIVES = ("bt", "mbt")
SEEDS = (0, 1)
"""Of pre-training; that of the first encoder is also that of what is fine-tuned."""
# A demo that was stopped goes on where it was.
CONTINUE = ("--resume_from_checkpoint", "auto")
KINDS = ("frozen", "full", "supervised")
"""Of training, each with a recipe."""
TASKS = {"speaker": "speaker_split", "gender": "split", "keyword": "split"}
METHOD_NAMES = {
    STATS: "log-mel statistics",
    RANDOM: "random encoder, frozen",
    "bt frozen": "BT, frozen",
    "mbt frozen": "MBT, frozen",
    SUPERVISED: "supervised from scratch",
    "bt trained": "BT, fine-tuned",
    "mbt trained": "MBT, fine-tuned",
}


def add_arguments(parser: ArgumentParser) -> None:
    """Adds the command's arguments: there are none."""


def main(args: Namespace) -> None:
    """Runs every step, then draws and prints what came out."""
    start = time.perf_counter()
    prepare(SYNTHETIC, "--size", "small")
    for seed, objective in product(SEEDS, OBJECTIVES):
        words = ("recipes/demo_pretrain.yaml", "--objective", objective, "--seed", str(seed))
        pretrain_once(*words, output_dir=encoder_dir(objective, seed))
    encoders = [str(encoder_dir(objective, seed)) for seed, objective in product(SEEDS, OBJECTIVES)]
    methods_of = dict(zip(KINDS, ([*encoders, RANDOM, STATS], encoders[: len(OBJECTIVES)], [SUPERVISED]), strict=True))
    for task, split_column in TASKS.items():
        data = ("--label_column_name", task, "--split_column_name", split_column, *CONTINUE)
        for name, methods in methods_of.items():
            words = (f"recipes/demo_{name}.yaml", *data, "--model_name_or_path", *methods)
            finetune(*words, output_dir=OUTPUT_DIR / f"{task}_{name}")
    report(collect())
    minutes = (time.perf_counter() - start) / 60
    print(closing_line(f"The demo took {minutes:.1f} minutes; everything is in {OUTPUT_DIR}", "mbt", "report"))


def encoder_dir(objective: str, seed: int) -> Path:
    """Returns the folder of an encoder."""
    return OUTPUT_DIR / f"{objective}{seed}"


def method_name(method: str, encoder: str) -> str:
    """Names an objective or a control, whose encoder is `frozen` or `trained`, as tables and pictures do."""
    return METHOD_NAMES[f"{method} {encoder}" if method in OBJECTIVES else method]


def collect() -> pd.DataFrame:
    """Gathers the results of all tasks: a row for each task, method and seeds."""
    paths = [OUTPUT_DIR / f"{task}_{kind}" / SWEEP_NAME for task, kind in product(TASKS, KINDS)]
    sweeps = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    results = pd.DataFrame([row for sweep in sweeps for row in sweep["results"]])
    places = {str(encoder_dir(one, seed)): (one, seed) for seed, one in product(SEEDS, OBJECTIVES)}
    named = [places.get(method, (method, None)) for method in results["method"]]
    names = [method_name(method, encoder) for (method, _), encoder in zip(named, results["encoder"], strict=True)]
    results["pretraining_seed"] = [seed for _, seed in named]
    results["method"] = pd.Categorical(names, list(METHOD_NAMES.values()), ordered=True)
    results["task"] = pd.Categorical(results["task"], list(TASKS), ordered=True)
    return results.sort_values(["task", "method", "pretraining_seed", "seed"]).reset_index(drop=True)


def report(results: pd.DataFrame) -> None:
    """Writes results.csv and the pictures, and prints the table."""
    results.assign(data=SYNTHETIC).to_csv(OUTPUT_DIR / "results.csv", index=False)
    share = f"{100 * results['label_fraction'].iloc[0]:g} % of the labels"
    shown = {objective: encoder_dir(objective, SEEDS[0]) for objective in OBJECTIVES}
    logs = {objective.upper(): read_log(folder) for objective, folder in shown.items()}
    draw_losses(OUTPUT_DIR / "loss.png", logs, "Pre-training on synthetic speech")
    matrices = {}
    for objective, folder in shown.items():
        with np.load(folder / "cross_correlation.npz") as saved:
            matrices |= {f"{objective.upper()} {moment} pre-training": saved[moment] for moment in ("before", "after")}
    draw_cross_correlations(
        OUTPUT_DIR / "cross_correlation.png", matrices, "Cross-correlation of latents, synthetic speech"
    )
    draw_accuracies(OUTPUT_DIR / "accuracy.png", results, f"Synthetic speech, {share}, mean and deviation over seeds")
    print(f"\nTop-1 accuracy in %, synthetic speech, {share}, mean ± standard deviation over seeds:\n")
    print(to_markdown(results))


def to_markdown(results: pd.DataFrame) -> str:
    """Returns the table of task x method."""
    tasks = list(dict.fromkeys(results["task"]))
    rows = [["chance", *(f"{100 * results[results['task'] == task]['chance'].mean():.1f}" for task in tasks)]]
    for method in results["method"].cat.categories:
        values = [
            100 * results.loc[(results["task"] == task) & (results["method"] == method), "accuracy"].to_numpy()
            for task in tasks
        ]
        rows.append([method, *(_mean_and_deviation(of_task) for of_task in values)])
    return markdown_table(["", *tasks], rows)


def _mean_and_deviation(values: np.ndarray) -> str:
    if not len(values):
        return ""
    return f"{values.mean():.1f}" + (f" ± {values.std(ddof=1):.1f}" if len(values) > 1 else "")
