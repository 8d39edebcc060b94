"""What a sweep over methods, shares of the labels and seeds shows: means with intervals, and paired differences.

Intervals are those of Student's t at 95 % over seeds. A difference is paired: of two methods that learn from the same
labels, seed by seed.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from .accuracy_pictures import draw_label_curves
from .plain_text import plain
from .tables import markdown_table

CONFIDENCE = 0.95
MIN_SEEDS = 3
ROUNDING = 1e-9  # of differences of accuracies
SWEEP_NAME = "sweep.json"

Result = Mapping[str, Any]
"""A line of `results.jsonl`."""


class Estimate(NamedTuple):
    """A mean over seeds."""

    mean: float
    half_width: float
    """Of its interval; NaN where nothing varies: one seed, or all alike, as of a linear head on all labels."""
    num_seeds: int

    def __str__(self):
        spread = "" if np.isnan(self.half_width) else f" ± {100 * self.half_width:.1f}"
        return f"{100 * self.mean:.1f}{spread}"


def estimate(values: np.ndarray) -> Estimate:
    """Returns the mean of values (N,) and its interval."""
    values = np.asarray(values, np.float64)
    if np.ptp(values) < ROUNDING:
        return Estimate(float(values.mean()), float("nan"), len(values))
    quantile = stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)
    return Estimate(float(values.mean()), float(quantile * values.std(ddof=1) / len(values) ** 0.5), len(values))


class Point(NamedTuple):
    """A method that learns from a share of the labels."""

    method: str
    encoder: str
    label_fraction: float
    estimate: Estimate


def label_curves(results: Sequence[Result], metric: str = "accuracy") -> list[Point]:
    """Averages the results of one task over seeds, methods and shares in the order in which they came."""
    values: dict[tuple[str, str, float], list[float]] = {}
    for result in results:
        key = (result["method"], result["encoder"], result["label_fraction"])
        values.setdefault(key, []).append(result[metric])
    return [Point(*key, estimate(np.array(found))) for key, found in values.items()]


def paired_difference(results: Sequence[Result], first: str, second: str, metric: str = "accuracy") -> Estimate:
    """Estimates `second` - `first`, at one share of the labels, over the seeds that both have.

    Raises:
        ValueError: They share no seed.
    """
    by_seed = [{r["seed"]: r[metric] for r in results if r["method"] == method} for method in (first, second)]
    shared = sorted(set(by_seed[0]) & set(by_seed[1]))
    if not shared:
        raise ValueError(f"{first} and {second} have no seed in common: run both with the same --seed.")
    return estimate(np.array([by_seed[1][seed] - by_seed[0][seed] for seed in shared]))


def describe_difference(difference: Estimate, first: str, second: str) -> str:
    """Returns what a paired difference shows."""
    points = f"{second} - {first}: {100 * difference.mean:+.1f} points"
    if np.isnan(difference.half_width):
        same = "one seed" if difference.num_seeds == 1 else "the same for every seed"
        return f"{points} ({same}: no interval, so nothing is shown)"
    if difference.num_seeds < MIN_SEEDS:
        return f"{points} ({difference.num_seeds} seeds: too few for an interval, so nothing is shown)"
    low, high = difference.mean - difference.half_width, difference.mean + difference.half_width
    points += f" [{100 * low:+.1f}, {100 * high:+.1f}] over {difference.num_seeds} seeds"
    if low <= 0 <= high:
        return f"{points}: no difference shown"
    return f"{points}: {second if low > 0 else first} is better"


def compare_pretrainings(results: Sequence[Result]) -> list[str]:
    """Returns how methods differ from the first one, task by task, paired by the seed of pre-training.

    Args:
        results: `task`, `method`, `pretraining_seed` (None of controls, which are left out) and `accuracy`
            of each classifier; those of one pre-training are averaged.

    Returns:
        Paragraphs of Markdown; none where there are fewer than three seeds.
    """
    table = pd.DataFrame(list(results)).dropna(subset="pretraining_seed")
    if len(set(table["pretraining_seed"])) < MIN_SEEDS:
        return []
    means = table.groupby(["task", "method", "pretraining_seed"], sort=False).agg({"accuracy": "mean"}).reset_index()
    lines = []
    for task, of_task in means.groupby("task", sort=False):
        rows = of_task.rename(columns={"pretraining_seed": "seed"}).to_dict("records")
        first, *others = of_task["method"].unique()
        for other in others:
            words = describe_difference(paired_difference(rows, first, other), plain(first), plain(other))
            lines.append(f"- {plain(task)}: {words}")
    heading = "Differences, paired by the seed of pre-training (means over choices of labels), 95 % intervals:"
    return [heading, "\n".join(lines)] if lines else []


def short_names(methods: Sequence[str]) -> dict[str, str]:
    """Names models by the ends of their paths: by their folders alone, or by as many folders as tell them apart."""
    parts = {method: Path(method).parts for method in methods}
    for length in range(1, max(map(len, parts.values()), default=0) + 1):
        names = {method: "/".join(of_method[-length:]) for method, of_method in parts.items()}
        if len(set(names.values())) == len(names):
            return names
    return {method: method for method in methods}


def describe_training(results: Sequence[Result]) -> list[str]:
    """Returns paragraphs on which weights were kept, after how many steps and minutes; none of frozen encoders."""
    found: dict[str, list[Result]] = {}
    for result in results:
        if result["encoder"] == "trained":
            found.setdefault(f"{plain(result['method'])}, {100 * result['label_fraction']:g} %", []).append(result)
    lines = []
    for name, own in found.items():
        alphas = [f"{one['alpha']:g}" for one in own if one["alpha"] is not None]
        weights = f"weights {', '.join(alphas)} of the way from the frozen fit (0) to the fine-tuned network (1); "
        steps = ", ".join(str(one["steps"]) for one in own)
        minutes = sum(one["minutes"] for one in own) / len(own)
        lines.append(f"- {name}: {weights if alphas else ''}{steps} steps, {minutes:.1f} minutes")
    heading = "What was trained, seed by seed (minutes with all that validation chose among):"
    return [heading, "\n".join(lines)] if lines else []


def write_sweep(results: Sequence[Result], pretrained: list[str], output_dir: Path, data: str) -> str:
    """Writes `sweep.json`, `results.md` and, of several shares, `label_fractions.png`.

    Args:
        results: Lines of `results.jsonl`.
        pretrained: Methods to compare with one another, pair by pair.
        output_dir: Folder to write to.
        data: What the clips are of.

    Returns:
        The text of `results.md`.
    """
    sweep = {"data": data, "pretrained": pretrained, "results": list(results)}
    (output_dir / SWEEP_NAME).write_text(json.dumps(sweep, indent=1), encoding="utf-8")
    text = f"# {plain(sweep_title(sweep))}\n\n{sweep_text(sweep)}\n"
    (output_dir / "results.md").write_text(text, encoding="utf-8")
    curves = label_curves(_with_short_names(sweep)["results"])
    drawn: dict[str, dict[float, tuple[float, float]]] = {}
    for point in curves:
        values = point.estimate.mean, point.estimate.half_width
        drawn.setdefault(f"{point.method}, {point.encoder}", {})[point.label_fraction] = values
    picture = output_dir / "label_fractions.png"
    picture.unlink(missing_ok=True)  # of an earlier call with several shares
    if len({point.label_fraction for point in curves}) > 1:
        draw_label_curves(picture, drawn, 100 * results[0]["chance"], sweep_title(sweep))
    return text


def sweep_title(sweep: Mapping[str, Any]) -> str:
    """Returns task and data."""
    return f"{sweep['results'][0]['task']}, {sweep['data']}"


def sweep_text(sweep: Mapping[str, Any]) -> str:
    """Returns table and differences of what `sweep.json` holds, in Markdown."""
    sweep = _with_short_names(sweep)
    results, pretrained = sweep["results"], sweep["pretrained"]
    curves = label_curves(results)
    fractions = sorted({point.label_fraction for point in curves})
    sections = [
        f"Top-1 accuracy in % on {_range(result['num_test'] for result in results)} test {results[0]['unit']}, mean ± "
        "half of the 95 % interval over seeds; always predicting the most frequent class scores "
        f"{_range(round(100 * result['chance'], 1) for result in results)}. "
        "Hyper-parameters are chosen on the validation split; the test split is used once for each classifier."
    ]
    rows = []
    for method, encoder in dict.fromkeys((point.method, point.encoder) for point in curves):
        found = {p.label_fraction: str(p.estimate) for p in curves if (p.method, p.encoder) == (method, encoder)}
        rows.append([method, encoder, *(found.get(fraction, "") for fraction in fractions)])
    sections.append(markdown_table(["", "encoder", *(f"{100 * fraction:g} %" for fraction in fractions)], rows))
    sections += describe_training(results)
    for first, second in combinations(pretrained, 2):
        sections.append(
            f"{plain(second)} - {plain(first)}, paired by seed. Seeds vary the labels and the classifier, not the "
            "pre-training: a difference is one of two checkpoints."
        )
        lines = []
        for fraction in fractions:
            some = [result for result in results if result["label_fraction"] == fraction]
            words = describe_difference(paired_difference(some, first, second), plain(first), plain(second))
            lines.append(f"- {100 * fraction:g} % of the labels: {words}")
        sections.append("\n".join(lines))
    return "\n\n".join(sections)


def _range(numbers: Iterable[float]) -> str:
    """Returns the one number, or the smallest and the largest: encoders with other frame rates have other frames."""
    ordered = sorted(set(numbers))
    return str(ordered[0]) if len(ordered) == 1 else f"{ordered[0]} to {ordered[-1]}"


def _with_short_names(sweep: Mapping[str, Any]) -> dict[str, Any]:
    names = short_names(list(dict.fromkeys(result["method"] for result in sweep["results"])))
    results = [{**result, "method": names[result["method"]]} for result in sweep["results"]]
    return {**sweep, "results": results, "pretrained": [names[method] for method in sweep["pretrained"]]}
