"""Publishes what a run needs, once, by the means that the executor has.

An executor may share objects by itself; worker processes on this host read anyfold's local files;
workers in the caller's process read a read-only view.
"""

from __future__ import annotations

import os
import secrets
import threading
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

from anyfold._data.files import publish
from anyfold._data.serialize import dumps, loads
from anyfold._data.views import view
from anyfold.errors import SharedLost
from anyfold.executors.base import Executor, Shared, capabilities_of, isolation_of

__all__ = ["Direct", "Packed", "Published", "share", "share_once"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Direct(Generic[T]):
    """An object that workers in the caller's own process use as it is."""

    value: T

    def get(self) -> T:
        return self.value

    def release(self) -> None:
        pass


@dataclass(frozen=True, slots=True)
class Packed(Generic[T]):
    """An object that travels with the task that needs it, in the memory layout that it has here."""

    pickled: bytes

    @classmethod
    def of(cls, obj: T) -> Packed[T]:
        return cls(dumps(obj))

    def get(self) -> T:
        obj: T = loads(self.pickled)
        return obj

    def release(self) -> None:
        pass


def share(executor: Executor, obj: T, temp_dir: str | None = None) -> Shared[T]:
    """Publish an object for the workers of an executor."""
    shared: Shared[T]
    if "share" in capabilities_of(executor):
        shared = executor.share(obj)  # type: ignore[attr-defined]
    elif isolation_of(executor) == "process":
        shared = publish(obj, temp_dir=temp_dir)
    else:
        shared = view(obj)
    return shared


@dataclass(frozen=True, slots=True)
class Published(Generic[T]):
    """An object that is published as long as its owner lives."""

    shared: Shared[T]
    identity: str
    """Equal as long as the content is the same."""
    changed: bool
    """Whether the owner's object was published before with another content."""


_Places = tuple[dict[bool, Published[Any]], WeakKeyDictionary[Executor, Published[Any]]]

_published: WeakKeyDictionary[Any, _Places] = WeakKeyDictionary()
"""By owner: what is on this host, in a file or as a view, and what executors share by themselves."""
_lock = threading.Lock()


def _unlock_in_child() -> None:
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock_in_child)


def share_once(executor: Executor, owner: Any, obj: T, temp_dir: str | None = None) -> Published[T]:
    """Publish an object once for its owner, and again only when its content has changed.

    Local files serve all executors of this host, and a view all threads of this process; what an
    executor shares by itself is its own.
    """
    with _lock:
        by_place = _published.setdefault(owner, ({}, WeakKeyDictionary()))
        place: Any
        places: Any
        if "share" in capabilities_of(executor):
            place, places = executor, by_place[1]
        else:
            place, places = isolation_of(executor) == "process", by_place[0]
        known = places.get(place)
        if known is not None and _is_current(known.shared, obj):
            return replace(known, changed=False)
        published = Published(share(executor, obj, temp_dir), secrets.token_hex(8), known is not None)
        places[place] = published
    if known is not None:
        known.shared.release()
    return published


def _is_current(shared: Any, obj: Any) -> bool:
    try:
        return bool(shared.matches(obj))
    except SharedLost:
        return False
