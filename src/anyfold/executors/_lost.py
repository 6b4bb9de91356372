"""How the end of a worker is told."""

from __future__ import annotations

import signal

from anyfold.errors import WorkerLostError

__all__ = ["describe_exit", "worker_lost"]


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
