"""Runs a batch of calls that joblib has put together, on a worker."""

from __future__ import annotations

from typing import Any

from anyfold._data.kinds import guard
from anyfold._worker.alone import alone_if_needed
from anyfold.executors.base import Shared

__all__ = ["Common", "run_batch"]


def run_batch(batch: Any) -> list[Any]:
    """Make the calls of a batch and return what each came to."""
    arguments = [value for _, args, kwargs in batch.items for value in (*args, *kwargs.values())]
    with alone_if_needed(*arguments):
        results: list[Any] = batch()
    return results


class Common:
    """Travels as a handle to a published object, and arrives as what that holds."""

    def __init__(self, shared: Shared[Any]) -> None:
        self._shared = shared

    def __reduce__(self) -> Any:
        return _read, (self._shared,)


def _read(shared: Shared[Any]) -> Any:
    return guard(shared.get())
