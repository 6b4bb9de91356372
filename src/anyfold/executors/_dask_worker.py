"""What anyfold runs on Dask's workers: calls, and the copies of shared objects on their hosts.

A copy is a file without a name in the shared memory of a host, written in pieces by one of its workers
and read by all. It is tied to a lease, a piece of data that Dask keeps on that worker for the caller: when
the caller releases it, or is gone, Dask lets the lease go and the copy goes with it.
"""

from __future__ import annotations

import gc
import os
import random
import secrets
import signal
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import dask.sizeof
import distributed.comm.core
import distributed.utils_comm
from distributed import get_worker

from anyfold._data.files import Replica, SharedFile, publish
from anyfold._mail.evidence import collect_evidence, forget_evidence
from anyfold._mail.messages import NetworkAddress
from anyfold._mail.reporter import SilentReporter, reporter_for
from anyfold._worker.call import call, dumps_call, load_result
from anyfold.executors._placed import Need, place

__all__ = [
    "Lease",
    "Missing",
    "begin_copy",
    "can_open",
    "can_reach",
    "collect",
    "drop_copy",
    "evidence_folder",
    "finish_copy",
    "is_busy",
    "kill_worker",
    "read_copy",
    "run_call",
    "run_shared",
    "write_copy",
]

# Dask draws from Python's global generator beside the tasks, to estimate sizes and to wait for a while:
# numbers that would be missing from the stream that a task was seeded with. It gets a generator of its own.
for module in (dask.sizeof, distributed.comm.core, distributed.utils_comm):
    setattr(module, "random", random.Random())  # noqa: B010


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


_COLLECT_SECONDS = 0.1
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
    file = publish(load_result(answer), temp_dir=os.environ.get("ANYFOLD_TEMP_DIR"))
    key = secrets.token_hex(8)
    _copies[key] = file
    return key, get_worker().address, file


@contextmanager
def _alone(owner: str) -> Iterator[None]:
    with _one_at_a_time:
        # If this call ends the worker, Dask would run the one before again whose answer is still here.
        if not _fetched.wait(_COLLECT_SECONDS):
            gc.collect()  # an exception that knows its own frame keeps the callers' frames, and the answer
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
    if dask_worker.process is not None and (pid := dask_worker.process.pid) is not None:
        os.kill(pid, signal.SIGKILL)
        forget_evidence(evidence_folder(), pid)


def can_reach(address: NetworkAddress) -> bool:
    """Return whether this worker can connect to the caller's mailbox."""
    return not isinstance(reporter_for(address), SilentReporter)


def evidence_folder() -> str:
    """Return a folder that all workers on this host, and their nannies, have in common."""
    return tempfile.gettempdir()


def collect(token: str, unit: int) -> str:
    """Return the stack that the worker of a unit has left on this host."""
    return collect_evidence(evidence_folder(), token, unit)


# ---- copies -----------------------------------------------------------------------------------


class Lease:
    """Keeps a copy on the worker where Dask keeps the lease."""

    def __init__(self, key: str) -> None:
        self._key = key

    def __reduce__(self) -> tuple[Any, ...]:
        return _take_lease, (self._key,)


def _take_lease(key: str) -> Lease:
    lease = Lease(key)
    weakref.finalize(lease, drop_copy, key)
    return lease


_unfinished: dict[str, Replica[Any]] = {}
_copies: dict[str, SharedFile[Any]] = {}


def can_open(file: SharedFile[Any]) -> bool:
    """Return whether this process can read a file."""
    return file.is_readable()


def read_copy(file: SharedFile[Any], offset: int, length: int) -> bytes:
    """Return a piece of a file."""
    return file.read(offset, length)


def begin_copy(key: str, identity: bytes, nbytes: int) -> None:
    """Make room for a copy."""
    _unfinished[key] = Replica(identity, nbytes, os.environ.get("ANYFOLD_TEMP_DIR"))


def write_copy(key: str, offset: int, piece: bytes) -> None:
    """Write a piece of a copy."""
    _unfinished[key].write(offset, piece)


def finish_copy(key: str) -> SharedFile[Any]:
    """Make a copy readable."""
    file = _copies[key] = _unfinished.pop(key).finish()
    return file


def drop_copy(key: str) -> None:
    """Leave a copy to those who refer to it."""
    _unfinished.pop(key, None)
    _copies.pop(key, None)
