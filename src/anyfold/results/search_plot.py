"""How the score of a search depends on its parameters, for any fitted search of scikit-learn's kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from anyfold.results.candidates import Candidates, Parameter, candidates_of
from anyfold.results.figures import FAINT, INK, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_search"]

POINTS = "#0072B2"
BEST = "#D55E00"
MOST_CELLS = 30
"""Values of a parameter that are drawn as a grid; more are drawn as points."""
MOST_MARGINAL = 15
"""Values of a parameter through whose best candidates a line is drawn; more were drawn at random."""
MOST_NUMBERS = 144
"""Cells with their scores written into them."""


def plot_search(
    search: Any,
    params: str | Sequence[str] | None = None,
    *,
    metric: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the mean test score of a search's candidates over one or two of its parameters.

    Works on anything fitted that has ``cv_results_`` as scikit-learn's searches have it, theirs and those of
    `anyfold.model_selection`. Over one parameter there is a line through the mean scores, with their standard
    deviation over the folds; over two a grid of cells, or points where values were drawn at random. Where
    the search has more parameters than are drawn, the best over the others is shown: what can be reached
    with the values at this place. Of halving searches each candidate counts with the most that it was given.

    Parameters
    ----------
    search : object
        A fitted search.
    params : str or sequence of str, default=None
        One or two names of parameters; None takes those that the score depends on most.
    metric : str, default=None
        Name of the metric where there are several; None is the one of ``refit``, or the first.
    ax : Axes, default=None
        Where to draw; None makes a figure of its own. Needs matplotlib: ``anyfold[plot]``.

    Returns
    -------
    Axes
        What was drawn on.

    Raises
    ------
    InvalidInputError
        If there is nothing to draw, or no such parameter or metric.
    MissingDependencyError
        If matplotlib is not installed.

    Examples
    --------
    >>> from anyfold.model_selection import GridSearchCV
    >>> from anyfold.results import plot_search
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.svm import SVC
    >>> X, y = load_iris(return_X_y=True)
    >>> search = GridSearchCV(SVC(), {"C": [0.1, 1.0], "kernel": ["linear", "rbf"]}, cv=2, backend="serial")
    >>> ax = plot_search(search.fit(X, y))
    >>> sorted([ax.get_xlabel(), ax.get_ylabel()])
    ['C', 'kernel']
    """
    found = candidates_of(search, metric)
    drawn = found.choose(params)
    axes = _draw_one(found, drawn[0], ax) if len(drawn) == 1 else _draw_two(found, drawn[0], drawn[1], ax)
    axes.set_title(_title(found, drawn), loc="left")
    return axes


# ---- one parameter -------------------------------------------------------------------------------


def _draw_one(found: Candidates, parameter: Parameter, ax: Axes | None) -> Axes:
    if ax is None:
        ax = new_axes(width=7.2, height=4.2)
    rest = len(found.parameters) > 1
    groups = parameter.groups()
    best = [found.best_of(rows) for rows in groups]
    shown = [row for row in best if row is not None]
    x = parameter.positions
    for fold in range(found.scores.shape[1] if not rest else 0):
        label = "one fold" if fold == 0 else None
        ax.plot(
            x[shown], found.scores[shown, fold],
            color=FAINT, linewidth=0.8, alpha=0.5, marker=".", markersize=4, label=label, zorder=1,
        )  # fmt: skip
    if rest:
        ax.scatter(x, found.means, s=16, color=FAINT, alpha=0.6, linewidths=0, label="candidate", zorder=1)
    if not rest or len(groups) <= MOST_MARGINAL:
        ax.errorbar(
            x[shown],
            found.means[shown],
            yerr=found.stds[shown],
            color=POINTS,
            marker="o",
            markersize=5,
            linestyle="-" if parameter.is_numeric else ":",
            capsize=3,
            elinewidth=1.2,
            label=f"{'best ' * rest}mean ± std over folds",
            zorder=2,
        )
    lost = [x[rows[0]] for rows, row in zip(groups, best, strict=True) if row is None]
    if lost:
        ax.plot(
            lost, [0.02] * len(lost), "x",
            color=INK, transform=ax.get_xaxis_transform(), label="no score", zorder=3, clip_on=False,
        )  # fmt: skip
    _mark_best(ax, found, x, found.means)
    _scale(ax, "x", parameter)
    ax.set_xlabel(parameter.name)
    ax.set_ylabel(found.metric)
    ax.grid(axis="y", color="#e6e6e6", linewidth=0.8)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize="small")
    return ax


# ---- two parameters ------------------------------------------------------------------------------


