"""The chart of ``anyfold bench``: speed over the length of tasks, and what a start costs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from anyfold.errors import InvalidInputError, MissingDependencyError

if TYPE_CHECKING:
    from anyfold._commands.bench import Row

__all__ = ["check_can_draw", "draw"]


def check_can_draw(path: Path) -> None:
    """Refuse, before anything is measured, what could not be drawn in the end.

    Raises
    ------
    MissingDependencyError
        If matplotlib is not installed.
    InvalidInputError
        If the file is of no kind that it draws, or cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError(
            '--chart needs matplotlib, which is not installed; pip install "anyfold[plot]"'
        ) from error
    kinds = Figure().canvas.get_supported_filetypes()
    if path.suffix.removeprefix(".").lower() not in kinds:
        raise InvalidInputError(f"--chart {str(path)!r}: the name must end in one of .{', .'.join(kinds)}")
    if not os.access(path.parent, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        raise InvalidInputError(f"--chart {str(path)!r}: cannot be written")


def draw(rows: Sequence[Row], path: Path) -> None:
    """Draw the chart into a file."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    from anyfold._commands.bench import told
    from anyfold._commands.measure import N_TASKS
    from anyfold.results.figures import INK, model_colors

    good = [row for row in rows if row.error is None and row.speedups]
    colors = model_colors(len(good))
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))

    for row, color in zip(good, colors, strict=True):
        speedups = {float(length): speedup for length, speedup in (row.speedups or {}).items()}
        left.plot(
            [max(length, 1e-4) for length in speedups],
            list(speedups.values()),
            marker="o", markersize=4, color=color, label=row.backend,
        )  # fmt: skip
    left.axhline(1.0, color=INK, linewidth=1, linestyle="--")
    left.annotate(
        "serial", (1.005, 1.0), xycoords=("axes fraction", "data"), ha="left", va="center", fontsize="small"
    )
    left.set_xscale("log")
    left.set_yscale("log", base=2)
    left.xaxis.set_major_formatter(
        FuncFormatter(lambda length, _: "empty" if length < 2e-4 else told(length))
    )
    left.yaxis.set_major_formatter(FuncFormatter(lambda speedup, _: f"{speedup:.2g}"))
    left.set_xlabel("length of a task")
    left.set_ylabel("times as fast as serial")
    left.set_title(f"{N_TASKS} tasks on warm workers", loc="left")
    if good:  # beside the axes: nobody knows where in them is room
        figure.legend(loc="outside lower center", ncols=min(len(good), 8), frameon=False, fontsize="small")

    names = [row.backend for row in good]
    right.barh(range(len(good)), [row.start or 0.0 for row in good], color=colors)
    for place, row in enumerate(good):
        right.text(row.start or 0.0, place, f" {told(row.start)}", va="center", fontsize="small")
    right.set_yticks(range(len(good)), names)
    right.set_ylim(max(len(good), 1) - 0.5, -0.5)
    right.margins(x=0.15)
    right.set_xlabel("seconds")
    right.set_title("cold start of the workers", loc="left")
    right.tick_params(axis="y", length=0)
    for axes in (left, right):
        axes.grid(axis="y" if axes is left else "x", color="#e6e6e6", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
