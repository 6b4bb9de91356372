"""How an object becomes bytes and comes back exactly, on any worker.

Pickle protocol 5 by cloudpickle, so that what is defined in ``__main__``, in a notebook or inside a
function travels by value, with reducers for what would otherwise lose its memory layout or travel
inside the pickle although it is plain memory (`anyfold._data.layout`, `anyfold._data.reducers`).
"""

from __future__ import annotations

import copyreg
import io
import pickle
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import cloudpickle

from anyfold._data.reducers import reducers

__all__ = ["Serialized", "deserialize", "dumps", "loads", "serialize"]

PROTOCOL = 5


@dataclass(frozen=True, slots=True)
class Serialized:
    """A pickle, and the memory that it refers to."""

    stream: bytes
    buffers: tuple[memoryview, ...]
    """Flat read-only views, in the order in which the pickle asks for them; most are the object's own
    memory, not copies."""

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return len(self.stream) + sum(buffer.nbytes for buffer in self.buffers)


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    def __init__(self, file: Any, keep: Callable[[pickle.PickleBuffer], Any] | None) -> None:
        # before super().__init__, which is when the pickler looks for it
        self.dispatch_table = {
            **copyreg.dispatch_table,
            **cloudpickle.Pickler._dispatch_table,
            **reducers(in_band=keep is None),
        }
        super().__init__(file, protocol=PROTOCOL, buffer_callback=keep)


def serialize(obj: Any) -> Serialized:
    """Pickle an object, leaving its large memory where it is.

    Parameters
    ----------
    obj : object
        Anything that cloudpickle can pickle.

    Returns
    -------
    Serialized
        To be used while the object lives and is not changed.
    """
    buffers: list[memoryview] = []
    file = io.BytesIO()
    # list.append returns None, a false value: the buffer stays out of the stream
    _Pickler(file, lambda buffer: buffers.append(buffer.raw().toreadonly())).dump(obj)
    return Serialized(file.getvalue(), tuple(buffers))


def deserialize(stream: bytes | memoryview, buffers: Iterable[Any]) -> Any:
    """Restore what `serialize` took apart; arrays use the buffers' memory and are as writable as it is."""
    return pickle.loads(stream, buffers=buffers)


def dumps(obj: Any) -> bytes:
    """Pickle an object into one string of bytes, memory layout included."""
    file = io.BytesIO()
    _Pickler(file, None).dump(obj)
    return file.getvalue()


def loads(data: bytes | memoryview) -> Any:
    """Restore what `dumps` pickled; its arrays own their memory and are writable."""
    return pickle.loads(data)
