"""What anyfold runs on Dask's workers: calls, and the copies of shared objects on their hosts.

A copy is a file without a name in the shared memory of a host, written in pieces by one of its workers
and read by all. It is tied to a lease, a piece of data that Dask keeps on that worker for the caller: when
the caller releases it, or is gone, Dask lets the lease go and the copy goes with it.
"""

from __future__ import annotations

import os
import secrets
import signal
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from distributed import get_worker

from anyfold._data.files import SharedFile, _map, publish
from anyfold._data.memory import available_memory
from anyfold._data.storage import MEMORY_SHARE, Stored, _open_in, _open_memory, _seal
from anyfold._mail.messages import NetworkAddress
from anyfold._mail.reporter import SilentReporter, reporter_for
from anyfold._worker.call import call, dumps_call, load_result
from anyfold.errors import SharedLost
from anyfold.executors._placed import Need, place

__all__ = [
    "Lease",
    "Missing",
    "begin_copy",
    "can_open",
    "can_reach",
    "drop_copy",
    "finish_copy",
    "is_busy",
    "kill_worker",
    "read_copy",
    "run_call",
    "run_shared",
    "write_copy",
]


# ---- calls ------------------------------------------------------------------------------------


class Missing(NamedTuple):
    """The answer of a worker that has not begun a call, because shared objects cannot be read there."""

    worker: str
    keys: tuple[str, ...]


class _Held:
    """An answer, as Dask keeps it on the worker until the caller has it; the caller gets the bytes."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        _fetched.clear()
        weakref.finalize(self, _fetched.set)

    def __sizeof__(self) -> int:
        return len(self._answer)

    def __reduce__(self) -> tuple[Any, ...]:
        return bytes, (self._answer,)


_FETCH_SECONDS = 5.0  # that a caller has to fetch an answer before the next call begins

_one_at_a_time = threading.Lock()
_fetched = threading.Event()
_fetched.set()
_running: set[str] = set()


def run_call(owner: str, payload: bytes, needs: tuple[Need, ...]) -> _Held | Missing:
    """Run a pickled call; one at a time in a process, since generators, limits and output belong to it."""
    return _run(owner, payload, needs, call)


def run_shared(owner: str, payload: bytes, needs: tuple[Need, ...]) -> _Held | Missing:
    """Run a pickled call and keep its result in a file on this host; the answer is the file."""
    return _run(owner, payload, needs, lambda payload: call(dumps_call(_keep_result, (call(payload),), {})))


def _run(
    owner: str, payload: bytes, needs: tuple[Need, ...], run: Callable[[bytes], bytes]
) -> _Held | Missing:
    with _alone(owner):
        missing = tuple(need.key for need in needs if not place(need))
        return Missing(get_worker().address, missing) if missing else _Held(run(payload))


def _keep_result(answer: bytes) -> tuple[str, str, SharedFile[Any]]:
    file = publish(load_result(answer))
    key = secrets.token_hex(8)
    _copies[key] = file
    return key, get_worker().address, file


@contextmanager
def _alone(owner: str) -> Iterator[None]:
    with _one_at_a_time:
        # If this call ends the worker, Dask would run the one before again whose answer is still here.
        _fetched.wait(_FETCH_SECONDS)
        _running.add(owner)
        try:
            yield
        finally:
            _running.discard(owner)


def is_busy(owner: str) -> bool:
    """Return whether a call of an executor runs in this process."""
    return owner in _running


def kill_worker(dask_worker: Any) -> None:
    """Kill the worker process of a nanny, which starts another."""
    if dask_worker.process is not None and dask_worker.process.pid is not None:
        os.kill(dask_worker.process.pid, signal.SIGKILL)


def can_reach(address: NetworkAddress) -> bool:
    """Return whether this worker can connect to the caller's mailbox."""
    return not isinstance(reporter_for(address), SilentReporter)


# ---- copies -----------------------------------------------------------------------------------


class Lease:
    """Keeps a copy on the worker where Dask keeps the lease."""

    def __init__(self, key: str) -> None:
        self._key = key

    def __reduce__(self) -> tuple[Any, ...]:
        return _take_lease, (self._key,)


def _take_lease(key: str) -> Lease:
    lease = Lease(key)
    weakref.finalize(lease, _copies.pop, key, None)
    return lease


class _Unfinished:
    """A copy that is being written."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes
        in_memory = hasattr(os, "memfd_create") and nbytes <= MEMORY_SHARE * available_memory()
        self.descriptor, self.path = _open_memory() if in_memory else _open_in(tempfile.gettempdir())
        os.ftruncate(self.descriptor, nbytes)
        weakref.finalize(self, os.close, self.descriptor)

    def finish(self, identity: bytes) -> SharedFile[Any]:
        os.fchmod(self.descriptor, 0o400)
        _seal(self.descriptor)
        reading = os.open(self.path or f"/proc/self/fd/{self.descriptor}", os.O_RDONLY | os.O_CLOEXEC)
        file: SharedFile[Any] = SharedFile(os.getpid(), reading, self.path, identity, self.nbytes)
        weakref.finalize(file, Stored(reading, self.path).discard)
        return file


_unfinished: dict[str, _Unfinished] = {}
_copies: dict[str, SharedFile[Any]] = {}


def can_open(file: SharedFile[Any]) -> bool:
    """Return whether this process can read a file."""
    try:
        _map(file)
    except SharedLost:
        return False
    return True


def begin_copy(key: str, nbytes: int) -> None:
    """Make room for a copy."""
    _unfinished[key] = _Unfinished(nbytes)


def write_copy(key: str, offset: int, data: bytes) -> None:
    """Write a piece of a copy."""
    view = memoryview(data)
    while view:
        written = os.pwrite(_unfinished[key].descriptor, view, offset)
        view, offset = view[written:], offset + written


def finish_copy(key: str, identity: bytes) -> SharedFile[Any]:
    """Make a copy readable."""
    file = _copies[key] = _unfinished.pop(key).finish(identity)
    return file


def read_copy(file: SharedFile[Any], offset: int, length: int) -> bytes:
    """Return a piece of a file."""
    return bytes(_map(file)[0][offset : offset + length])


def drop_copy(key: str) -> None:
    """Leave a copy to those who refer to it."""
    _copies.pop(key, None)
