"""When work is worth workers: pure functions of what was measured, for ``backend="auto"``."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

__all__ = ["FIRST_START", "WARM_START", "seconds_left", "seconds_until_worth"]

FIRST_START = 1.0
"""Seconds until the first worker of a new pool is ready, as long as none was measured."""

WARM_START = 0.03
"""The same where workers are there already: what it takes to publish the work and to hear from them."""

MARGIN = 1.1
"""How much more work than that there must be: who starts workers computes more slowly meanwhile."""

PATIENCE = 0.25
"""Part of the start for which a task that nobody has measured is waited for: the first of its kind often
takes long only because it imports what it needs."""


def seconds_left(n_left: int, taken: Sequence[float], running: float) -> float:
    """Return how much work there is, the task that runs included.

    Parameters
    ----------
    n_left : int
        Tasks that have not begun.
    taken : sequence of float
        Seconds of each task that has finished.
    running : float
        Seconds for which one has been running. Until something has finished it is taken to be half done.
    """
    usual = median(taken) if taken else 2 * running
    return n_left * usual + max(running, usual - running)


def seconds_until_worth(n_left: int, taken: Sequence[float], running: float, start: float) -> float | None:
    """Return in how many seconds it is worth starting workers if nothing finishes before; None for never.

    While they start the work goes on where it is, so that they gain something as soon as more is left than
    their start takes.
    """
    if n_left < 1:
        return None
    enough = MARGIN * start
    if seconds_left(n_left, taken, running) > enough and (taken or running >= PATIENCE * start):
        return 0.0
    if taken:
        usual = median(taken)
        due = enough - n_left * usual  # from then on what runs, which is late, is enough alone
    else:
        due = max(PATIENCE * start, enough / (2 * n_left + 1))
    return max(due - running, 0.001)
