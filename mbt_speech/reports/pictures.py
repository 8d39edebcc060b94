"""Pictures of a run: loss curves, cross-correlation matrices, accuracies."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd

mpl.use("Agg")
from matplotlib import pyplot as plt
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.preprocessing import StandardScaler

mpl.rcParams["text.parse_math"] = False  # a $ in a name is a $

SHOWN_DIMS = 128
MAPPED_CLASSES, MAPPED_CLIPS = 10, 600


def draw_losses(path: Path, logs: Mapping[str, Sequence[dict]], title: str) -> None:
    """Draws the loss and its two terms against the step, a curve for each run.

    Args:
        path: Picture to write.
        logs: Run name -> lines of `train_log.jsonl`.
        title: What was trained on what.
    """
    terms = ["loss", "invariance_loss", "redundancy_loss", "accuracy"]
    terms = [term for term in terms if any(term in line for log in logs.values() for line in log)]
    figure, axes = plt.subplots(1, len(terms), figsize=(4.2 * len(terms), 3.4), squeeze=False, layout="constrained")
    for axis, term in zip(axes[0], terms, strict=True):
        for name, log in logs.items():
            points = [(line["step"], line[term]) for line in log if term in line]
            axis.plot(*zip(*points, strict=True), label=name, linewidth=1.5)
        values = [line[term] for log in logs.values() for line in log if term in line]
        if min(values) > 0 and term != "accuracy":
            axis.set_yscale("log")
        axis.set(title=term.replace("_", " "), xlabel="step")
        axis.grid(alpha=0.3)
    axes[0][0].legend()
    figure.suptitle(title)
    _save(figure, path)


def draw_cross_correlations(path: Path, matrices: Mapping[str, np.ndarray], title: str) -> None:
    """Draws cross-correlation matrices with one color scale, -1 to 1.

    Args:
        path: Picture to write.
        matrices: Name -> matrix (D, D); a corner of 128 x 128 is shown, the diagonal is lost in more.
        title: What the matrices are of.
    """
    columns = min(2, len(matrices))
    rows = -(-len(matrices) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(4.4 * columns + 0.8, 4.4 * rows), squeeze=False, layout="constrained"
    )
    for axis, (name, matrix) in zip(axes.flat, matrices.items(), strict=False):
        axis.imshow(matrix[:SHOWN_DIMS, :SHOWN_DIMS], vmin=-1, vmax=1, cmap="RdBu_r", interpolation="nearest")
        diagonal = matrix.diagonal().mean()
        off_diagonal = np.sqrt((matrix[~np.eye(len(matrix), dtype=bool)] ** 2).mean())
        axis.set_title(f"{name}\nmean $C_{{ii}}$ {diagonal:.2f}, rms $C_{{ij}}$ {off_diagonal:.3f}", fontsize=10)
        axis.set(xticks=[], yticks=[])
    figure.colorbar(axes[0][0].images[0], ax=axes, shrink=0.7, label="correlation")
    figure.suptitle(title)
    _save(figure, path)


def draw_accuracies(path: Path, results: pd.DataFrame, title: str) -> None:
    """Draws top-1 accuracy per task and method: mean over seeds, bars of one standard deviation, chance dashed.

    Args:
        path: Picture to write.
        results: A row for each run with `task`, `method`, `accuracy`, `chance`.
        title: On what data, with what share of the labels.
    """
    tasks, methods = list(dict.fromkeys(results["task"])), list(dict.fromkeys(results["method"]))
    figure, axis = plt.subplots(figsize=(3.6 * len(tasks) + 1.5, 4.2), layout="constrained")
    width = 0.84 / len(methods)
    for position, method in enumerate(methods):
        accuracies = [results[(results.task == t) & (results.method == method)]["accuracy"] for t in tasks]
        centers = np.arange(len(tasks)) + (position - (len(methods) - 1) / 2) * width
        heights = [100 * values.mean() for values in accuracies]
        spreads = [100 * values.std(ddof=0) for values in accuracies]
        color = plt.get_cmap("tab10")(position % 10)
        axis.bar(centers, heights, width * 0.92, yerr=spreads, capsize=2, label=method, color=color)
        for center, height, spread in zip(centers, heights, spreads, strict=True):
            axis.annotate(f"{height:.0f}", (center, height + spread + 1), ha="center", fontsize=7)
    for number, task in enumerate(tasks):
        chance = 100 * results[results.task == task]["chance"].mean()
        axis.hlines(chance, number - 0.45, number + 0.45, colors="black", linestyles="dashed", linewidth=1)
    axis.set(ylabel="top-1 accuracy (%)", ylim=(0, 108), xticks=range(len(tasks)))
    axis.set_xticklabels(tasks)
    axis.legend(fontsize=8, ncols=1, loc="center left", bbox_to_anchor=(1.0, 0.5))
    axis.set_title(title)
    _save(figure, path)


def draw_curves(path: Path, results: pd.DataFrame, axis_name: str, title: str) -> None:
    """Draws top-1 accuracy against a varied argument, a panel for each task: mean and one standard deviation.

    Args:
        path: Picture to write.
        results: A row for each fitted head with `task`, `curve`, `position` (empty: a line across), `accuracy`,
            `chance`.
        axis_name: What the positions are.
        title: What is compared on what data.
    """
    tasks, curves = list(dict.fromkeys(results["task"])), list(dict.fromkeys(results["curve"]))
    positions = [value for value in dict.fromkeys(results["position"]) if value != ""]
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in positions)
    places = {value: value if numeric else number for number, value in enumerate(positions)}
    figure, axes = plt.subplots(
        1, len(tasks), figsize=(4.4 * len(tasks) + 1.6, 4), squeeze=False, layout="constrained"
    )
    for axis, task in zip(axes[0], tasks, strict=True):
        for number, curve in enumerate(curves):
            rows, color = (
                results[(results.task == task) & (results.curve == curve)],
                plt.get_cmap("tab10")(number % 10),
            )
            if set(rows["position"]) == {""}:
                axis.axhline(100 * rows["accuracy"].mean(), color=color, linestyle="dashed", label=curve)
                continue
            groups = [
                (places[value], 100 * group["accuracy"]) for value, group in rows.groupby("position", sort=False)
            ]
            x, means, spreads = zip(*sorted((p, v.mean(), v.std(ddof=0)) for p, v in groups), strict=True)
            axis.errorbar(x, means, spreads, marker="o", capsize=3, color=color, label=curve)
        axis.axhline(100 * results[results.task == task]["chance"].mean(), color="black", linestyle="dotted")
        if numeric and min(positions) > 0 and max(positions) >= 8 * min(positions):
            axis.set_xscale("log")
        axis.set(title=task, xlabel=axis_name, xticks=list(places.values()))
        axis.set_xticklabels(
            [f"{value:g}" if numeric else value for value in positions], rotation=0 if numeric else 30
        )
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("top-1 accuracy (%)")
    axes[0][-1].legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.suptitle(f"{title}; chance is dotted")
    _save(figure, path)


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
    figure, axis = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    for number, (name, points) in enumerate(curves.items()):
        x, color = 100 * np.array(sorted(points)), plt.get_cmap("tab10")(number % 10)
        means, half_widths = 100 * np.array([points[fraction] for fraction in sorted(points)]).T
        axis.errorbar(x, means, np.nan_to_num(half_widths), marker="o", capsize=3, color=color, label=name)
    axis.axhline(chance_percent, color="black", linestyle="dotted", linewidth=1, label="most frequent class")
    ticks = sorted({100 * fraction for points in curves.values() for fraction in points})
    axis.set(xscale="log", xlabel="share of the labels (%)", ylabel="top-1 accuracy (%)", title=title)
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.minorticks_off()
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    _save(figure, path)


def draw_embedding_maps(
    path: Path, features: Mapping[str, np.ndarray], labels: np.ndarray, label_names: Sequence[str], title: str
) -> None:
    """Draws representations in two dimensions, colored by class: principal components above, t-SNE below.

    Args:
        path: Picture to write.
        features: Method -> representations of the same clips, (N, H).
        labels: Class ids of the clips, (N,); of more than 10 classes the 10 most frequent are shown.
        label_names: Class names, (K,).
        title: What the clips are of.
    """
    shown = np.bincount(labels).argsort(kind="stable")[::-1][:MAPPED_CLASSES]
    rows = np.flatnonzero(np.isin(labels, shown))
    rows = np.random.default_rng(0).permutation(rows)[:MAPPED_CLIPS]
    figure, axes = plt.subplots(
        2, len(features), figsize=(3.6 * len(features) + 1.6, 7.2), squeeze=False, layout="constrained"
    )
    for column, (name, values) in enumerate(features.items()):
        scaled = StandardScaler().fit_transform(values[rows])
        neighbors = min(30.0, (len(rows) - 1) / 3)
        maps = {
            "principal components": PCA(2, random_state=0).fit_transform(scaled),
            "t-SNE": TSNE(perplexity=neighbors, init="pca", random_state=0).fit_transform(scaled),
        }
        for axis, (kind, points) in zip(axes[:, column], maps.items(), strict=True):
            for number, label in enumerate(shown):
                x, y = points[labels[rows] == label].T
                axis.scatter(x, y, s=8, color=plt.get_cmap("tab10")(number), label=label_names[label])
            axis.set(xticks=[], yticks=[], title=f"{name}, {kind}")
    axes[0][-1].legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.suptitle(title)
    _save(figure, path)


def draw_spectra(path: Path, features: Mapping[str, np.ndarray], title: str) -> None:
    """Draws the eigenvalues of the representations' covariance, as shares of the variance, largest first.

    Args:
        path: Picture to write.
        features: Method -> representations, (N, H).
        title: What the clips are of.
    """
    figure, axis = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    for name, values in features.items():
        variances = np.linalg.svd(values - values.mean(axis=0), compute_uv=False) ** 2
        axis.plot(np.arange(1, len(variances) + 1), variances / variances.sum(), label=name)
    axis.set(
        xscale="log", yscale="log", xlabel="number of the eigenvalue", ylabel="share of the variance", title=title
    )
    axis.set_ylim(bottom=1e-7)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    _save(figure, path)


def _save(figure, path: Path) -> None:
    figure.savefig(path, dpi=120)
    plt.close(figure)
