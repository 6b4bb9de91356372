"""Checks of what backends are given."""

from __future__ import annotations

import operator

from anyfold.errors import InvalidSettingError

__all__ = ["check_max_workers"]


def check_max_workers(max_workers: int) -> int:
    """Return the number of workers, or raise `InvalidSettingError` where it is none."""
    try:
        number = operator.index(max_workers)
    except TypeError:
        number = 0
    if number < 1 or isinstance(max_workers, bool):
        raise InvalidSettingError(f"max_workers={max_workers!r} is not a positive integer")
    return number
