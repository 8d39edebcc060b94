"""Collect the results of all runs on one page: tables, pictures, how they were measured, versions.

    mbt report --runs_dir runs

`runs/report` then contains `report.md` with its `pictures`, and `report.html`, a single file to send.
"""

import json
import os
import platform
import shutil
import textwrap
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mbt_speech.closing_line import closing_line
from mbt_speech.command_line import RECIPE_NAME, load_yaml, recipe_to_share
from mbt_speech.training.run_log import last_step, read_log

from .ablation_table import ABLATION_NAME, ablation_text
from .label_curves import SWEEP_NAME, label_curves, short_names, sweep_text, sweep_title
from .pictures import draw_cross_correlations, draw_losses
from .plain_text import plain
from .report_page import to_html
from .software import software_versions
from .tables import markdown_table

MEASURES = {
    "loss": "loss",
    "loss_floor": "its floor",
    "mean_correlation": "mean C_ii",
    "off_diagonal_rms": "rms C_ij",
    "effective_rank": "rank of projections",
    "representation_effective_rank": "rank of representations",
}
SWEEP_PICTURES = {
    "label_fractions.png": "Accuracy against the share of the labels",
    "embeddings.png": "Representations of the test clips in two dimensions",
    "spectra.png": "Spectra of the representations' covariance",
    "loss.png": "Losses of training",
}
PROTOCOL = """\
* **Pre-training** sees no label. Two views of each crop are compared by the objective that the table names; what is
  kept is the encoder.
* **Splits.** A task's recordings are divided into train, validation and test before anything is learned, by the data
  set or by its recipe. The test split is used once for each classifier, after everything about it has been chosen.
* **Shares of the labels** are drawn from the training and the validation split, stratified, with at least one clip of
  each class. With one seed a smaller share is contained in every larger one.
* **Frozen encoders**: every clip is represented once; a regularized discriminant analysis or a multinomial logistic
  regression is fitted on standardized representations. Validation, or cross-validation where it has few clips,
  chooses kind and strength, and the choice learns from all labels given. **Trained encoders** start at that head, and
  weights on the way to the trained ones are chosen on validation.
* **Controls.** `random` is the same architecture as it is initialized, `stats` mean, deviation and
  maximum of the log-mels and of their slopes over time, `supervised` the same architecture trained on the given labels
  alone.
* **Seeds and intervals.** In a sweep a seed decides which labels are given and how the classifier starts; the encoder
  is one checkpoint. Means are over seeds, with half of Student's 95 % interval where it says so. Differences are
  paired by seed; where an interval holds zero, no difference is shown. A difference between *objectives* takes several
  pre-trainings each: ablations that vary `seed` at least three times pair by the seed of pre-training."""