def _draw_two(found: Candidates, first: Parameter, second: Parameter, ax: Axes | None) -> Axes:
    across, up = sorted((first, second), key=lambda parameter: -len(parameter.labels))
    n_columns, n_rows = len(across.labels), len(up.labels)
    in_cells = n_columns <= MOST_CELLS and n_rows <= MOST_CELLS and not found.is_sparse(across, up)
    if ax is None and in_cells:
        ax = new_axes(width=float(np.clip(2.6 + 0.62 * n_columns, 5, 16)), height=1.8 + 0.42 * max(n_rows, 3))
    elif ax is None:
        ax = new_axes(width=7.2, height=5.2)
    drawn = _draw_cells(ax, found, across, up) if in_cells else _draw_points(ax, found, across, up)
    ax.set_xlabel(across.name)
    ax.set_ylabel(up.name)
    bar = ax.figure.colorbar(drawn, ax=ax, label=found.metric)
    bar.outline.set_visible(False)
    ax.spines[["top", "right", "left", "bottom"]].set_visible(not in_cells)
    return ax


def _draw_cells(ax: Axes, found: Candidates, across: Parameter, up: Parameter) -> Any:
    cells = np.full((len(up.labels), len(across.labels)), np.nan)
    missing = np.ones(cells.shape, dtype=bool)
    for row in range(len(found.means)):
        place = up.codes[row], across.codes[row]
        missing[place] = False
        cells[place] = np.fmax(cells[place], found.means[row])
    ax.set_facecolor("#f4f4f4")
    drawn: Any = ax.pcolormesh(np.ma.masked_invalid(cells), cmap="viridis", edgecolors="white", linewidth=1)
    numbers = cells.size <= MOST_NUMBERS
    for y, x in np.ndindex(cells.shape):
        value = float(cells[y, x])
        told, color = "no score" if numbers else "x", INK
        if np.isfinite(value):
            told = f"{value:.3f}" if abs(value) < 100 else f"{value:.3g}"
            color = "white" if drawn.norm(value) < 0.6 else INK
        if not missing[y, x] and (numbers or not np.isfinite(value)):
            ax.text(x + 0.5, y + 0.5, told, color=color, fontsize="x-small", ha="center", va="center")
    if found.best is not None:
        from matplotlib.patches import Rectangle

        corner = across.codes[found.best], up.codes[found.best]
        ax.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor=BEST, linewidth=2.5, label="best"))
    ax.set_xticks(np.arange(len(across.labels)) + 0.5, across.labels)
    if max(map(len, across.labels)) > 7:
        _tilt(ax)
    ax.set_yticks(np.arange(len(up.labels)) + 0.5, up.labels)
    ax.tick_params(length=0)
    return drawn


def _draw_points(ax: Axes, found: Candidates, across: Parameter, up: Parameter) -> Any:
    order = np.argsort(np.nan_to_num(found.means, nan=-np.inf), kind="stable")  # the best on top
    scored = order[np.isfinite(found.means[order])]
    drawn = ax.scatter(
        across.positions[scored], up.positions[scored], c=found.means[scored], s=36, cmap="viridis", zorder=2
    )
    lost = np.flatnonzero(~np.isfinite(found.means))
    if lost.size:
        ax.plot(across.positions[lost], up.positions[lost], "x", color=FAINT, label="no score", zorder=1)
    _mark_best(ax, found, across.positions, up.positions)
    _scale(ax, "x", across)
    _scale(ax, "y", up)
    ax.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(0, -0.12), ncols=2)
    return drawn


# ---- both ----------------------------------------------------------------------------------------


def _mark_best(ax: Axes, found: Candidates, x: NDArray[Any], y: NDArray[Any]) -> None:
    if found.best is not None:
        ax.plot(
            x[found.best], y[found.best], "o",
            markersize=12, markerfacecolor="none", markeredgecolor=BEST, markeredgewidth=2,
            label="best", linestyle="none", zorder=4,
        )  # fmt: skip


def _scale(ax: Axes, which: str, parameter: Parameter) -> None:
    if not parameter.is_numeric:
        crowded = which == "x" and len(parameter.labels) > 8
        step = -(-len(parameter.labels) // MOST_CELLS)
        places = range(0, len(parameter.labels), step)
        ax.set(**{f"{which}ticks": places, f"{which}ticklabels": parameter.labels[::step]})
        if crowded:
            _tilt(ax)
    elif parameter.is_logarithmic:
        ax.set(**{f"{which}scale": "log"})


def _tilt(ax: Axes) -> None:
    for label in ax.get_xticklabels():
        label.set(rotation=40, horizontalalignment="right", rotation_mode="anchor")


def _title(found: Candidates, drawn: Sequence[Parameter]) -> str:
    n = len(found.means)
    title = f"{n} candidate{'s' * (n != 1)}"
    if found.best is not None:
        title += f", the best {found.metric} {found.means[found.best]:.4g}"
    rest = [parameter.name for parameter in found.parameters if parameter not in drawn]
    if rest:
        names = rest[0] if len(rest) == 1 else f"{len(rest)} other parameters"
        title += f"\nshown is the best over {names}"
    return title
