"""Bytes that stand for the content of a value: equal for equal content, in every process.

The encoding is exact and typed: ``1``, ``1.0``, ``True`` and ``numpy.int64(1)`` differ, arrays differ by
dtype and memory layout, dictionaries by the order of their items. It depends on no address, no hash
randomisation and no order of a set. What has no content that could be read (an open file, a generator)
raises `Untrusted`.

Each encoding names its kind and its length, so that no two sequences of values run together.
"""

from __future__ import annotations

import copyreg
import struct
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import blake2b
from pickle import PickleBuffer
from types import CodeType, MappingProxyType, MethodType
from typing import Any

import numpy as np

from anyfold._data.reducers import reducers
from anyfold._plan.installed import installed_version, leads_to

__all__ = ["Encoder", "Untrusted", "digest", "token", "within"]

Encode = Callable[[Any], bytes | None]

STATELESS = (type(threading.Lock()), type(threading.RLock()))
MOST_SPREAD_CHUNK = 1 << 24
"""Bytes of an array with gaps that are copied at a time."""


class Untrusted(Exception):
    """Something has no content that could be read, so that nothing can be said about equality."""

    def __init__(self, reason: str, where: tuple[str, ...] = ()) -> None:
        super().__init__(reason, where)
        self.reason = reason
        self.where = where

    def __str__(self) -> str:
        return ": ".join((*self.where, self.reason))


@contextmanager
def within(where: str) -> Iterator[None]:
    """Say in the reason where the thing was that cannot be trusted."""
    try:
        yield
    except Untrusted as error:
        raise Untrusted(error.reason, (where, *error.where)) from error.__cause__


def token(kind: str, *parts: bytes) -> bytes:
    """Return one piece of an encoding; long ones are replaced by their hash."""
    size = sum(map(len, parts))
    if size > 256:
        return token(f"{kind}#", digest(parts))
    name = kind.encode()
    return b"".join((struct.pack("<BI", len(name), size), name, *parts))


def digest(parts: Iterable[bytes]) -> bytes:
    """Return a hash of 32 bytes of pieces, each of which ends where it says."""
    hashed = blake2b(digest_size=32)
    for part in parts:
        hashed.update(part)
    return hashed.digest()


