"""How many leaves make a unit of work: enough to be worth a dispatch, few enough to share out.

Pure functions of what remains, what was measured and how many workers there are; the engine asks
again before every submission.
"""

from __future__ import annotations

__all__ = ["LARGEST_UNIT", "unit_size", "window_size"]

WORTH_DISPATCHING = 0.05
"""Seconds of work after which the cost of sending a unit no longer shows."""

LARGEST_UNIT = 512
"""Leaves; bounds what a lost worker makes others repeat and what one message carries."""


def unit_size(n_remaining: int, n_workers: int, leaf_seconds: float | None) -> int:
    """Return how many of the remaining leaves the next unit should hold.

    Until a leaf was measured, units hold one leaf. Afterwards a unit holds as many as are worth a
    dispatch, but no more than half of a worker's fair share of what remains, so that units shrink
    towards the end and the workers finish together (guided self-scheduling, Polychronopoulos and
    Kuck, IEEE Transactions on Computers C-36(12), 1987).
    """
    if leaf_seconds is None or n_remaining <= 1:
        return 1
    worth = int(WORTH_DISPATCHING / max(leaf_seconds, 1e-9))
    fair = -(-n_remaining // (2 * n_workers))
    return max(1, min(worth, fair, LARGEST_UNIT))


def window_size(n_workers: int) -> int:
    """Return how many units may be with the executor at once: a running and a waiting one per worker."""
    return 2 * n_workers
