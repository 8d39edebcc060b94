"""Pictures of accuracies: bars by task and method, curves over an argument, curves over the share of the labels."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from .style import BLACK, BLUE, GRAYS, GREEN, LOG_SPAN, ORANGE, SKY, VERMILION, color, legend_beside, marker, plt, save

KINDS = {
    "controls": GRAYS,
    "frozen, linear head": (BLUE, SKY),
    "fine-tuned": (VERMILION, ORANGE),
    "supervised": (GREEN,),
}
"""Kinds of methods in the order of their bars, with their colors."""
HATCHES = ("", "//", "..", "xx")
GAP = 0.6
"""Between two kinds, in widths of a bar."""


def kind_of(method: str) -> str:
    """Returns the kind of a method by its name in the tables."""
    if "supervised" in method:
        return "supervised"
    if "fine-tuned" in method:
        return "fine-tuned"
    is_control = "frozen" not in method or "random" in method
    return "controls" if is_control else "frozen, linear head"


def colors_of(methods: Sequence[str]) -> dict[str, str]:
    """Returns the color of each method, the same in bars and curves: those of its kind in turn."""
    colors, found = {}, Counter()
    for method in methods:
        kind = kind_of(method)
        colors[method] = KINDS[kind][found[kind] % len(KINDS[kind])]
        found[kind] += 1
    return colors


def draw_accuracies(path: Path, results: pd.DataFrame, title: str) -> None:
    """Draws top-1 accuracy per task and method, by kind: mean over seeds, bars of one standard deviation.

    Args:
        path: Picture to write.
        results: A row for each run with `task`, `method`, `accuracy`, `chance`.
        title: On what data, with what share of the labels.
    """
    methods = list(dict.fromkeys(results["method"]))
    tasks, colors, (places, width) = list(dict.fromkeys(results["task"])), colors_of(methods), _places(methods)
    figure, axis = plt.subplots(figsize=(0.42 * len(places) * len(tasks) + 4.6, 4.6), layout="constrained")
    handles: dict[str, list] = {kind: [] for kind in KINDS}
    for method, place in places.items():
        bars = handles[kind_of(method)]
        looks = {"color": colors[method], "hatch": HATCHES[len(bars) // len(KINDS[kind_of(method)]) % len(HATCHES)]}
        accuracies = [results[(results.task == task) & (results.method == method)]["accuracy"] for task in tasks]
        bars.append(_draw_bars(axis, np.arange(len(tasks)) + place, accuracies, width, label=method, **looks))
    chances = [100 * results[results.task == task]["chance"].mean() for task in tasks]
    numbers = np.arange(len(tasks))
    lines = axis.hlines(chances, numbers - 0.46, numbers + 0.46, colors=BLACK, linestyles="dashed", linewidth=1.2)
    lines.set_label("most frequent class")
    axis.set(ylabel="top-1 accuracy (%)", ylim=(0, 108), title=title)
    axis.set_xticks(numbers, tasks)
    axis.grid(visible=False, axis="x")
    _legend_by_kind(axis, handles, lines)
    save(figure, path)


def _draw_bars(axis, centers: np.ndarray, accuracies: Sequence[Any], width: float, **looks):
    """Draws a method's bars, a number above each; none where it has no accuracy."""
    heights = [100 * values.mean() for values in accuracies]
    spreads = [_deviation(100 * values) for values in accuracies]
    for center, height, spread in zip(centers, heights, spreads, strict=True):
        if not np.isnan(height):
            axis.annotate(f"{height:.0f}", (center, height + spread + 1), ha="center", fontsize=9)
    return axis.bar(centers, heights, 0.92 * width, yerr=spreads, capsize=2, **looks)


def _places(methods: Sequence[str]) -> tuple[dict[str, float], float]:
    """Returns where in its task's group each method's bar stands, kind by kind, and how wide bars are."""
    ordered = sorted(methods, key=lambda method: list(KINDS).index(kind_of(method)))
    place, places = 0.0, {}
    for method, before in zip(ordered, [None, *ordered], strict=False):
        place += 0.0 if before is None else 1.0 if kind_of(before) == kind_of(method) else 1.0 + GAP
        places[method] = place
    width = 0.86 / (place + 1)
    return {method: (where - place / 2) * width for method, where in places.items()}, width


