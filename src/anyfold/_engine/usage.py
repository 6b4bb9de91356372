"""How many runs use an executor at the same time."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import Counter
from collections.abc import Iterator

from anyfold.executors.base import Executor

__all__ = ["in_use", "in_use_elsewhere"]

_runs: Counter[int] = Counter()
_lock = threading.Lock()


@contextlib.contextmanager
def in_use(executor: Executor) -> Iterator[None]:
    """Count a run of this executor."""
    with _lock:
        _runs[id(executor)] += 1
    try:
        yield
    finally:
        with _lock:
            _runs[id(executor)] -= 1
            if not _runs[id(executor)]:
                del _runs[id(executor)]


def in_use_elsewhere(executor: Executor) -> bool:
    """Return whether a run besides the caller's uses this executor."""
    with _lock:
        return _runs[id(executor)] > 1


def _unlock_in_child() -> None:
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock_in_child)
