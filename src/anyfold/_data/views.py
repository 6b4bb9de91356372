"""Objects that are shared within this process: a read-only view for threads and for serial runs."""

from __future__ import annotations

import zlib
from typing import Generic, NoReturn, TypeVar

from anyfold._data.serialize import Serialized, deserialize, serialize
from anyfold.errors import SharedLost

__all__ = ["SharedView", "view"]

T = TypeVar("T")


class SharedView(Generic[T]):
    """A read-only view of an object, with the layout that a worker process would see.

    Arrays without gaps are the caller's own memory, marked read-only here and untouched there.
    """

    def __init__(self, obj: T) -> None:
        serialized = serialize(obj)
        self._obj: list[T] = [deserialize(serialized.stream, serialized.buffers)]
        self._checksum = _checksum(serialized)

    def get(self) -> T:
        """Return the object.

        Raises
        ------
        SharedLost
            If it was released.
        """
        try:
            return self._obj[0]
        except IndexError:
            raise SharedLost("shared data was released and can no longer be read; share it again") from None

    def release(self) -> None:
        """Give up the view."""
        self._obj.clear()

    def matches(self, obj: object) -> bool:
        """Return whether an object is still what it was, by a checksum over all of its bytes."""
        return self._checksum == _checksum(serialize(obj))

    def __reduce__(self) -> NoReturn:
        raise TypeError("a SharedView stays in its process; publish the object for other processes")


def view(obj: T) -> SharedView[T]:
    """Share an object with the threads of this process; see `SharedView`."""
    return SharedView(obj)


def _checksum(serialized: Serialized) -> tuple[tuple[int, int], ...]:
    return tuple(
        (part.nbytes, zlib.crc32(part)) for part in (memoryview(serialized.stream), *serialized.buffers)
    )
