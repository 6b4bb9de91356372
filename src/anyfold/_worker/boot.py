"""What a worker process does before its first task: look like the caller, and never outlive it."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import select
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path

__all__ = [
    "WorkerSetup",
    "capture_setup",
    "environment",
    "has_ended",
    "interrupts_ignored",
    "prepare",
    "recalling",
    "signal_at_parents_end",
    "warm_imports",
    "watch_driver",
]

_PR_SET_PDEATHSIG = 1
_WARM = (
    "numpy",
    "cloudpickle",
    "sklearn.base",
    "sklearn.model_selection",
    "sklearn.pipeline",
    "anyfold._worker.serve",
)

# pytest rewrites this one for every test; no model depends on it.
_NOT_STATE = frozenset({"PYTEST_CURRENT_TEST"})


@dataclass(frozen=True, slots=True)
class WorkerSetup:
    """What a worker takes over from its caller."""

    cwd: str | None
    """None where the caller's working directory no longer exists."""
    sys_path: tuple[str, ...]
    environ: Mapping[str, str]
    argv: tuple[str, ...]
    driver_pid: int
    kill_with_parent_thread: bool
    """Whether the kernel may kill the worker when the thread that started it ends."""


def environment() -> dict[str, str]:
    """Return the environment variables that a worker must share with its caller."""
    return {name: value for name, value in os.environ.items() if name not in _NOT_STATE}


def capture_setup(*, kill_with_parent_thread: bool) -> WorkerSetup:
    """Record, in the caller, what its workers take over.

    Parameters
    ----------
    kill_with_parent_thread : bool
        True only where the thread that starts the worker lives as long as the pool does: Linux sends the
        parent-death signal when that *thread* ends, not its process.
    """
    if (before := _recalled.get()) is not None:
        return replace(before, kill_with_parent_thread=kill_with_parent_thread)
    cwd: str | None
    try:
        cwd = str(Path.cwd())
    except FileNotFoundError:
        cwd = None
    return WorkerSetup(
        cwd=cwd,
        sys_path=tuple(sys.path),
        environ=environment(),
        argv=tuple(sys.argv),
        driver_pid=os.getpid(),
        kill_with_parent_thread=kill_with_parent_thread,
    )


_recalled: ContextVar[WorkerSetup | None] = ContextVar("anyfold_recalled", default=None)


@contextlib.contextmanager
def recalling(setup: WorkerSetup) -> Iterator[None]:
    """Have workers take over what was recorded before: the caller may be at work on a task meanwhile."""
    token = _recalled.set(setup)
    try:
        yield
    finally:
        _recalled.reset(token)


def prepare(setup: WorkerSetup) -> None:
    """Make this process, on its main thread, a worker of the caller that `setup` describes."""
    _die_with_driver(setup)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the caller's to handle
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
    sys.path[:] = setup.sys_path
    importlib.invalidate_caches()
    sys.argv[:] = setup.argv
    for name in os.environ.keys() - setup.environ.keys():
        del os.environ[name]
    os.environ.update({k: v for k, v in setup.environ.items() if os.environ.get(k) != v})
    if setup.cwd is not None:
        os.chdir(setup.cwd)
    _separate_random_streams()


@contextlib.contextmanager
def interrupts_ignored() -> Iterator[None]:
    """Leave Ctrl-C to the caller for the length of a call, in a process that belongs to others as well."""
    before = signal.getsignal(signal.SIGINT)
    if before is None or threading.current_thread() is not threading.main_thread():
        yield  # the handler is not ours to set, or it is in other hands than the interpreter's
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    blocked = signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        signal.signal(signal.SIGINT, before)


def warm_imports() -> None:
    """Import what tasks need before the first one comes; what is not installed is left out."""
    for name in _WARM:
        try:
            importlib.import_module(name)
        except ImportError:
            continue


def signal_at_parents_end(number: int) -> None:
    """Have the kernel send this process a signal when the thread that started it ends (on Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)


def _die_with_driver(setup: WorkerSetup) -> None:
    if setup.kill_with_parent_thread:
        signal_at_parents_end(signal.SIGKILL)
    # The parent may be a fork server, and a signal tied to it says nothing about the caller.
    watch_driver(setup.driver_pid)


def has_ended(pid: int, patience: float = 0.0) -> bool:
    """Return whether a process has ended, having waited for it for some seconds."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    except (AttributeError, OSError):
        return os.getppid() != pid
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    ended = bool(poll.poll(patience * 1000))
    os.close(descriptor)
    return ended


def watch_driver(pid: int) -> None:
    """Watch a process of this host, and end this one when it ends; the second call does nothing."""
    if os.getpid() in _watching or not hasattr(os, "pidfd_open"):
        return
    try:
        driver = os.pidfd_open(pid)
    except ProcessLookupError:
        os._exit(1)
    except OSError:
        return  # not allowed here: the end of the pipe has to do
    _watching.add(os.getpid())
    watch = threading.Thread(target=_exit_when_readable, args=(driver,), daemon=True)
    watch.name = "anyfold-watch-driver"
    watch.start()


_watching: set[int] = set()
"""This process, once it watches its caller; a fork of it does not."""


def _exit_when_readable(descriptor: int) -> None:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    poll.poll()
    os._exit(1)


def _separate_random_streams() -> None:
    # Forked workers are copies of one process: without this, all would draw the same "random" numbers.
    # (The generator of the standard library does this by itself.)
    random = sys.modules.get("numpy.random")
    if random is not None:
        random.seed()
