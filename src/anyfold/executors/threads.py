"""The ``threads`` backend: `concurrent.futures.ThreadPoolExecutor`."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from anyfold.executors._options import check_max_workers
from anyfold.executors.base import Isolation

__all__ = ["ThreadsExecutor"]


class ThreadsExecutor(ThreadPoolExecutor):
    """Threads of this process: quick to start, nothing is copied, and nothing can be stopped.

    Parameters
    ----------
    max_workers : int
        How many threads there may be.

    Attributes
    ----------
    max_workers : int
    """

    isolation: Isolation = "thread"
    capabilities: frozenset[str] = frozenset()

    def __init__(self, max_workers: int) -> None:
        super().__init__(check_max_workers(max_workers), thread_name_prefix="anyfold")
        self.max_workers = max_workers

    @property
    def closed(self) -> bool:
        """Whether `shutdown` was called."""
        return self._shutdown
