"""What an ablation shows: accuracies over the grid, and how cells differ from the first one.

An ablation leaves `ablation.json`: `title`, `data`, `axis` (the argument along the horizontal axis, or
`label_fraction`), and `results`, an object for each fitted head: `task`, `curve`, `position` (null: a line across),
`label_fraction`, `accuracy`, `chance`, `cell`, `pretraining_seed`.
"""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from .label_curves import compare_pretrainings
from .plain_text import plain
from .tables import markdown_table

ABLATION_NAME = "ablation.json"
LABEL_FRACTION = "label_fraction"


def ablation_text(ablation: Mapping[str, Any]) -> str:
    """Returns the Markdown of an ablation: what it is of, a table, and differences where seeds suffice."""
    caption = (
        f"{plain(ablation['title'])}: accuracy in %, mean ± standard deviation over seeds ({plain(ablation['data'])})"
    )
    compared = [
        {**row, "task": f"{row['task']}, {100 * row[LABEL_FRACTION]:g} % of the labels", "method": row["cell"]}
        for row in ablation["results"]
    ]
    return "\n\n".join([caption, *_baselines(ablation), _accuracies(ablation), *compare_pretrainings(compared)])


def _baselines(ablation: Mapping[str, Any]) -> list[str]:
    """Says which rows are baselines."""
    results = ablation["results"]
    names = dict.fromkeys(plain(row["curve"]) for row in results if row["position"] is None)
    axis = ablation["axis"].split(".")[-1]
    return [f"Baselines, dashed in the picture and the same for every {axis}: {'; '.join(names)}."] if names else []


def _accuracies(ablation: Mapping[str, Any]) -> str:
    results = pd.DataFrame(ablation["results"])
    results["position"] = ["" if pd.isna(value) else value for value in results["position"]]
    head = {"curve": "", "position": ablation["axis"].split(".")[-1], LABEL_FRACTION: "labels"}
    if ablation["axis"] == LABEL_FRACTION:
        head.pop(LABEL_FRACTION)
    table = results.groupby([*head, "task"], sort=False)["accuracy"].agg(["mean", "std"]) * 100
    cells = table.apply(
        lambda row: f"{row['mean']:.1f}" + ("" if pd.isna(row["std"]) else f" ± {row['std']:.1f}"), axis=1
    ).unstack("task")
    rows = ([*index, *row] for index, row in zip(cells.index, cells.to_numpy(), strict=True))
    return markdown_table([*head.values(), *cells.columns], rows)