class Encoder:
    """Encodes values; what is code is left to others.

    Parameters
    ----------
    refer : callable
        Encodes classes, functions, modules and other code; returns None for what is none.
    alone : callable
        The same for what has no place in an order, such as the members of a set: its answer does not
        depend on what came before.
    """

    def __init__(self, refer: Encode, alone: Encode | None = None) -> None:
        self._refer = refer
        self._alone = alone or refer
        self._open: dict[int, int] = {}
        self._reducers = {**copyreg.dispatch_table, **reducers(in_band=False)}

    def encode(self, value: Any) -> bytes:
        """Return the encoding of a value.

        Raises
        ------
        Untrusted
            If it has no content that could be read.
        """
        scalar = _SCALARS.get(type(value))
        if scalar is not None:
            return token(type(value).__name__, scalar(value))
        if isinstance(value, np.generic) and not value.dtype.hasobject:
            return token("scalar", self.encode(value.dtype.str), value.tobytes())
        code = self._refer(value)
        if code is not None:
            return token("code", code)
        identity = id(value)
        if identity in self._open:
            return token("cycle", str(len(self._open) - self._open[identity]).encode())
        self._open[identity] = len(self._open)
        try:
            return self._compound(value)
        except RecursionError as error:
            raise Untrusted(f"{type(value).__name__} is nested too deeply") from error
        finally:
            del self._open[identity]

    def named(self, values: Mapping[str, Any], where: str) -> bytes:
        """Return the encoding of what is known by name, in whatever order it is held."""
        parts = []
        for name in sorted(values):
            with within(f"{where} {name!r}"):
                parts += [self.encode(name), self.encode(values[name])]
        return token("named", *parts)

    def unordered(self, values: Iterable[Any]) -> bytes:
        """Return the encoding of values that have no order."""
        alone = Encoder(self._alone)
        return token("unordered", *sorted(map(alone.encode, values)))

    def _compound(self, value: Any) -> bytes:
        kind = type(value)
        if kind in (list, tuple):
            return token(kind.__name__, *map(self.encode, value))
        if kind in (dict, MappingProxyType):
            return token("dict", *(self.encode(part) for item in value.items() for part in item))
        if kind in (set, frozenset):
            return token(kind.__name__, self.unordered(value))
        if kind is np.ndarray:
            return self._array(value)
        if isinstance(value, np.ndarray) and kind in (np.memmap, np.matrix, np.recarray):
            shown = "ndarray" if kind is np.memmap else kind.__name__
            return token(shown, self._array(value.view(np.ndarray)))
        if kind in (memoryview, PickleBuffer):
            return token("buffer", _hash_of(memoryview(value).cast("B")))
        if kind in STATELESS:
            return token("lock")
        if kind is MethodType:
            return token("method", self.encode(value.__func__), self.encode(value.__self__))
        if isinstance(value, CodeType):
            raise Untrusted("a code object stands alone, without the function that runs it")
        return self._reduced(value)

    def _array(self, array: np.ndarray) -> bytes:
        strides = [step if n > 1 else 0 for step, n in zip(array.strides, array.shape, strict=True)]
        layout = "C" if array.flags.c_contiguous else "F" if array.flags.f_contiguous else strides
        with within("an array"):
            described = self.encode((_dtype(array.dtype), array.shape, layout))
            if array.dtype.hasobject:
                return token("objects", described, *map(self.encode, array.ravel(order="K").tolist()))
        return token("ndarray", described, _bytes_of(array))

    def _reduced(self, value: Any) -> bytes:
        """Take an object apart as pickling would, and encode its class and the parts."""
        kind = type(value)
        parts: Any
        try:
            reduce = self._reducers.get(kind)
            parts = value.__reduce_ex__(5) if reduce is None else reduce(value)
        except Untrusted:
            raise
        except Exception as error:
            raise Untrusted(f"{_full_name(kind)} has no content that could be compared ({error})") from error
        if isinstance(parts, str):
            return self._singleton(value, parts)
        rebuild, arguments, state, items, pairs = (*parts[:5], None, None, None)[:5]
        with within(_full_name(kind)):
            told = [self.encode(kind), self.encode(rebuild), self.encode(arguments)]
            if type(state) is dict and all(type(name) is str for name in state):
                told.append(self.named(state, "attribute"))
            else:
                told.append(self.encode(state))
            told.append(self.encode(None if items is None else list(items)))
            told.append(self.encode(None if pairs is None else list(map(tuple, pairs))))
        return token("object", *told)

    def _singleton(self, value: Any, name: str) -> bytes:
        """Encode what pickling would refer to by name."""
        wrapped = getattr(value, "__wrapped__", None)
        if callable(wrapped):
            return token("wrapper", self.encode(type(value)), self.encode(wrapped))
        own = getattr(value, "__module__", None)
        for module in (own, type(value).__module__, "scipy.special"):
            if isinstance(module, str) and leads_to(module, name, value):
                version = installed_version(module)
                if version is not None:
                    return token("singleton", *map(self.encode, (module, name, version)))
        if type(value).__module__ == "typing":
            return token("singleton", self.encode(type(value)), self.encode(name))
        raise Untrusted(f"{_full_name(type(value))} {name!r} is known by name only")


_SCALARS: dict[type, Callable[[Any], bytes]] = {
    type(None): lambda value: b"",
    type(...): lambda value: b"",
    type(NotImplemented): lambda value: b"",
    bool: lambda value: b"1" if value else b"0",
    int: lambda value: hex(value).encode(),
    float: lambda value: struct.pack("<d", value),
    complex: lambda value: struct.pack("<dd", value.real, value.imag),
    str: lambda value: value.encode("utf-8", "surrogatepass"),
    bytes: lambda value: value,
    bytearray: bytes,
}


def _dtype(dtype: np.dtype[Any]) -> Any:
    if dtype.names is None and dtype.subdtype is None and not dtype.metadata:
        return dtype.str
    return dtype.__reduce__()[1:]


def _bytes_of(array: np.ndarray) -> bytes:
    """Return a hash of an array's elements in the order in which they are in memory."""
    if array.size == 0 or array.dtype.itemsize == 0:
        return _hash_of(b"")
    if array.flags.f_contiguous and not array.flags.c_contiguous:
        array = array.T
    if array.flags.c_contiguous:
        return _hash_of(array.reshape(-1).view(np.uint8).data)
    rows = max(1, MOST_SPREAD_CHUNK // max(1, array[:1].nbytes))
    hashed = blake2b(digest_size=32)
    for start in range(0, len(array), rows):
        part = np.ascontiguousarray(array[start : start + rows])
        hashed.update(part.reshape(-1).view(np.uint8).data)
    return hashed.digest()


def _hash_of(data: Any) -> bytes:
    return blake2b(data, digest_size=32).digest()


def _full_name(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
