"""Objects that are published once on this host, in one file each, for any process to read.

::

    owner                                        reader
    publish(obj) ──> SharedFile ── pickled ──> SharedFile.get()
       │ holds a descriptor                         │ opens /proc/<owner>/fd/<descriptor>
       ▼                                            ▼
    ┌────────┬───────┬───────────────┬─────────────────────────────┐
    │ header │ index │ pickle stream │ buffers, aligned to 64 bytes │  mapped read-only
    └────────┴───────┴───────────────┴─────────────────────────────┘

The file has no name: it goes when the owner closes it, or is killed, and the last reader has unmapped
it. A process keeps the 16 objects that it read last, and gives up those that their owners have
released whenever it reads another one, or when `drop_released` is called.
"""

from __future__ import annotations

import mmap
import os
import secrets
import stat
import struct
import sys
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from anyfold._data.cache import Cache
from anyfold._data.layout import ALIGNMENT
from anyfold._data.serialize import Serialized, deserialize, serialize
from anyfold._data.storage import Stored, Storing, store
from anyfold.errors import SharedLost

__all__ = ["Replica", "SharedFile", "drop_released", "publish"]

T = TypeVar("T")

MAGIC = b"anyfold\x01"
HEADER = struct.Struct("=8s16sQQ")  # magic, key, length of the stream, number of buffers
EXTENT = struct.Struct("=QQ")  # offset and length of a buffer
KEPT = 16
COMPARED_AT_ONCE = 1 << 20  # bytes; what is compared stays in the processor's cache


@dataclass(frozen=True, slots=True, weakref_slot=True)
class SharedFile(Generic[T]):
    """A handle on a published object: small, picklable, readable by any process of this user and host.

    The object is released with the handle that `publish` returned; copies of the handle own nothing.
    """

    owner: int
    """Process id of the owner."""
    descriptor: int
    """The owner's descriptor of the file."""
    path: str | None
    """Name of the file where files cannot be reached through a descriptor."""
    key: bytes
    """Random; repeated in the file."""
    nbytes: int
    """Size of the file."""

    def get(self) -> T:
        """Return the object, read-only; mapped once per process.

        Raises
        ------
        SharedLost
            If the owner has released the object, or has ended.
        """
        return _kept.get(self.key, lambda: _load(self)).obj  # type: ignore[no-any-return]

    def release(self) -> None:
        """Give up the published copy; does nothing in a process that does not own it."""
        _release(self.owner, self.key, self.descriptor)

    def matches(self, obj: object) -> bool:
        """Return whether an object is still what was published; called by the owner.

        Compares every byte at the speed of memory.
        """
        stream, buffers = _parts(_map(self)[0])
        now = serialize(obj)
        return (
            len(buffers) == len(now.buffers)
            and _same_bytes(stream, memoryview(now.stream))
            and all(map(_same_bytes, buffers, now.buffers))
        )

    def is_readable(self) -> bool:
        """Return whether this process can read the object."""
        try:
            _map(self)
        except SharedLost:
            return False
        return True

    def read(self, offset: int, length: int) -> bytes:
        """Return some bytes of the file, for a `Replica` on another host.

        Raises
        ------
        SharedLost
            If the owner has released the object, or has ended.
        """
        return bytes(_map(self)[0][offset : offset + length])


def publish(obj: T, *, temp_dir: str | None = None) -> SharedFile[T]:
    """Write an object once, for all processes of this host to read.

    Parameters
    ----------
    obj : object
        Anything that can be pickled. It is written straight from where it is, without a second copy.
    temp_dir : str or None, default=None
        Folder for what is too large for shared memory; None for the system's folder.

    Returns
    -------
    SharedFile
        Keep it for as long as others shall be able to read the object.

    Raises
    ------
    InvalidSettingError
        If a file is needed and ``temp_dir`` cannot be written to or has no room.
    """
    serialized = serialize(obj)
    key = secrets.token_bytes(16)
    parts, nbytes = _layout(serialized, key)
    return _own(store(parts, nbytes, temp_dir), key, nbytes)


class Replica(Generic[T]):
    """A copy of an object that is published on another host; arrives in pieces, in any order.

    Parameters
    ----------
    key : bytes
        That of the `SharedFile` there.
    nbytes : int
        Its size.
    temp_dir : str or None, default=None
        As for `publish`.

    Raises
    ------
    InvalidSettingError
        As by `publish`; also by `write`.
    """

    def __init__(self, key: bytes, nbytes: int, temp_dir: str | None = None) -> None:
        self._key = key
        self._nbytes = nbytes
        self._storing = Storing(nbytes, temp_dir)

    def write(self, offset: int, piece: bytes) -> None:
        """Write some bytes of the file."""
        self._storing.write(offset, memoryview(piece))

    def finish(self) -> SharedFile[T]:
        """Return the copy, published on this host and owned by this process."""
        return _own(self._storing.finish(), self._key, self._nbytes)