def add_arguments(parser: ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument(
        "--runs_dir", type=Path, default=Path("runs"), help="folder of runs, sweeps and ablations (default: runs)"
    )
    parser.add_argument("--output_dir", type=Path, help="folder for the report (default: report in runs_dir)")


def main(args: Namespace) -> None:
    """Writes the report."""
    output_dir = args.output_dir or args.runs_dir / "report"
    runs = find_runs(args.runs_dir)
    if not any(runs.values()):
        raise ValueError(f"There is nothing to report below {args.runs_dir}: `mbt demo` makes something.")
    gallery = Gallery(output_dir)
    text = "\n\n".join(
        [
            *introduction(runs),
            *(["## Results", *results(args.runs_dir, runs["sweeps"], gallery)] if runs["sweeps"] else []),
            *(["## Pre-training", *pretraining(args.runs_dir, runs["encoders"], gallery)] if runs["encoders"] else []),
            *(["## Ablations", *ablations(runs["ablations"], gallery)] if runs["ablations"] else []),
            *["## Protocol", PROTOCOL, "## Software and machine", machine()],
            *["## Arguments", *recipes(args.runs_dir, [*runs["encoders"], *runs["sweeps"]])],
        ]
    )
    (output_dir / "report.md").write_text(text + "\n", encoding="utf-8")
    (output_dir / "report.html").write_text(to_html(text, output_dir), encoding="utf-8")
    page = output_dir / "report.html"
    result = f"{output_dir / 'report.md'} and {page}: {describe(runs)}"
    print(closing_line(result, "python", "-m", "webbrowser", page))


class Gallery:
    """Pictures of the report: a copy of each beside it, and the Markdown that shows it."""

    def __init__(self, output_dir: Path):
        self.output_dir, self.folder = output_dir, output_dir / "pictures"
        self.folder.mkdir(parents=True, exist_ok=True)
        last = output_dir / "report.md"
        text = last.read_text(encoding="utf-8", errors="replace") if last.is_file() else ""
        for path in self.folder.iterdir():
            if f"]({path.relative_to(output_dir).as_posix()})" in text:  # of the last report
                path.unlink()

    def new_path(self, name: str) -> Path:
        """Returns a path for a picture that is still to be drawn."""
        return self.folder / f"{len(list(self.folder.iterdir())):02d}-{name}"

    def show(self, path: Path, caption: str) -> str:
        """Returns the Markdown of a picture."""
        if path.parent != self.folder:
            path = Path(shutil.copyfile(path, self.new_path(path.name)))
        return f"![{plain(caption)}]({path.relative_to(self.output_dir).as_posix()})"


def find_runs(runs_dir: Path) -> dict[str, list[Path]]:
    """Finds encoders, sweeps, and ablations, of which their own encoders and sweeps are not listed."""
    ablations = sorted(path.parent for path in runs_dir.rglob(ABLATION_NAME))

    def folders(name: str) -> list[Path]:
        found = sorted(path.parent for path in runs_dir.rglob(name))
        return [folder for folder in found if not any(folder.is_relative_to(other) for other in ablations)]

    return {
        "encoders": folders("cross_correlation.npz"),
        "sweeps": folders(SWEEP_NAME),
        "ablations": ablations,
    }


def describe(runs: Mapping[str, list[Path]]) -> str:
    """Counts what was found."""
    words = {"encoders": "pre-trained encoder", "sweeps": "sweep", "ablations": "ablation"}
    return ", ".join(f"{len(found)} {words[kind]}{'s' * (len(found) != 1)}" for kind, found in runs.items())


def introduction(runs: Mapping[str, list[Path]]) -> list[str]:
    """Title and what the report is of."""
    return [
        "# Speech representations by invariance and redundancy reduction",
        f"{date.today():%d %B %Y}. {describe(runs).capitalize()}. Objectives are Barlow Twins (BT), its modification "
        "with L2-normalized latents (MBT, arXiv 2309.03619), and the others that the tables name.",
    ]  # fmt: skip


def results(runs_dir: Path, sweeps: list[Path], gallery: Gallery) -> list[str]:
    """One table over all tasks, then every sweep with its own table, differences and pictures."""
    found = {str(folder.relative_to(runs_dir)): read_json(folder / SWEEP_NAME) for folder in sweeps}
    sections = ["### All tasks", overview(found)]
    for folder, (name, sweep) in zip(sweeps, found.items(), strict=True):
        title = sweep_title(sweep)
        sections += [f"### {plain(title)} ({plain(name)})", sweep_text(sweep)]
        sections += [gallery.show(folder / n, f"{words}. {title}.")
                     for n, words in SWEEP_PICTURES.items() if (folder / n).is_file()]  # fmt: skip
    return sections


def overview(sweeps: Mapping[str, Mapping[str, Any]]) -> str:
    """Tabulates accuracies: a row for each method, a column for each data set and task at its least and largest share.

    Sweeps of one task on the same data share its columns, unless they have a method in common.
    """
    columns: dict[str, dict[str, str]] = {}
    names = short_names(list(dict.fromkeys(row["method"] for sweep in sweeps.values() for row in sweep["results"])))
    for name, sweep in sweeps.items():
        rows, data = sweep["results"], sweep["data"]
        points = label_curves([{**row, "method": names[row["method"]]} for row in rows])
        fractions = sorted({point.label_fraction for point in points})
        for fraction in dict.fromkeys((fractions[0], fractions[-1])):
            cells = {f"{p.method}, {p.encoder}": str(p.estimate) for p in points if p.label_fraction == fraction}
            share = f"{100 * fraction:g} %"
            column = f"{data}: {rows[0]['task']}, {share}"
            if columns.get(column, {}).keys() & cells.keys():
                column = f"{data}: {rows[0]['task']} ({name}), {share}"
            columns.setdefault(column, {}).update(cells)
    methods = dict.fromkeys(method for cells in columns.values() for method in cells)
    rows = ([method, *(cells.get(method, "") for cells in columns.values())] for method in methods)
    caption = "Top-1 accuracy on the test split in %, mean ± half of the 95 % interval over seeds."
    return f"{caption}\n\n{markdown_table(['', *columns], rows)}"


def pretraining(runs_dir: Path, encoders: list[Path], gallery: Gallery) -> list[str]:
    """Tabulates the encoders; losses and cross-correlation matrices side by side, with one color scale."""
    head = ["", "objective", "data", "steps", "pairs", *MEASURES.values()]
    rows, logs, matrices = [], {}, {}
    for folder in encoders:
        name, recipe, log = str(folder.relative_to(runs_dir)), read_recipe(folder), read_log(folder)
        pairs = recipe["per_device_train_batch_size"] * recipe["gradient_accumulation_steps"]
        data = Path(recipe["train_dir"] or recipe["dataset_name"]).name
        last = last_step(log)
        measured = [f"{last[measure]:.4g}" if measure in last else "" for measure in MEASURES]
        rows.append([name, recipe["objective"], data, str(last["step"]), str(pairs), *measured])
        logs[name] = log
        with np.load(folder / "cross_correlation.npz") as saved:
            matrices |= {f"{name}, {moment} pre-training": saved[moment] for moment in ("before", "after")}
    losses = gallery.new_path("losses.png")
    draw_losses(losses, logs, "Pre-training")
    correlations = gallery.new_path("cross_correlations.png")
    draw_cross_correlations(correlations, matrices, "Cross-correlation of the latents of two views")
    return [
        "At the last step; `pairs` are those of one process and step. With fewer pairs than latents, the loss has a "
        "floor that no network gets below.",
        markdown_table(head, rows),
        gallery.show(losses, "Losses of pre-training, and their terms."),
        gallery.show(correlations, "Cross-correlation matrices before and after pre-training, with one color scale."),
    ]


def ablations(folders: list[Path], gallery: Gallery) -> list[str]:
    """Every ablation with its table and picture."""
    sections = []
    for folder in folders:
        ablation = read_json(folder / ABLATION_NAME)
        sections += [f"### {plain(folder.name)}", ablation_text(ablation)]
        sections.append(gallery.show(folder / "accuracy.png", f"{ablation['title']}."))
    return sections


def machine() -> str:
    """Names versions and processors of this machine, which is where the report is written."""
    devices = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    rows = {
        "Python": platform.python_version(),
        **software_versions(),
        "system": platform.platform(),
        "CPU cores": os.cpu_count(),
        "GPUs": ", ".join(devices) or "none",
    }
    return "Where this report was written.\n\n" + markdown_table(["", ""], rows.items())


def recipes(runs_dir: Path, folders: Iterable[Path]) -> list[str]:
    """Every argument of every run."""
    found = [folder for folder in folders if (folder / RECIPE_NAME).is_file()]
    return [
        "Given to its script in place of its arguments, a recipe repeats the run.",
        *(
            f"#### {plain(folder.relative_to(runs_dir))}\n\n"
            + textwrap.indent(recipe_to_share(folder / RECIPE_NAME).strip(), " " * 4, lambda line: True)
            for folder in found
        ),
    ]


def read_json(path: Path) -> dict[str, Any]:
    """Reads what a sweep or an ablation left.

    Raises:
        ValueError: It is damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: call again what wrote it, or delete it.") from error


def read_recipe(folder: Path) -> dict[str, Any]:
    """Reads a run's arguments."""
    return load_yaml(folder / RECIPE_NAME)
