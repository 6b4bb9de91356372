"""Where pictures are drawn, and in which colours."""

from __future__ import annotations

import builtins
import sys
from typing import TYPE_CHECKING

from anyfold.errors import MissingDependencyError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["FAINT", "INK", "model_colors", "new_axes"]

INK = "#222222"
FAINT = "#8a8a8a"

# Okabe and Ito, "Color Universal Design" (2008), without black; yellow is the faintest and comes last.
HUES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
BRIGHTNESS = (0.0, 0.55, -0.45)
"""Hues are used again lighter and then darker, which is seen without seeing colour."""


def new_axes(width: float, height: float) -> Axes:
    """Make a figure of its own, in inches, and return its Axes.

    pyplot is told of the figure where somebody would look for it: in a notebook, or where the caller
    has imported pyplot and may call ``plt.show()``. Elsewhere the figure belongs to whoever holds it,
    needs no display, and goes with its last reference.

    Raises
    ------
    MissingDependencyError
        If matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError(
            'plots need matplotlib, which is not installed; pip install "anyfold[plot]"'
        ) from error
    if "matplotlib.pyplot" in sys.modules or hasattr(builtins, "__IPYTHON__"):
        from matplotlib import pyplot

        figure = pyplot.figure(figsize=(width, height), layout="constrained")
    else:
        figure = Figure(figsize=(width, height), layout="constrained")
    axes: Axes = figure.add_subplot()
    return axes


def model_colors(n_models: int) -> list[tuple[float, float, float]]:
    """Return colours that colour-blind readers can tell apart; from the 22nd on they repeat."""
    from matplotlib.colors import to_rgb

    colors = []
    for position in range(n_models):
        brightness = BRIGHTNESS[position // len(HUES) % len(BRIGHTNESS)]
        target = 1.0 if brightness > 0 else 0.0
        red, green, blue = (
            part + (target - part) * abs(brightness) for part in to_rgb(HUES[position % len(HUES)])
        )
        colors.append((red, green, blue))
    return colors