def _own(stored: Stored, key: bytes, nbytes: int) -> SharedFile[Any]:
    shared: SharedFile[Any] = SharedFile(os.getpid(), stored.descriptor, stored.path, key, nbytes)
    _owned[key, stored.descriptor] = stored
    weakref.finalize(shared, _release, shared.owner, key, stored.descriptor)
    return shared


def drop_released() -> None:
    """Let go of objects that this process has read and that their owners have released since."""
    _kept.drop(lambda key, opened: not opened.is_published())


@dataclass(frozen=True, slots=True)
class _Opened:
    """An object that was read, and how to see whether it is still published."""

    obj: Any
    location: str
    identity: tuple[int, int]

    def is_published(self) -> bool:
        try:
            status = os.stat(self.location)  # noqa: PTH116
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == self.identity


_owned: dict[tuple[bytes, int], Stored] = {}
"""By key and descriptor: a process may come to own a replica of what it once owned."""
_kept: Cache[_Opened] = Cache(KEPT)


def _release(owner: int, key: bytes, descriptor: int) -> None:
    if owner == os.getpid() and (stored := _owned.pop((key, descriptor), None)) is not None:
        stored.discard()
        _kept.drop(lambda kept, _: kept == key)


def _disown_in_child() -> None:
    # the parent's descriptors were copied; keeping them open would keep released files alive
    for stored in _owned.values():
        os.close(stored.descriptor)
    _owned.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_disown_in_child)


def _layout(serialized: Serialized, key: bytes) -> tuple[list[tuple[int, memoryview]], int]:
    """Return what goes where, and the size of it all."""
    n = len(serialized.buffers)
    header = HEADER.pack(MAGIC, key, len(serialized.stream), n)
    stream_at = HEADER.size + n * EXTENT.size
    end = stream_at + len(serialized.stream)
    extents, parts = [], [(stream_at, memoryview(serialized.stream))]
    for buffer in serialized.buffers:
        start = -(-end // ALIGNMENT) * ALIGNMENT
        extents.append(EXTENT.pack(start, buffer.nbytes))
        parts.append((start, buffer))
        end = start + buffer.nbytes
    return [(0, memoryview(header + b"".join(extents))), *parts], end


def _location(shared: SharedFile[Any]) -> str:
    return shared.path or f"/proc/{shared.owner}/fd/{shared.descriptor}"


def _load(shared: SharedFile[Any]) -> tuple[_Opened, int]:
    drop_released()
    content, identity = _map(shared)
    stream, buffers = _parts(content)
    return _Opened(deserialize(stream, buffers), _location(shared), identity), shared.nbytes


def _map(shared: SharedFile[Any]) -> tuple[memoryview, tuple[int, int]]:
    """Map the file after making sure that it is the right one; return its content and identity."""
    location = _location(shared)
    try:
        # another file may have the number by now; opening one that is not regular could block
        if not stat.S_ISREG(os.stat(location).st_mode):  # noqa: PTH116
            raise FileNotFoundError(f"{location} is another file")
        descriptor = os.open(location, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise _lost(shared, str(error)) from error
    try:
        status = os.fstat(descriptor)
        if status.st_size != shared.nbytes:
            raise _lost(shared, f"{location} is another file")
        if sys.version_info >= (3, 13):
            mapped = mmap.mmap(descriptor, shared.nbytes, mmap.MAP_SHARED, mmap.PROT_READ, trackfd=False)
        else:
            mapped = mmap.mmap(descriptor, shared.nbytes, mmap.MAP_SHARED, mmap.PROT_READ)
    finally:
        os.close(descriptor)
    content = memoryview(mapped)
    if bytes(content[:24]) != MAGIC + shared.key:
        raise _lost(shared, f"{location} is another file")
    return content, (status.st_dev, status.st_ino)


def _lost(shared: SharedFile[Any], why: str) -> SharedLost:
    return SharedLost(
        f"shared data of {shared.nbytes} bytes, published by process {shared.owner}, can no longer be read "
        f"({why}): its owner has released it or has ended; keep the owner alive, and publish the data again"
    )


def _parts(content: memoryview) -> tuple[memoryview, list[memoryview]]:
    *_, n_stream, n_buffers = HEADER.unpack_from(content)
    stream_at = HEADER.size + n_buffers * EXTENT.size
    buffers = [content[start : start + length] for start, length in _extents(content, n_buffers)]
    return content[stream_at : stream_at + n_stream], buffers


def _extents(content: memoryview, n: int) -> Iterator[tuple[int, int]]:
    return EXTENT.iter_unpack(content[HEADER.size : HEADER.size + n * EXTENT.size])


def _same_bytes(a: memoryview, b: memoryview) -> bool:
    if a.nbytes != b.nbytes:
        return False
    for start in range(0, a.nbytes, COMPARED_AT_ONCE):
        one, other = a[start : start + COMPARED_AT_ONCE], b[start : start + COMPARED_AT_ONCE]
        words = one.nbytes // 8
        if not np.array_equal(np.frombuffer(one, np.uint64, words), np.frombuffer(other, np.uint64, words)):
            return False
        if one[words * 8 :] != other[words * 8 :]:
            return False
    return True
