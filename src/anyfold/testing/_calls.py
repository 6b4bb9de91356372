"""What probes are made of, and functions for workers, which need not import scikit-learn to read them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

__all__ = [
    "ENDINGS",
    "ProbeError",
    "UnpicklableError",
    "UnpicklableObject",
    "UnreadableObject",
    "add",
    "count_invocations",
    "end_worker",
    "hold",
    "note_invocation",
    "raise_error",
    "read_pid",
    "started_pids",
]

# ---- traces -------------------------------------------------------------------------------------


def note_invocation(folder: str | os.PathLike[str], name: str = "call") -> int:
    """Leave a file for one invocation and return how many there were before under that name."""
    number = 0
    while True:
        path = Path(folder) / f"{name}.{number}"
        try:
            with path.open("x") as file:
                file.write(str(os.getpid()))
        except FileExistsError:
            number += 1
        else:
            return number


def count_invocations(folder: str | os.PathLike[str], name: str = "call") -> int:
    """Return how often something was invoked under a name."""
    return len(list(Path(folder).glob(f"{name}.*")))


def started_pids(folder: str | os.PathLike[str], pattern: str = "*.*") -> set[int]:
    """Return the ids of the processes that left files of a pattern."""
    return {read_pid(path) for path in Path(folder).glob(pattern) if path.read_text()}


def read_pid(path: str | os.PathLike[str]) -> int:
    """Return the process id that a probe has written to a file."""
    return int(Path(path).read_text())


# ---- functions ----------------------------------------------------------------------------------


def add(a: Any, b: Any = 0) -> Any:
    """Return the sum."""
    return a + b


def hold(folder: str | os.PathLike[str], name: str = "held", until: str = "go") -> int:
    """Leave a file, then run until another one appears or the folder is removed; return the process id."""
    note_invocation(folder, name)
    gate = Path(folder) / until
    while not gate.exists() and gate.parent.exists():
        time.sleep(0.005)
    return os.getpid()


class ProbeError(Exception):
    """An exception with an attribute, for which arguments to ``__init__`` are kept."""

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message, code)
        self.code = code


def raise_error(error: BaseException) -> None:
    """Raise an exception."""
    raise error


ENDINGS = ("SIGKILL", "SIGSEGV", "os._exit", "sys.exit", "memory")
"""The ways in which `end_worker` can end a worker."""


def end_worker(how: str = "SIGKILL") -> None:
    """End the process that runs this, or try to.

    Parameters
    ----------
    how : {"SIGKILL", "SIGSEGV", "os._exit", "sys.exit", "memory"}
        ``"SIGSEGV"`` reads memory that is not there. ``"sys.exit"`` only raises `SystemExit`, and
        ``"memory"`` asks for more than a limit allows, which raises `MemoryError`.
    """
    match how:
        case "SIGKILL":
            os.kill(os.getpid(), signal.SIGKILL)
            signal.pause()
        case "SIGSEGV":
            _without_core_file()
            with contextlib.suppress(ValueError):  # a thread may not choose, and keeps what there is
                signal.signal(signal.SIGSEGV, signal.SIG_DFL)
            ctypes.string_at(8)
        case "os._exit":
            os._exit(7)
        case "sys.exit":
            sys.exit("the probe exits")
        case "memory":
            _exceed_memory()
        case _:
            raise ValueError(f"how={how!r}: allowed are {', '.join(ENDINGS)}")


def _without_core_file() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def _exceed_memory() -> None:
    import resource

    import numpy as np

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc").is_dir() else 2**20
    limit = pages * resource.getpagesize() + 2**26
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    try:
        np.ones(2**30 // 8).sum()
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


# ---- objects that do not travel -----------------------------------------------------------------


class UnpicklableObject:
    """Cannot be pickled."""

    def __reduce__(self) -> Any:
        raise TypeError("an UnpicklableObject stays where it is")


class UnreadableObject:
    """Can be pickled, but not unpickled."""

    def __reduce__(self) -> Any:
        return _refuse, ("an UnreadableObject cannot be read",)


def _refuse(message: str) -> None:
    raise ValueError(message)


class UnpicklableError(Exception):
    """An exception that cannot be pickled."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.stays = UnpicklableObject()
