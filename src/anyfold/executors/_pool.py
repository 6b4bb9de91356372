"""The heart of anyfold's own process pool: its state, and the one thread that manages it.

    caller's threads                manager thread                    worker processes
    ----------------                --------------                    ----------------
    submit ── idle worker? ────────────────── task ─────────────────> unpickle, call,
       │ no                         start workers as needed           pickle the answer
       └──> pending ──────────────> next task to a free worker ─────>    │
                 future <── resolve <──────────── answer ────────────────┘
                                    worker ended? its task is lost,
                                    a fresh worker takes its place

Each worker has a socket pair of its own and nothing is shared between workers: no lock that a dying one
could hold, no queue that it could corrupt. A task goes only to a worker that has reported ready and has
no other. Futures are resolved by the manager thread without the lock, so that callbacks may use the pool.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from concurrent.futures import Future
from multiprocessing.context import BaseContext
from typing import Any

from anyfold._worker.boot import WorkerSetup
from anyfold.executors._exit import at_interpreter_exit
from anyfold.executors._pool_manager import PoolManager
from anyfold.executors._worker_process import Task, WorkerProcess

__all__ = ["Pool"]


class Pool:
    """What an executor and its manager thread share; outlives the executor while tasks are left."""

    def __init__(self, max_workers: int, context: BaseContext, setup: WorkerSetup) -> None:
        self.max_workers = max_workers
        self.context = context
        self.setup = setup
        self.closed = False
        self.wakeup = _Wakeup()
        self._pid = os.getpid()
        self._thread: threading.Thread | None = None
        # Guarded by the lock. A worker is in `idle` when it is ready and has no task.
        self.lock = threading.Lock()
        self.pending: deque[Task] = deque()
        self.workers: set[WorkerProcess] = set()
        self.idle: list[WorkerProcess] = []
        self.unsent: list[WorkerProcess] = []

    def submit(self, payload: bytes) -> Future[Any]:
        """Give the task to an idle worker, or leave it to the manager thread."""
        task = Task(payload)
        self.check_open()  # before the lock: in a fork, nobody may be there to give it back
        with self.lock:
            self.check_open()
            if self._thread is None:
                self._start_thread()
            if self.idle:
                task.claim()
            while self.idle:
                worker = self.idle.pop()
                try:
                    handed = self.hand(worker, task)
                except BaseException:
                    worker.kill()  # an interrupt may have left half a task in its pipe
                    raise
                if handed:
                    needs_manager = worker.unsent
                    break
            else:
                self.pending.append(task)
                needs_manager = len(self.workers) < self.max_workers
        if needs_manager:
            self.wakeup.set()
        return task.future

    def check_open(self) -> None:
        """Raise RuntimeError where no task can be taken."""
        if self._pid != os.getpid():
            raise RuntimeError(
                f"this executor belongs to process {self._pid}, of which this process, {os.getpid()}, is a "
                "fork; make a new executor here"
            )
        if _exiting:
            raise RuntimeError("cannot schedule new futures after interpreter shutdown")
        if self.closed:
            raise RuntimeError("cannot schedule new futures after shutdown")

    def _start_thread(self) -> None:
        thread = threading.Thread(target=self._manage, name="anyfold-pool")
        thread.start()
        self._thread = thread
        _running[self] = None

    def _manage(self) -> None:
        try:
            PoolManager(self).run()
        finally:
            _running.pop(self, None)

    def hand(self, worker: WorkerProcess, task: Task) -> bool:
        """Give a task to a free worker, under the lock; False where the worker is gone."""
        handed = worker.begin(task)
        if worker.unsent:
            self.unsent.append(worker)
        return handed

    def shutdown(self, wait: bool, cancel_futures: bool) -> None:
        """Take no further task; the workers go when those taken are done."""
        if self._pid != os.getpid():
            return
        cancelled: list[Task] = []
        with self.lock:
            self.closed = True
            if cancel_futures:
                cancelled = [task for task in self.pending if not task.claimed]
                self.pending = deque(task for task in self.pending if task.claimed)
            thread = self._thread
        self.wakeup.set()
        for task in cancelled:
            task.future.cancel()
            task.claim()  # tells those who wait for it
        if wait and thread is not None and thread is not threading.current_thread():
            thread.join()

    def close_soon(self) -> None:
        """Like ``shutdown(wait=False)``, but without the lock, which a finalizer may not take."""
        if self._pid == os.getpid():
            self.closed = True
            self.wakeup.set()

    def stop_running(self) -> None:
        """Kill the workers that have a task now."""
        if self._pid != os.getpid():
            return
        with self.lock:
            for worker in self.workers:
                if worker.task is not None:
                    worker.stopped = True
                    worker.kill()


class _Wakeup:
    """Ends the manager thread's wait, from any thread, signal handler or finalizer."""

    def __init__(self) -> None:
        self.descriptor, self._write = os.pipe()
        os.set_blocking(self.descriptor, False)
        os.set_blocking(self._write, False)

    def set(self) -> None:
        # Where the pipe is full, so many wake-ups are on their way that one more makes no difference.
        with contextlib.suppress(BlockingIOError):
            os.write(self._write, b"\0")

    def clear(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self.descriptor, 1 << 16)

    def __del__(self) -> None:
        # Not earlier: a late wake-up must not reach a descriptor that has got another meaning.
        os.close(self.descriptor)
        os.close(self._write)


_exiting = False
_running: dict[Pool, None] = {}
"""The pools whose manager thread runs."""


def _finish_all() -> None:
    global _exiting
    _exiting = True
    pools = list(_running)
    for pool in pools:
        pool.close_soon()
    for pool in pools:
        pool.shutdown(wait=True, cancel_futures=False)


at_interpreter_exit(_finish_all)
