"""What the calls that joblib hands over are given, on its way to the workers."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Sequence
from typing import Any

from anyfold._data.kinds import is_guardable
from anyfold._data.serialize import dumps
from anyfold._data.sizes import nbytes_of
from anyfold._engine.sharing import share
from anyfold._session import Workers
from anyfold._worker.batches import Common
from anyfold.executors.base import Shared

__all__ = ["Arguments"]


class Arguments:
    """Sends batches of calls; large data that several calls have in common only once.

    Parameters
    ----------
    workers : Workers
        Who runs them.
    max_nbytes : int or None
        Of data that is sent with each call, as joblib counts it; None sends all data with each call.
    """

    def __init__(self, workers: Workers, max_nbytes: int | None) -> None:
        self._workers = workers
        self._max_nbytes = max_nbytes
        self._seen: dict[int, Any] = {}
        """Weak references by id."""
        self._known: dict[int, tuple[Any, Any]] = {}
        """By id: an object, and what is sent in its place."""
        self._shared: list[Shared[Any]] = []

    def packed(self, batches: Sequence[Any]) -> bytes:
        """Pickle batches."""
        return dumps([self._sent(batch) for batch in batches])

    def _sent(self, batch: Any) -> Any:
        sent = copy.copy(batch)
        sent.items = [
            (
                function,
                tuple(map(self._in_place_of, args)),
                {name: self._in_place_of(value) for name, value in kwargs.items()},
            )
            for function, args, kwargs in batch.items
        ]
        return sent

    def _in_place_of(self, value: Any) -> Any:
        if id(value) in self._known:
            return self._known[id(value)][1]
        reference = self._seen.get(id(value))
        if reference is not None and reference() is value:
            stands_for = self._published(value)
            self._known[id(value)] = value, stands_for
            return stands_for
        if _may_be_large(value):
            self._seen[id(value)] = weakref.ref(value)
        return value

    def _published(self, value: Any) -> Any:
        if self._max_nbytes is None or nbytes_of(value) <= self._max_nbytes or not is_guardable(value):
            return value
        shared = share(self._workers.executor, value, self._workers.temp_dir)
        self._shared.append(shared)
        return Common(shared)

    def release(self) -> None:
        """Give up what was published."""
        for shared in self._shared:
            shared.release()


def _may_be_large(value: Any) -> bool:
    package = type(value).__module__.partition(".")[0]
    return package in ("numpy", "scipy", "pandas", "polars") and hasattr(value, "shape") and _is_weak(value)


def _is_weak(value: Any) -> bool:
    return hasattr(type(value), "__weakref__") or type(value).__module__ == "numpy"
