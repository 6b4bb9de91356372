"""Objects that are shared with the workers of a cluster: one read-only copy per host, named by tasks by key.

    caller                                      worker
    ------                                      ------
    Placed(key).get() ── reads the file         (key, files) comes with each call that needs it
    files: where copies are, on any host  ───>  the first of the files that opens here is the object
                                                none opens: the call is not begun, a copy is asked for

A task's pickle holds nothing but keys. Which keys a call needs, also those that a shared object refers
to, is noted while it is pickled.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, Generic, NamedTuple, TypeVar

from anyfold._data.files import SharedFile
from anyfold.errors import SharedLost

__all__ = ["Need", "Placed", "noted", "noting_keys", "owned", "place"]

T = TypeVar("T")


class Need(NamedTuple):
    """A shared object that a call needs, and the files that hold it, each on one host."""

    key: str
    files: tuple[SharedFile[Any], ...]


class Placed(Generic[T]):
    """A handle on a shared object; its copies are files on the hosts where workers run.

    Parameters
    ----------
    key : str
        Names the object in the whole cluster.
    """

    def __init__(self, key: str) -> None:
        self.key = key

    def get(self) -> T:
        """Return the object, read-only.

        Raises
        ------
        SharedLost
            If it was released, or its last copy is gone.
        """
        file = owned.get(self.key) or _read.get(self.key)
        if file is None:
            raise SharedLost("shared data was released, or its last copy is gone; share it again")
        value: T = file.get()
        return value

    def __reduce__(self) -> tuple[Any, ...]:
        return Placed, (noted(self.key),)


owned: dict[str, SharedFile[Any]] = {}
"""Objects that this process, as the caller, has shared and not yet released, by key."""

_read: dict[str, SharedFile[Any]] = {}
"""The copies that this process, as a worker, reads, by key."""

_MOST_READ = 64

_noted: ContextVar[list[str] | None] = ContextVar("anyfold_noted_keys", default=None)


@contextlib.contextmanager
def noting_keys() -> Iterator[list[str]]:
    """Collect the keys of the handles that are pickled inside the block."""
    keys: list[str] = []
    token = _noted.set(keys)
    try:
        yield keys
    finally:
        _noted.reset(token)


def noted(key: str) -> str:
    """Return the key of a handle that is being pickled, and note it."""
    keys = _noted.get()
    if keys is not None:
        keys.append(key)
    return key


def place(need: Need) -> bool:
    """Make an object readable in this process; False where none of its copies can be reached."""
    for file in need.files:
        try:
            file.get()
        except SharedLost:
            continue
        except BaseException:
            pass  # it is here; what is wrong with it is the business of the call that reads it
        _read.pop(need.key, None)
        _read[need.key] = file
        while len(_read) > _MOST_READ:
            del _read[next(iter(_read))]
        return True
    return False