def _legend_by_kind(axis, handles: Mapping[str, list], chance) -> None:
    """Writes a heading above the methods of each kind."""
    entries = []
    for kind, bars in handles.items():
        if bars:
            heading = Line2D([], [], linestyle="none", label=kind)
            entries += [heading, *bars]
    legend_beside(axis, handles=[*entries, chance])
    for text in axis.get_legend().get_texts():
        if text.get_text() in KINDS:
            text.set_fontweight("bold")


def draw_curves(
    path: Path, results: pd.DataFrame, axis_name: str, title: str, colors: Mapping[str, str] | None = None
) -> None:
    """Draws top-1 accuracy against a varied argument, a panel for each task: mean and one standard deviation.

    Args:
        path: Picture to write.
        results: A row for each fitted head with `task`, `curve`, `position` (empty: a line across, a baseline),
            `accuracy`, `chance`.
        axis_name: What the positions are.
        title: What is compared on what data.
        colors: Of the curves, by default one after the other.
    """
    tasks, curves = list(dict.fromkeys(results["task"])), list(dict.fromkeys(results["curve"]))
    positions = [value for value in dict.fromkeys(results["position"]) if value != ""]
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in positions)
    places = {value: value if numeric else number for number, value in enumerate(positions)}
    figure, axes = plt.subplots(
        1, len(tasks), figsize=(4.4 * len(tasks) + 2.6, 4.2), squeeze=False, layout="constrained"
    )
    for axis, task in zip(axes[0], tasks, strict=True):
        for number, curve in enumerate(curves):
            rows = results[(results.task == task) & (results.curve == curve)]
            if len(rows):
                look = {"color": (colors or {}).get(curve, color(number)), "marker": marker(number), "label": curve}
                _draw_curve(axis, rows, places, look)
        axis.axhline(
            100 * results[results.task == task]["chance"].mean(),
            color=BLACK,
            linestyle="dotted",
            label="most frequent class",
        )
        if numeric and min(positions) > 0 and max(positions) >= LOG_SPAN * min(positions):
            axis.set_xscale("log")
        axis.set(title=task, xlabel=axis_name)
        names = [f"{value:g}" if numeric else str(value) for value in positions]
        axis.set_xticks(list(places.values()), names, rotation=0 if numeric else 30)
        axis.minorticks_off()
    axes[0][0].set_ylabel("top-1 accuracy (%)")
    legend_beside(axes[0][-1])
    has_baseline = "" in set(results["position"])
    figure.suptitle(f"{title}\ndashed: baselines, the same for every {axis_name}" if has_baseline else title)
    save(figure, path)


def _draw_curve(axis, rows: Any, places: Mapping, look: Mapping[str, Any]) -> None:
    """Draws a curve, or a baseline as a line across."""
    if set(rows["position"]) == {""}:
        label = f"baseline: {look['label']}"
        axis.axhline(100 * rows["accuracy"].mean(), color=look["color"], linestyle="dashed", label=label)
        return
    groups = [(places[value], 100 * group["accuracy"]) for value, group in rows.groupby("position", sort=False)]
    x, means, spreads = zip(*sorted((p, v.mean(), _deviation(v)) for p, v in groups), strict=True)
    axis.errorbar(x, means, spreads, capsize=3, **look)


def _deviation(values: Any) -> float:
    """Returns the standard deviation, as the tables have it, and 0 of a single value."""
    return values.std(ddof=1) if len(values) > 1 else 0.0


def draw_label_curves(
    path: Path, curves: Mapping[str, Mapping[float, tuple[float, float]]], chance_percent: float, title: str
) -> None:
    """Draws accuracy against the share of the labels, a curve for each method with its interval.

    Args:
        path: Picture to write.
        curves: Method -> share of the labels -> mean and half of the interval, NaN for none, as shares of 1.
        chance_percent: Accuracy of always naming the most frequent class.
        title: Task and data.
    """
    figure, axis = plt.subplots(figsize=(7.6, 4.4), layout="constrained")
    for number, (name, points) in enumerate(curves.items()):
        x = 100 * np.array(sorted(points))
        means, half_widths = 100 * np.array([points[fraction] for fraction in sorted(points)]).T
        axis.errorbar(
            x, means, np.nan_to_num(half_widths), marker=marker(number), capsize=3, color=color(number), label=name
        )
    axis.axhline(chance_percent, color=BLACK, linestyle="dotted", label="most frequent class")
    ticks = sorted({100 * fraction for points in curves.values() for fraction in points})
    axis.set(xscale="log", xlabel="share of the labels (%)", ylabel="top-1 accuracy (%)", title=title)
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.minorticks_off()
    legend_beside(axis)
    save(figure, path)
