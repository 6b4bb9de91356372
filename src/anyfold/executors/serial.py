"""The ``serial`` backend: every task runs at once, in the caller's own thread."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import ParamSpec, TypeVar

from anyfold.executors._futures import run_inline
from anyfold.executors.base import Isolation

__all__ = ["SerialExecutor"]

P = ParamSpec("P")
T = TypeVar("T")


class SerialExecutor(Executor):
    """Runs each task inside ``submit``, which returns a future that is done.

    ``KeyboardInterrupt`` and ``SystemExit`` are the caller's own and leave ``submit``.

    Parameters
    ----------
    max_workers : int, default=1
        Accepted like everywhere; there is one worker, the caller.

    Attributes
    ----------
    max_workers : int
    """

    isolation: Isolation = "none"
    capabilities: frozenset[str] = frozenset()

    def __init__(self, max_workers: int = 1) -> None:
        self.max_workers = 1
        self.closed = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call ``fn(*args, **kwargs)`` now."""
        if self.closed:
            raise RuntimeError("cannot schedule new futures after shutdown")
        return run_inline(fn, args, kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Refuse further tasks."""
        self.closed = True
