"""The ``processes`` backend: `concurrent.futures.ProcessPoolExecutor`, made to heal."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from typing import Any

from anyfold._worker.boot import capture_setup, prepare
from anyfold.executors._healing import HealingPool
from anyfold.executors._lost import kill_all
from anyfold.executors._options import check_max_workers
from anyfold.executors._start import start_context

__all__ = ["ProcessesExecutor"]


class ProcessesExecutor(HealingPool):
    """Processes of this machine, managed by the standard library.

    Unlike the standard executor it runs functions defined anywhere, needs no main guard, and can be used
    again after a worker was lost: all tasks that the pool had been given then raise `WorkerLostError`.

    Parameters
    ----------
    max_workers : int
        How many processes there may be.
    start_method : {"forkserver", "spawn", "fork"}, optional
        How they start; by default ``"forkserver"`` on Linux, else ``"spawn"``.

    Attributes
    ----------
    max_workers : int
    start_method : str
    """

    def __init__(self, max_workers: int, *, start_method: str | None = None) -> None:
        super().__init__(check_max_workers(max_workers))
        self._context = start_context(start_method)
        self.start_method = self._context.get_start_method()
        # Workers are started by whichever thread submits; only a fork server certainly outlives them.
        self._setup = capture_setup(kill_with_parent_thread=self.start_method == "forkserver")

    def _build(self) -> ProcessPoolExecutor:
        return _Pool(self.max_workers, self._context, prepare, (self._setup,))


class _Pool(ProcessPoolExecutor):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._processes: dict[int, Any] = _Processes()

    def _adjust_process_count(self) -> None:
        super()._adjust_process_count()
        if self._broken:
            # CPython's manager ends the workers that there are, and then waits for all, this one too.
            kill_all(self._processes.values())
        # The manager was woken for the task before this started the process for it: it would not watch that
        # process until something else wakes it, and its end would go unseen.
        self._executor_manager_thread_wakeup.wakeup()


class _Processes(dict[int, Any]):
    """CPython's manager goes through them while a task's submitter may be adding one."""

    def values(self) -> Any:
        return list(super().values())
