"""Hostile tasks and what becomes of them on every backend; the tests and docs/hostile_tasks.md read it."""

import ctypes
import os
import re
import resource
import signal
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from anyfold.testing.probes import Probe, UnpicklableError, UnpicklableObject

TIMEOUT = 2.0
"""Seconds that a task may take which never ends."""


@dataclass(frozen=True)
class Ending:
    """What becomes of a task with ``retries=0``."""

    type: str | None = None
    """Of the failure; None where the task has its score."""
    stage: str = "fit"
    is_scored: bool = False
    """Whether it has its score all the same."""


SCORE = Ending()
LOST = Ending("WorkerLostError", "worker")


@dataclass(frozen=True)
class Hostile:
    """One hostile task."""

    does: str
    """For the documentation."""
    act: Callable[["HostileModel"], None]
    """In ``fit``, on one of three folds."""
    in_process: Ending = SCORE
    """On every backend whose tasks run in processes of their own."""
    serial: Ending | str = SCORE
    """A text says why it is not tried."""
    threads: Ending | str = SCORE
    dask: Ending | None = None
    """Where it differs: Dask runs tasks beside the main thread of its workers."""
    settings: Mapping[str, Any] = field(default_factory=dict)

    def ending_on(self, backend: str) -> Ending | str:
        if backend in ("serial", "threads"):
            return getattr(self, backend)
        return self.dask if backend == "dask" and self.dask is not None else self.in_process


class HostileModel(Probe):
    """Does one of the hostile things on the folds that it acts on."""

    def __init__(self, folder=None, name="hostile", on=(20,), how=None):
        super().__init__(folder, name, on)
        self.how = how

    def _act(self, held_out, earlier):
        TASKS[self.how].act(self)


# ---- ends its process ---------------------------------------------------------------------------------


def kill(model):
    os.kill(os.getpid(), signal.SIGKILL)
    signal.pause()


def segfault(model):
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    if sys.platform == "linux":
        ctypes.CDLL(None).signal(signal.SIGSEGV, None)  # whatever handler there is, in any thread
    ctypes.string_at(8)


def loop_with_the_lock(model):
    re.match(r"(a+)+$", "a" * 50 + "b")  # one call that takes longer than anybody lives


def exceed_memory(model):
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**26, hard))
    bytearray(2**30)


# ---- does not travel ----------------------------------------------------------------------------------


def keep_an_attribute_that_stays(model):
    model.stays_ = UnpicklableObject()


class UnreadableError(Exception):
    """Can be pickled but not unpickled, as many whose __init__ takes other arguments than it passes on."""

    def __init__(self, code, reason):
        super().__init__(f"{code}: {reason}")


class WordlessError(Exception):
    def __str__(self):
        raise RuntimeError("has no words")


def raise_(error):
    def act(model):
        raise error()

    return act


# ---- forks --------------------------------------------------------------------------------------------


def _fork() -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn where there are threads
        return os.fork()


def fork_and_wait(model):
    if (child := _fork()) == 0:
        os._exit(0)
    os.waitpid(child, 0)


def fork_and_go_on(model):
    child = _fork()
    if child != 0:
        os.waitpid(child, 0)


def fork_and_leave(model):
    if (child := _fork()) == 0:
        time.sleep(1000)
        os._exit(0)
    Path(model.folder, f"stays-{child}").touch()


# ---- changes its process ------------------------------------------------------------------------------


def close_streams(model):
    os.close(0)
    os.close(1)


def change_directory(model):
    os.chdir("/")


def change_environment(model):
    os.environ["ANYFOLD_TEST_HOSTILE"] = "here"
    os.environ.pop("HOME", None)
    os.environ["PATH"] = "/nowhere"


def install_handlers(model):
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, _ignore)
    signal.signal(signal.SIGALRM, _ignore)


def _ignore(number, frame):
    pass


def change_settings(model):
    import sklearn

    np.seterr(all="raise")
    sklearn.set_config(assume_finite=True)
    warnings.simplefilter("ignore")


TASKS: Mapping[str, Hostile] = {
    "SIGKILL": Hostile("is killed by SIGKILL", kill, LOST, "ends the caller", "ends the caller"),
    "SIGSEGV": Hostile("crashes (SIGSEGV)", segfault, LOST, "ends the caller", "ends the caller"),
    "os._exit": Hostile(
        "calls `os._exit(0)`", lambda model: os._exit(0), LOST, "ends the caller", "ends the caller"
    ),
    "sys.exit": Hostile("calls `sys.exit()`", lambda model: sys.exit(), *[Ending("SystemExit")] * 3),
    "KeyboardInterrupt": Hostile(
        "raises `KeyboardInterrupt`",
        raise_(KeyboardInterrupt),
        Ending("KeyboardInterrupt"),
        "is the caller's own Ctrl-C: `run_cv` raises it, with what had finished",
        Ending("KeyboardInterrupt"),
    ),
    "endless": Hostile(
        "loops for ever and keeps the GIL, with `timeout=`",
        loop_with_the_lock,
        Ending("TaskTimeoutError", "worker"),
        "`timeout=` is refused: `UnsupportedFeatureError`",
        "`timeout=` is refused: `UnsupportedFeatureError`",
        settings={"timeout": TIMEOUT},
    ),
    "memory": Hostile(
        "sets `RLIMIT_AS` and allocates more",
        exceed_memory,
        Ending("MemoryError"),
        Ending("MemoryError"),
        "the limit is one for all threads",
    ),
    "unpicklable attribute": Hostile(
        "keeps an attribute that cannot be pickled, with `return_estimator=True`",
        keep_an_attribute_that_stays,
        *[Ending("TypeError", "result", is_scored=True)] * 3,
        settings={"return_estimator": True},
    ),
    "unpicklable error": Hostile(
        "raises an exception that cannot be pickled",
        raise_(lambda: UnpicklableError("stays here")),
        *[Ending("UnpicklableError")] * 3,
    ),
    "unreadable error": Hostile(
        "raises an exception that cannot be unpickled",
        raise_(lambda: UnreadableError(7, "broken")),
        *[Ending("UnreadableError")] * 3,
    ),
    "wordless error": Hostile(
        "raises an exception whose `__str__` raises",
        raise_(WordlessError),
        *[Ending("WordlessError")] * 3,
    ),
    "fork": Hostile("forks; the child exits", fork_and_wait),
    "fork that goes on": Hostile("forks; the child returns from `fit` as well", fork_and_go_on),
    "fork that stays": Hostile("forks; the child stays", fork_and_leave),
    "streams": Hostile("closes descriptors 0 and 1", close_streams),
    "chdir": Hostile("changes the working directory", change_directory),
    "environ": Hostile("changes the environment", change_environment),
    "handlers": Hostile(
        "installs signal handlers",
        install_handlers,
        threads=Ending("ValueError"),
        dask=Ending("ValueError"),
    ),
    "settings": Hostile("changes the settings of numpy, scikit-learn and warnings", change_settings),
}
