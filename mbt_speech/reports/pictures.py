"""Pictures of pre-training and of representations: losses, cross-correlation matrices, maps, spectra.

Axes: D latents, N clips, H width of a representation, K classes.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.preprocessing import StandardScaler

from mbt_speech.training.run_log import last_step

from .style import BLACK, LOG_SPAN, color, label_plainly, legend_beside, marker, plt, save

SHOWN_DIMS = 128
MAPPED_CLASSES, MAPPED_CLIPS = 12, 500
MAPPED_COMPONENTS = 50
"""Principal components that a map is made of, as t-SNE's authors advise."""

LEAST_SHARE = 1e-7
"""Of the variance, that a spectrum shows."""


def draw_losses(path: Path, logs: Mapping[str, Sequence[dict]], title: str) -> None:
    """Draws the loss with its floor, and its two terms, against the step, a curve for each run.

    Args:
        path: Picture to write.
        logs: Run name -> lines of `train_log.jsonl`.
        title: What was trained on what.
    """
    terms = ["loss", "invariance_loss", "redundancy_loss", "accuracy"]
    terms = [term for term in terms if any(term in line for log in logs.values() for line in log)]
    figure, axes = plt.subplots(1, len(terms), figsize=(4.4 * len(terms), 3.8), squeeze=False, layout="constrained")
    for axis, term in zip(axes[0], terms, strict=True):
        for number, (name, log) in enumerate(logs.items()):
            points = [(line["step"], line[term]) for line in log if term in line]
            axis.plot(*zip(*points, strict=True), label=name, color=color(number))
        axis.set(title=term.replace("_", " "), xlabel="step")
    _draw_floors(axes[0][0], logs)
    for axis, term in zip(axes[0], terms, strict=True):
        values = [value for line in axis.lines for value in np.atleast_1d(line.get_ydata())]
        if term != "accuracy" and min(values) > 0 and max(values) > LOG_SPAN * min(values):
            axis.set_yscale("log")
            label_plainly(axis.yaxis)
    axes[0][0].legend()
    figure.suptitle(title)
    save(figure, path)


def _draw_floors(axis, logs: Mapping[str, Sequence[dict]]) -> None:
    """Draws what no network gets below with the batch and the latents of each run; runs may share it."""
    floors: dict[float, list[int]] = {}
    for number, log in enumerate(logs.values()):
        if (floor := last_step(log).get("loss_floor", 0)) > 0:
            floors.setdefault(floor, []).append(number)
    for floor, numbers in floors.items():
        of_one = len(numbers) == 1 and len(logs) > 1
        words = f"floor of {list(logs)[numbers[0]]}" if of_one else "floor for this batch"
        axis.axhline(
            floor, color=color(numbers[0]) if of_one else BLACK, linestyle="dashed", label=f"{words}: {floor:.3g}"
        )


def draw_cross_correlations(path: Path, matrices: Mapping[str, np.ndarray], title: str) -> None:
    """Draws cross-correlation matrices with one color scale, -1 to 1, and says how they changed.

    Args:
        path: Picture to write.
        matrices: Name -> matrix (D, D); a corner of 128 x 128 is shown, the diagonal is lost in more. Of two names
            that differ in "before" and "after", the title compares the matrices.
        title: What the matrices are of.
    """
    columns = min(2, len(matrices))
    rows = -(-len(matrices) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(4.6 * columns + 1, 4.8 * rows + 0.6), squeeze=False, layout="constrained"
    )
    for axis in axes.flat:
        axis.axis("off")
    for axis, (name, matrix) in zip(axes.flat, matrices.items(), strict=False):
        axis.axis("on")
        axis.imshow(matrix[:SHOWN_DIMS, :SHOWN_DIMS], vmin=-1, vmax=1, cmap="RdBu_r", interpolation="nearest")
        diagonal, off_diagonal = summarize(matrix)
        axis.set_title(f"{name}\nmean of the diagonal {diagonal:.2f}\noff-diagonal rms {off_diagonal:.3f}")
        axis.set(xticks=[], yticks=[])
        axis.spines[["top", "right"]].set_visible(True)
    figure.colorbar(axes[0][0].images[0], ax=axes, shrink=0.7, label="correlation")
    figure.suptitle("\n".join([title, *_changes(matrices)]))
    save(figure, path)


