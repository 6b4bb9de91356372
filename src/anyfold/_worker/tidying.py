"""Puts back what a task has changed in its process, so that the next one finds what it would find alone.

What is looked at after each task costs some microseconds; only what differs is put back.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the functions of signal take long over making enums
import contextlib
import fcntl
import os
import resource
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import numpy as np
import sklearn

from anyfold._worker.boot import signal_at_parents_end
from anyfold._worker.watchdog import reset_alarm
from anyfold.executors.base import Isolation

__all__ = ["Found", "tidied"]

_SIGNALS = tuple(map(int, signal.valid_signals()))
_LIMITS = tuple(
    getattr(resource, name)
    for name in ("RLIMIT_AS", "RLIMIT_DATA", "RLIMIT_STACK", "RLIMIT_FSIZE", "RLIMIT_NOFILE", "RLIMIT_CPU")
    if hasattr(resource, name)
)
_STREAMS = ("stdin", "stdout", "stderr")


class Found:
    """What tasks find when they begin; a context manager around each of them, to be closed after the last.

    Parameters
    ----------
    isolation : {"process", "thread", "none"}
        In a thread only what belongs to the thread is put back.
    """

    def __init__(self, isolation: Isolation) -> None:
        self._pid = os.getpid()
        self._sklearn = sklearn.get_config()
        self._process = None if isolation == "thread" else _Process(clear_timer=isolation == "process")
        if isolation == "process":
            _end_forks_of_this_thread_with_it()

    def __enter__(self) -> None:
        self._errors = np.errstate()
        self._errors.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if os.getpid() != self._pid:
            _leave(error)
        if self._process is not None:
            self._process.put_back()
        self._errors.__exit__(kind, error, where)
        if sklearn.get_config() != self._sklearn:
            sklearn.set_config(**self._sklearn)

    def close(self) -> None:
        """Free what was needed to put things back."""
        if self._process is not None:
            self._process.close()


@contextlib.contextmanager
def tidied() -> Iterator[None]:
    """Put back, after a run in the caller's own process, what its tasks have changed there."""
    with contextlib.closing(Found("none")) as found, found:
        yield


class _Process:
    """What belongs to a whole process."""

    def __init__(self, *, clear_timer: bool) -> None:
        self._clear_timer = clear_timer
        self._cwd = _cwd()
        self._environ = _environment().copy()
        self._limits = [resource.getrlimit(limit) for limit in _LIMITS]
        self._handlers = list(map(_signal.getsignal, _SIGNALS))
        self._is_main = threading.current_thread() is threading.main_thread()
        self._filters = warnings.filters, warnings.filters[:], warnings.showwarning
        self._streams = [getattr(sys, name) for name in _STREAMS]
        self._files = [_file(descriptor) for descriptor in range(3)]
        self._spares = [
            None if file is None else fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)
            for descriptor, file in enumerate(self._files)
        ]

    def put_back(self) -> None:
        # Limits come first: the rest may need memory and descriptors.
        for limit, found in zip(_LIMITS, self._limits, strict=True):
            if resource.getrlimit(limit) != found:
                with contextlib.suppress(ValueError, OSError):  # it was lowered for good
                    resource.setrlimit(limit, found)
        if self._is_main and list(map(_signal.getsignal, _SIGNALS)) != self._handlers:
            self._put_back_handlers()
        if self._clear_timer:
            reset_alarm()
        if self._cwd is not None and _cwd() != self._cwd:
            with contextlib.suppress(OSError):
                os.chdir(self._cwd)
        if _environment() != self._environ:
            self._put_back_environment()
        filters, content, show = self._filters
        if warnings.filters is not filters or filters != content or warnings.showwarning is not show:
            warnings.filters, warnings.showwarning = filters, show
            filters[:] = content  # type: ignore[index]
            with warnings.catch_warnings():
                pass  # makes the change known
        for name, stream in zip(_STREAMS, self._streams, strict=True):
            setattr(sys, name, stream)
        for descriptor, file in enumerate(self._files):
            spare = self._spares[descriptor]
            if spare is not None and _file(descriptor) != file:
                os.dup2(spare, descriptor)

    def _put_back_handlers(self) -> None:
        for number, handler in zip(_SIGNALS, self._handlers, strict=True):
            if handler is not None and _signal.getsignal(number) != handler:
                signal.signal(number, handler)

    def _put_back_environment(self) -> None:
        for name in _environment().keys() - self._environ.keys():
            del os.environ[os.fsdecode(name)]
        for name, value in self._environ.items():
            if _environment().get(name) != value:
                os.environ[os.fsdecode(name)] = os.fsdecode(value)

    def close(self) -> None:
        for spare in self._spares:
            if spare is not None:
                os.close(spare)


def _cwd() -> str | None:
    try:
        return os.getcwd()  # noqa: PTH109 - called after every task
    except FileNotFoundError:
        return None


def _environment() -> dict[Any, Any]:
    # The mapping itself would decode every value, which takes longer than all the rest.
    environment: dict[Any, Any] = os.environ._data  # type: ignore[attr-defined]
    return environment


def _file(descriptor: int) -> tuple[int, int] | None:
    try:
        status = os.fstat(descriptor)
    except OSError:
        return None
    return status.st_dev, status.st_ino


# ---- forks --------------------------------------------------------------------------------------------


def _leave(error: BaseException | None) -> None:
    """End a fork that a task has left running: it must not go on as a second worker, or caller."""
    status = 0 if error is None else 1
    if isinstance(error, SystemExit):
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    os._exit(status)


_of_tasks: tuple[int, int] | None = None
"""Process and thread that runs tasks, in a worker."""


def _end_forks_of_this_thread_with_it() -> None:
    global _of_tasks
    _of_tasks = os.getpid(), threading.get_ident()


def _end_with_task() -> None:
    # A thread that a model has started may end before its forks should; a fork of a fork is a daemon.
    global _of_tasks
    parent, _of_tasks = _of_tasks, None
    if parent is not None and threading.get_ident() == parent[1]:
        signal_at_parents_end(signal.SIGKILL)
        if os.getppid() != parent[0]:
            os._exit(1)


os.register_at_fork(after_in_child=_end_with_task)
