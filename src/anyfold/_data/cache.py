"""What a process keeps of what it has read or cut: the most recent values, each built once."""

from __future__ import annotations

import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

__all__ = ["Cache"]

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class _Entry(Generic[V]):
    value: V
    nbytes: int


class Cache(Generic[V]):
    """Keep the values that were used last, within a number and a size.

    Threads that ask for the same value build it once; a value that is larger than the whole cache is
    not kept. A forked process starts with its parent's values and with locks of its own.

    Parameters
    ----------
    max_entries : int
        Number of values.
    max_bytes : int or None, default=None
        Bytes of all values together; None for no bound.
    small : int or None, default=None
        Bytes up to which values other than the last ones are kept too; None for `max_bytes`.
    """

    def __init__(self, max_entries: int, max_bytes: int | None = None, small: int | None = None) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._small = small
        self._n_last = 1
        self._entries: OrderedDict[Hashable, _Entry[V]] = OrderedDict()
        self._reset_locks()
        _caches.add(self)

    def get(self, key: Hashable, build: Callable[[], tuple[V, int]], size: Callable[[], int] = int) -> V:
        """Return the value of a key; ``build`` returns it and its size in bytes, and runs unlocked.

        Room is made before it is built, for as many bytes as ``size`` estimates.
        """
        while True:
            with self._lock:
                if (entry := self._entries.get(key)) is not None:
                    self._entries.move_to_end(key)
                    return entry.value
                building = self._building.get(key)
                if building is None:
                    done = self._building[key] = threading.Event()
                    break
            building.wait()
        try:
            coming = size()
            with self._lock:
                self._shrink(coming)
            value, nbytes = build()
            with self._lock:
                if self._max_bytes is None or nbytes <= self._max_bytes:
                    self._entries[key] = _Entry(value, nbytes)
                    self._shrink()
            return value
        finally:
            with self._lock:
                self._building.pop(key, None)
            done.set()

    def peek(self, key: Hashable) -> V | None:
        """Return the value of a key if it is there."""
        with self._lock:
            entry = self._entries.get(key)
        return None if entry is None else entry.value

    def drop(self, unwanted: Callable[[Hashable, V], bool]) -> None:
        """Forget the values for which ``unwanted(key, value)`` is true."""
        with self._lock:
            keys = list(self._entries)
        for key in keys:
            with self._lock:
                entry = self._entries.get(key)
            if entry is not None and unwanted(key, entry.value):
                with self._lock:
                    self._entries.pop(key, None)

    def resize(self, max_bytes: int | None, n_last: int = 1) -> None:
        """Set the bound in bytes, and how many of the last values are kept though they are not small."""
        with self._lock:
            self._max_bytes = max_bytes
            self._n_last = n_last
            self._shrink()

    @property
    def nbytes(self) -> int:
        """Bytes of all values together."""
        with self._lock:
            return sum(entry.nbytes for entry in self._entries.values())

    def __len__(self) -> int:
        return len(self._entries)

    def _shrink(self, coming: int = 0) -> None:
        total = coming + sum(entry.nbytes for entry in self._entries.values())
        number = len(self._entries) + bool(coming)
        while self._entries and (
            number > self._max_entries
            or (self._max_bytes is not None and total > self._max_bytes)
            or (self._small is not None and total > self._small and number > self._n_last)
        ):
            _, oldest = self._entries.popitem(last=False)
            total -= oldest.nbytes
            number -= 1

    def _reset_locks(self) -> None:
        # reentrant: a collection may run inside, and drop an object that drops an entry
        self._lock = threading.RLock()
        self._building: dict[Hashable, threading.Event] = {}


_caches: weakref.WeakSet[Cache[Any]] = weakref.WeakSet()


def _reset_locks_in_child() -> None:
    for cache in _caches:
        cache._reset_locks()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_locks_in_child)
