"""Shared objects in Ray's object store: put once by the caller, who owns them, read on any node."""

from __future__ import annotations

import secrets
import weakref
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import ray

from anyfold.errors import SharedLost
from anyfold.executors._placed import noted, noting_keys
from anyfold.executors._ray_worker import Need, Parts, in_parts, read, restore

__all__ = ["RayObjects", "RayShared"]

T = TypeVar("T")

Checksum = tuple[tuple[int, int], ...]


class OnWorker(Generic[T]):
    """What a pickled handle becomes on a worker."""

    def __init__(self, key: str) -> None:
        self._key = key

    def get(self) -> T:
        """Return the object, read-only."""
        value: T = read(self._key)
        return value

    def release(self) -> None:
        """Do nothing: the object is the caller's."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrive, (noted(self._key),)


def _arrive(key: str) -> OnWorker[Any]:
    return OnWorker(key)


@dataclass(slots=True)
class _Entry:
    """A shared object in Ray's store."""

    ref: Any
    needs: tuple[str, ...]
    checksum: Checksum | None


class RayShared(Generic[T]):
    """The caller's handle on an object in Ray's store."""

    def __init__(self, key: str, objects: RayObjects) -> None:
        self._key = key
        self._objects = objects
        weakref.finalize(self, objects.release, key)

    def get(self) -> T:
        """Return the object, read-only.

        Raises
        ------
        SharedLost
            If it was released, or the node that held it is gone.
        """
        value: T = restore(self._objects.entry(self._key).ref)
        return value

    def release(self) -> None:
        """Give the object up."""
        self._objects.release(self._key)

    def matches(self, obj: object) -> bool:
        """Return whether an object is still what was shared, by a checksum over all of its bytes."""
        return self._objects.entry(self._key).checksum == _checksum(in_parts(obj))

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrive, (noted(self._key),)


class RayObjects:
    """The objects that one executor shares."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}

    def share(self, obj: T) -> RayShared[T]:
        """Put an object into the store."""
        with noting_keys() as needs:
            parts = in_parts(obj)
        return self._add(_Entry(ray.put(parts), tuple(needs), _checksum(parts)))

    def adopt(self, ref: Any) -> RayShared[Any]:
        """Take a result that is in the store already."""
        return self._add(_Entry(ref, (), None))

    def _add(self, entry: _Entry) -> RayShared[Any]:
        key = secrets.token_hex(8)
        self._entries[key] = entry
        return RayShared(key, self)

    def entry(self, key: str) -> _Entry:
        """Return what is known of an object; raises `SharedLost` when it was released."""
        try:
            return self._entries[key]
        except KeyError:
            raise SharedLost("shared data was released and can no longer be read; share it again") from None

    def needs(self, keys: Iterable[str]) -> list[Need]:
        """Return what a call that refers to these keys needs, and what that refers to in turn."""
        found: dict[str, Need] = {}
        pending = list(keys)
        while pending:
            key = pending.pop()
            entry = self._entries.get(key)
            if entry is not None and key not in found:
                found[key] = Need(key, [entry.ref])
                pending += entry.needs
        return list(found.values())

    def release(self, key: str) -> None:
        """Give an object up; called from any thread, and by the collector."""
        self._entries.pop(key, None)

    def release_all(self) -> None:
        """Give everything up."""
        self._entries.clear()


def _checksum(parts: Parts) -> Checksum:
    return tuple((part.nbytes, zlib.crc32(part)) for part in parts)
