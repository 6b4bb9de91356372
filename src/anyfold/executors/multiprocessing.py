"""The ``multiprocessing`` backend: anyfold's own pool of processes, and the default."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import ParamSpec, TypeVar

from anyfold._worker.boot import capture_setup
from anyfold._worker.call import dumps_call
from anyfold.executors._futures import failed_future
from anyfold.executors._options import check_max_workers
from anyfold.executors._pool import Pool
from anyfold.executors._start import start_context
from anyfold.executors.base import Isolation

__all__ = ["MultiprocessingExecutor"]

P = ParamSpec("P")
T = TypeVar("T")


class MultiprocessingExecutor(Executor):
    """Processes of this machine, each with a pipe of its own.

    A worker that dies costs the task that it was running and nothing else: that task's future raises
    `WorkerLostError`, a fresh worker takes the place. Workers start when there is work for them and stay
    until `shutdown`; none outlives the caller, even where the caller is killed.

    Parameters
    ----------
    max_workers : int
        How many processes there may be.
    start_method : {"forkserver", "spawn", "fork"}, optional
        How they start; by default ``"forkserver"`` on Linux, which is quick and safe in a process with
        threads, else ``"spawn"``. With any of them a script needs no main guard.

    Attributes
    ----------
    max_workers : int
    start_method : str
    """

    isolation: Isolation = "process"
    capabilities = frozenset({"healing", "stop_running"})

    def __init__(self, max_workers: int, *, start_method: str | None = None) -> None:
        context = start_context(start_method)
        self.max_workers = check_max_workers(max_workers)
        self.start_method = context.get_start_method()
        # Workers are the children of the fork server or of the pool's own thread: both outlive them.
        self._pool = Pool(self.max_workers, context, capture_setup(kill_with_parent_thread=True))
        # Where shutdown is forgotten, the workers go with the executor.
        weakref.finalize(self, self._pool.close_soon).atexit = False

    @property
    def closed(self) -> bool:
        """Whether `shutdown` was called."""
        return self._pool.closed

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Schedule ``fn(*args, **kwargs)``; what cannot be pickled makes a future that raises."""
        try:
            payload = dumps_call(fn, args, kwargs)
        except Exception as error:
            self._pool.check_open()
            return failed_future(error)
        return self._pool.submit(payload)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let the workers go when their tasks are done; from a future's callback it does not wait."""
        self._pool.shutdown(wait, cancel_futures)

    def stop_running(self) -> None:
        """Kill the workers that are busy now; their futures raise `WorkerLostError`, the rest goes on."""
        self._pool.stop_running()
