"""How the end of a worker is told."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable
from multiprocessing.connection import wait
from typing import Any

from anyfold.errors import WorkerLostError

__all__ = ["describe_exit", "find_culprit", "kill_all", "worker_lost"]


def describe_exit(exitcode: int | None) -> str:
    """Say in words how a process ended."""
    if exitcode is None:
        return "ended (its exit status is not known)"
    if exitcode >= 0:
        return f"exited with status {exitcode}"
    try:
        name = signal.Signals(-exitcode).name
    except ValueError:
        name = f"signal {-exitcode}"
    hint = " (the machine may have run out of memory)" if exitcode == -signal.SIGKILL else ""
    return f"was killed by {name}{hint}"


def worker_lost(
    pid: int | None, exitcode: int | None, incident: object, doing: str = "while it was running a task"
) -> WorkerLostError:
    """Make the error of a task whose worker ended.

    Parameters
    ----------
    pid, exitcode : int or None
        The worker and its exit status, where they are known.
    incident : object
        Equal on all tasks lost to one event.
    doing : str
        How the task was concerned.
    """
    who = "a worker process" if pid is None else f"worker process {pid}"
    return WorkerLostError(f"{who} {describe_exit(exitcode)} {doing}", pid, exitcode, incident)


def find_culprit(processes: Iterable[Any]) -> tuple[int | None, int | None]:
    """Return process id and exit status of the one process that has ended; None where that is not one."""
    by_sentinel = {process.sentinel: process for process in processes}
    ended = [by_sentinel[sentinel] for sentinel in wait(list(by_sentinel), 0)]
    for process in ended:
        _reap(process)
    return (ended[0].pid, ended[0].exitcode) if len(ended) == 1 else (None, None)


def _reap(process: Any) -> None:
    # A thread of the pool that reaps the process at this moment has its status before we can read it.
    give_up = time.monotonic() + 1
    while process.exitcode is None and time.monotonic() < give_up:
        time.sleep(0.001)


def kill_all(processes: Iterable[Any]) -> None:
    """Kill the processes that have not ended."""
    for process in processes:
        if process.exitcode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
