"""How models compare on the same folds: the picture of the scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from anyfold.results.figures import FAINT, INK, new_axes
from anyfold.results.names import shortened
from anyfold.results.statistics import rank_by_mean

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from anyfold.results.grid import OutcomeGrid

__all__ = ["plot_scores"]

POINTS = "#0072B2"
LONGEST_LABEL = 36
MOST_MODELS = 60


def plot_scores(grid: OutcomeGrid, metric: str, ax: Axes | None) -> Axes:
    """Draw one row per model, the best at the top, and a line per fold through all rows.

    Parameters
    ----------
    grid : OutcomeGrid
        What became of the tasks.
    metric : str
        Name of the metric.
    ax : Axes or None
        Where to draw; None makes a figure of its own.

    Returns
    -------
    Axes
        What was drawn on.

    Raises
    ------
    MissingDependencyError
        If matplotlib is not installed.
    """
    means, stds = grid.mean_and_std(metric)
    order = np.argsort(rank_by_mean(means), kind="stable")[:MOST_MODELS]
    scores, means, stds = grid.scores(metric)[order], means[order], stds[order]
    names = [grid.models[row] for row in order]
    rows = np.arange(len(names))
    n_scores = np.isfinite(scores).sum(axis=1)
    labels = [
        name if n_scores[row] == grid.n_folds else f"{name} ({n_scores[row]} of {grid.n_folds} folds)"
        for row, name in enumerate(shortened(names, LONGEST_LABEL))
    ]
    if ax is None:
        width = 5.8 + 0.08 * max(map(len, labels), default=0)
        ax = new_axes(width=width, height=1.3 + 0.42 * max(len(names), 2))

    # Many folds are drawn fainter, so that the lines stay a background to the points.
    faint = float(np.clip(3.0 / max(grid.n_folds, 1), 0.3 if len(names) < 4 else 0.15, 0.6))
    for fold in range(grid.n_folds):
        ax.plot(scores[:, fold], rows, color=FAINT, linewidth=0.9, alpha=faint, zorder=1)
    ax.scatter(
        scores.ravel(),
        np.repeat(rows, grid.n_folds),
        s=22,
        color=POINTS,
        alpha=max(faint, 0.35),
        linewidths=0,
        zorder=2,
        label="one fold",
    )
    # Mean and spread stand just below the points of their row, which they would otherwise cover.
    ax.errorbar(
        means,
        rows + 0.22,
        xerr=stds,
        fmt="D",
        color=INK,
        markersize=4.5,
        elinewidth=1.6,
        capsize=3,
        zorder=3,
        label="mean ± std",
    )
    partial = rows[np.isnan(means) & (n_scores > 0)]
    if partial.size:
        ax.plot(
            [np.mean(scores[row][np.isfinite(scores[row])]) for row in partial],
            partial + 0.22,
            "D",
            color=INK,
            markerfacecolor="white",
            markersize=4.5,
            zorder=3,
            label="mean, not of all folds",
        )

    ax.set_yticks(rows, labels)
    ax.set_ylim(len(names) - 0.45, -0.55)
    ax.set_xlabel(metric)
    ax.set_title(_title(grid, len(names)), loc="left", pad=24)
    ax.grid(axis="x", color="#e6e6e6", linewidth=0.8)
    ax.set_axisbelow(True)
    ax.tick_params(axis="y", length=0)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False, borderaxespad=0, borderpad=0.3)
    return ax


def _title(grid: OutcomeGrid, n_shown: int) -> str:
    folds = f"{grid.n_folds} fold{'s' * (grid.n_folds != 1)}"
    if n_shown == 1:
        return f"1 model on {folds}"
    n_models = len(grid.models)
    which = f"{n_shown} models" if n_shown == n_models else f"the best {n_shown} of {n_models} models"
    return f"{which} on the same {folds}"
