"""Pre-train over a grid of options, fit linear classifiers on every encoder, and draw accuracy over the grid.

    mbt ablation recipes/ablations/density.yaml

`runs/ablations/<name>` then contains an encoder for each cell of the grid, `results.csv`, `results.md` and
`accuracy.png`. A second call continues one that was stopped.
"""

import hashlib
import itertools
import json
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from mbt_speech.arguments import FROZEN_CONTROLS
from mbt_speech.closing_line import closing_line
from mbt_speech.command_line import as_words, load_yaml
from mbt_speech.reports.ablation_table import ABLATION_NAME, LABEL_FRACTION, ablation_text
from mbt_speech.reports.accuracy_pictures import draw_curves
from mbt_speech.reports.label_curves import SWEEP_NAME

from .commands import finetune, pretrain_once

OUTPUT_DIR = Path("runs/ablations")


@dataclass(frozen=True)
class Ablation:
    """A recipe of `recipes/ablations`."""

    title: str
    """What the picture is about."""
    axis: str
    """The varied argument along the horizontal axis, or `label_fraction`; the others make curves, and `seed` makes
    repetitions: with three or more, cells are compared, paired by it."""
    vary: dict[str, list | dict[str, Any]]
    """Argument of pre-training -> its values, or their names -> values. `config_overrides.x` is entry x of that JSON
    object."""
    pretrain: dict[str, Any]
    """Arguments that all encoders share; `recipe` is a YAML file of further ones."""
    finetune: dict[str, Any]
    """Arguments of the linear heads, with a `recipe` like the encoders'."""
    tasks: dict[str, str | None]
    """Label column -> column of its splits, if there is one."""
    baseline: dict[str, Any] | None = None
    """Arguments of one more encoder, drawn as a line across; `{}` is the shared arguments alone."""
    controls: list[str] = field(default_factory=lambda: list(FROZEN_CONTROLS))
    """Encoders without pre-training."""

    def __post_init__(self):
        if not isinstance(self.controls, list):
            raise ValueError("`controls` lists encoders without pre-training: [random, stats], or [] for none")
        if not isinstance(self.baseline, dict | None):
            raise ValueError("`baseline` has the arguments of one more encoder: {objective: bt}, or {}, or null")
        if not isinstance(self.tasks, dict):
            raise ValueError("`tasks` names label columns, each with the column of its splits or null: speaker: null")
        if not isinstance(self.vary, dict) or not all(values and isinstance(values, list | dict)
                                                      for values in self.vary.values()):  # fmt: skip
            raise ValueError(
                "`vary` names arguments, each with a list of values, or with names of values: seed: [0, 1]"
            )
        if self.axis not in (*self.vary, LABEL_FRACTION):
            known = ", ".join([*self.vary, LABEL_FRACTION])
            raise ValueError(f"The axis {self.axis!r} is not varied: choose one of {known}.")
        for value in self.vary.get(self.axis, ()):
            if not isinstance(value, str | int | float):
                raise ValueError(
                    f"Give the values of the axis {self.axis!r} names to show, such as {{default: {value}}}."
                )

    def cells(self) -> list[dict[str, Any]]:
        """Returns the varied arguments of every encoder, values that have names by their names."""
        grid = [dict(zip(self.vary, values, strict=True)) for values in itertools.product(*self.vary.values())]
        return grid + ([] if self.baseline is None else [self.baseline])

    def arguments(self, cell: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the arguments of pre-training for a cell."""
        named = {name: values for name, values in self.vary.items() if isinstance(values, dict)}
        return merged(
            self.pretrain,
            {
                name: named[name][value] if name in named and value in named[name] else value
                for name, value in cell.items()
            },
        )


def add_arguments(parser: ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("recipe", type=Path, help="a YAML file with a grid, such as those in recipes/ablations")
    parser.add_argument("--output_dir", type=Path, help="folder for the results (default: runs/ablations/NAME)")


def main(args: Namespace) -> None:
    """Runs an ablation."""
    ablation = read_ablation(args.recipe)
    output_dir = args.output_dir or OUTPUT_DIR / args.recipe.stem
    encoders = {}
    for number, cell in enumerate(ablation.cells()):
        print(f"\n[{number + 1}/{len(ablation.cells())}] {describe(cell)}", flush=True)
        encoders[train_encoder(ablation, cell, output_dir)] = cell
    for task, split_column in ablation.tasks.items():
        words = ["--model_name_or_path", *map(str, encoders), *ablation.controls, "--freeze_encoder"]
        words += ["--label_column_name", task, *(["--split_column_name", split_column] if split_column else [])]
        words += as_words(ablation.finetune)
        finetune(*words, output_dir=output_dir / "tasks" / task)
    report(ablation, collect(ablation, encoders, output_dir), output_dir)


def read_ablation(path: Path) -> Ablation:
    """Reads a recipe.

    Raises:
        ValueError: It cannot be read, lacks an entry, has an unknown one, or its axis is not varied.
    """
    recipe = load_yaml(path)
    try:
        return Ablation(**recipe | {name: _from_recipe(recipe[name]) for name in ("pretrain", "finetune")})
    except (TypeError, KeyError) as error:
        raise ValueError(f"The ablation {path} is no such recipe: {error}.") from None


def _from_recipe(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Returns arguments with those of their `recipe`, which they override."""
    if not isinstance(arguments, Mapping):
        raise ValueError(f"`pretrain` and `finetune` have arguments, each with its value, and not {arguments!r}")
    shared = load_yaml(Path(arguments["recipe"])) if "recipe" in arguments else {}
    return shared | {name: value for name, value in arguments.items() if name != "recipe"}


def describe(cell: Mapping[str, Any]) -> str:
    """Names a cell of the grid."""
    return ", ".join(f"{name.split('.')[-1]} {value}" for name, value in cell.items()) or "baseline"


def train_encoder(ablation: Ablation, cell: Mapping[str, Any], output_dir: Path) -> Path:
    """Pre-trains the encoder of a cell, unless it is there, and returns its folder."""
    words = as_words(ablation.arguments(cell))
    digest = hashlib.sha256(json.dumps(words).encode()).hexdigest()[:8]
    name = "-".join(f"{key.split('.')[-1]}_{value}".replace(" ", "_") for key, value in cell.items()) or "baseline"
    folder = output_dir / "encoders" / f"{name}-{digest}"
    pretrain_once(*words, output_dir=folder)
    return folder


def merged(shared: Mapping[str, Any], cell: Mapping[str, Any]) -> dict[str, Any]:
    """Puts a cell's arguments over the shared ones; `a.b` is entry b of the object a."""
    arguments = dict(shared)
    for name, value in cell.items():
        outer, _, inner = name.partition(".")
        if inner:
            entries = arguments.get(outer) or {}
            entries = json.loads(entries) if isinstance(entries, str) else entries  # as a run writes them
            arguments[outer] = {**entries, inner: value}
        else:
            arguments[name] = value
    return arguments


def collect(ablation: Ablation, encoders: Mapping[Path, Mapping[str, Any]], output_dir: Path) -> list[dict[str, Any]]:
    """Gathers the results: a row for each task, encoder, share of labels and seed."""
    rows = []
    for task in ablation.tasks:
        sweep = json.loads((output_dir / "tasks" / task / SWEEP_NAME).read_text(encoding="utf-8"))
        for row in sweep["results"]:
            cell = encoders.get(Path(row["method"]))
            rows.append({**row, **locate(ablation, cell, row["method"], row["label_fraction"])})
    return rows


def locate(ablation: Ablation, cell: Mapping[str, Any] | None, method: str, label_fraction: float) -> dict[str, Any]:
    """Returns a result's curve and position in the picture, its cell without the seed, and that seed."""
    if cell is None or cell == ablation.baseline:
        name = method if cell is None else f"baseline: {describe(cell)}" if cell else "baseline"
        place = {"curve": name, "position": None, "cell": name, "pretraining_seed": None}
    else:
        without_seed = {name: value for name, value in cell.items() if name != "seed"}
        rest = {name: value for name, value in without_seed.items() if name != ablation.axis}
        place = {
            "curve": describe(rest) if rest else "pre-trained",
            "position": cell.get(ablation.axis),
            "cell": describe(without_seed),
            "pretraining_seed": cell.get("seed"),
        }
    return place | ({"position": label_fraction} if ablation.axis == LABEL_FRACTION else {})


def report(ablation: Ablation, results: list[dict[str, Any]], output_dir: Path) -> None:
    """Writes `ablation.json`, table and picture, and prints the table."""
    data = Path(str(ablation.pretrain.get("train_dir") or ablation.pretrain.get("dataset_name"))).name
    record = {"title": ablation.title, "data": data, "axis": ablation.axis, "results": results}
    (output_dir / ABLATION_NAME).write_text(json.dumps(record, indent=1), encoding="utf-8")
    (output_dir / "results.md").write_text(f"{ablation_text(record)}\n", encoding="utf-8")
    table = pd.DataFrame(results)
    table.to_csv(output_dir / "results.csv", index=False)
    print(f"\n{ablation_text(record)}")
    table["position"] = ["" if pd.isna(value) else value for value in table["position"]]
    draw_curves(output_dir / "accuracy.png", table, ablation.axis.split(".")[-1], f"{ablation.title} ({data})")
    print(f"\n{closing_line(f'Everything is in {output_dir}', 'mbt', 'report', '--runs_dir', output_dir.parent)}")