def summarize(matrix: np.ndarray) -> tuple[float, float]:
    """Returns the mean of the diagonal of a matrix (D, D), and the root mean square off it."""
    off_diagonal = matrix[~np.eye(len(matrix), dtype=bool)]
    return float(matrix.diagonal().mean()), float(np.sqrt((off_diagonal**2).mean()))


def _changes(matrices: Mapping[str, np.ndarray]) -> list[str]:
    """Says of every pair of matrices, before and after, how diagonal and off-diagonal changed."""
    lines = []
    for name, matrix in matrices.items():
        run, moment, rest = name.rpartition("before")
        after = f"{run}after{rest}"
        if moment and after in matrices:
            (old_mean, old_rms), (new_mean, new_rms) = summarize(matrix), summarize(matrices[after])
            run = run.strip(" ,")
            lines.append(
                f"{run}{': ' if run else ''}diagonal {_verb(old_mean, new_mean)} {old_mean:.2f} to {new_mean:.2f}, "
                f"off-diagonal {_verb(old_rms, new_rms)} {old_rms:.3f} to {new_rms:.3f}"
            )
    return lines


def _verb(old: float, new: float) -> str:
    return "rose from" if new > old else "fell from" if new < old else "stayed,"


def draw_embedding_maps(
    path: Path, features: Mapping[str, np.ndarray], labels: np.ndarray, label_names: Sequence[str], title: str
) -> None:
    """Draws maps of representations, colored by class: t-SNE of their first 50 principal components.

    Args:
        path: Picture to write.
        features: Method -> representations of the same clips, (N, H).
        labels: Class ids of the clips, (N,); of more than 12 classes the 12 most frequent are shown.
        label_names: Class names, (K,).
        title: What the clips are of.
    """
    shown = np.bincount(labels).argsort(kind="stable")[::-1][:MAPPED_CLASSES]
    rows = np.flatnonzero(np.isin(labels, shown))
    rows = np.random.default_rng(0).permutation(rows)[:MAPPED_CLIPS]
    columns = min(2, len(features))
    lines = -(-len(features) // columns)
    figure, axes = plt.subplots(
        lines, columns, figsize=(4.8 * columns + 2, 4.8 * lines), squeeze=False, layout="constrained"
    )
    for axis in axes.flat:
        axis.axis("off")
    for axis, (name, values) in zip(axes.flat, features.items(), strict=False):
        points = _flatten(values[rows])
        for number, label in enumerate(shown):
            x, y = points[labels[rows] == label].T
            axis.scatter(
                x, y, s=18, color=color(number), marker=marker(number), linewidths=0, label=label_names[label]
            )
        axis.set_title(name)
    legend_beside(axes[0][-1], markerscale=1.6)
    some = "" if len(shown) == len(np.unique(labels)) else f", the {len(shown)} most frequent of {len(label_names)}"
    figure.suptitle(f"{title}\nt-SNE, colored by class{some}")
    save(figure, path)


def _flatten(values: np.ndarray) -> np.ndarray:
    """Maps representations (N, H) onto a plane, (N, 2); fewer than three, or all alike, onto one point."""
    scaled = np.asarray(StandardScaler().fit_transform(values))
    if len(scaled) < 3 or not scaled.any():
        return np.zeros((len(scaled), 2))
    components = PCA(min(MAPPED_COMPONENTS, *scaled.shape), random_state=0).fit_transform(scaled)
    neighbors = min(30.0, (len(scaled) - 1) / 3)
    return TSNE(perplexity=neighbors, init="pca", random_state=0).fit_transform(components)


def draw_spectra(path: Path, features: Mapping[str, np.ndarray], title: str) -> None:
    """Draws the eigenvalues of the representations' covariance, as shares of the variance, largest first.

    Args:
        path: Picture to write.
        features: Method -> representations, (N, H).
        title: What the clips are of.
    """
    figure, axis = plt.subplots(figsize=(6.8, 4.4), layout="constrained")
    for number, (name, values) in enumerate(features.items()):
        variances = np.linalg.svd(values - values.mean(axis=0), compute_uv=False) ** 2
        ranks = np.arange(1, len(variances) + 1)
        axis.plot(ranks, variances / variances.sum(), color=color(number), label=name)
    axis.set(
        xscale="log", yscale="log", xlabel="number of the eigenvalue", ylabel="share of the variance", title=title
    )
    label_plainly(axis.xaxis)
    label_plainly(axis.yaxis, subs=(1.0,))
    axis.set_ylim(bottom=max(LEAST_SHARE, axis.get_ylim()[0]))
    axis.legend()
    save(figure, path)
