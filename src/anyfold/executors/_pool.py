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
import itertools
import logging
import os
import selectors
import sys
import threading
import time
from collections import deque
from concurrent.futures import Future, InvalidStateError
from multiprocessing.context import BaseContext
from typing import Any

from anyfold._worker.boot import WorkerSetup
from anyfold._worker.call import load_answer
from anyfold.errors import WorkerLostError
from anyfold.executors._exit import at_interpreter_exit
from anyfold.executors._lost import describe_exit, worker_lost
from anyfold.executors._worker_process import Task, WorkerProcess

__all__ = ["Pool"]

_MAX_FAILED_STARTS = 3
_GRACE = 5.0
"""Seconds that a worker without a task has to end by itself."""

_incidents = itertools.count(1)
_logger = logging.getLogger("anyfold.executors")


class Pool:
    """What an executor and its manager thread share; outlives the executor while tasks are left."""

    def __init__(self, max_workers: int, context: BaseContext, setup: WorkerSetup) -> None:
        self.max_workers = max_workers
        self._context = context
        self._setup = setup
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._wakeup = _Wakeup()
        self._thread: threading.Thread | None = None
        self.closed = False
        # Guarded by the lock. A worker is in `_idle` when it is ready and has no task.
        self._pending: deque[Task] = deque()
        self._workers: set[WorkerProcess] = set()
        self._idle: list[WorkerProcess] = []
        self._unsent: list[WorkerProcess] = []
        # The manager thread's own.
        self._deadlines: dict[WorkerProcess, float] = {}
        self._failed_starts = 0
        self._last_failure = ""
        self._more_to_start = False
        self._selector: selectors.BaseSelector

    # ---------------------------------------------------------------- the caller's threads

    def submit(self, payload: bytes) -> Future[Any]:
        """Give the task to an idle worker, or leave it to the manager thread."""
        task = Task(payload)
        self.check_open()  # before the lock: in a fork, nobody may be there to give it back
        with self._lock:
            self.check_open()
            if self._thread is None:
                self._start_thread()
            if self._idle:
                task.claim()
            while self._idle:
                worker = self._idle.pop()
                try:
                    handed = self._hand(worker, task)
                except BaseException:
                    worker.kill()  # an interrupt may have left half a task in its pipe
                    raise
                if handed:
                    needs_manager = worker.unsent
                    break
            else:
                self._pending.append(task)
                needs_manager = len(self._workers) < self.max_workers
        if needs_manager:
            self._wakeup.set()
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
        thread = threading.Thread(target=self._run, name="anyfold-pool")
        thread.start()
        self._thread = thread
        _running[self] = None

    def _hand(self, worker: WorkerProcess, task: Task) -> bool:
        handed = worker.begin(task)
        if worker.unsent:
            self._unsent.append(worker)
        return handed

    def shutdown(self, wait: bool, cancel_futures: bool) -> None:
        """Take no further task; the workers go when those taken are done."""
        if self._pid != os.getpid():
            return
        cancelled: list[Task] = []
        with self._lock:
            self.closed = True
            if cancel_futures:
                cancelled = [task for task in self._pending if not task.claimed]
                self._pending = deque(task for task in self._pending if task.claimed)
            thread = self._thread
        self._wakeup.set()
        for task in cancelled:
            task.future.cancel()
            task.claim()  # tells those who wait for it
        if wait and thread is not None and thread is not threading.current_thread():
            thread.join()

    def close_soon(self) -> None:
        """Like ``shutdown(wait=False)``, but without the lock, which a finalizer may not take."""
        if self._pid == os.getpid():
            self.closed = True
            self._wakeup.set()

    def stop_running(self) -> None:
        """Kill the workers that have a task now."""
        if self._pid != os.getpid():
            return
        with self._lock:
            for worker in self._workers:
                if worker.task is not None:
                    worker.stopped = True
                    worker.kill()

    # ---------------------------------------------------------------- the manager thread

    def _run(self) -> None:
        try:
            with selectors.DefaultSelector() as self._selector:
                self._selector.register(self._wakeup.descriptor, selectors.EVENT_READ, None)
                while self._step():
                    pass
        except BaseException as error:
            self._give_up(error)
            raise
        finally:
            _running.pop(self, None)

    def _step(self) -> bool:
        """Handle what has happened; False when there is nothing left to do."""
        outcomes: list[tuple[Task, bytes | bytearray | WorkerLostError]] = []
        ended: list[WorkerProcess] = []
        for key, events in self._selector.select(self._timeout()):
            worker: WorkerProcess | None = key.data
            if worker is None:
                self._wakeup.clear()
            elif key.fileobj is not worker.channel:
                ended.append(worker)
            else:
                if events & selectors.EVENT_WRITE:
                    self._flush(worker)
                if events & selectors.EVENT_READ:
                    self._receive(worker, outcomes)
        for worker in ended:
            self._bury(worker, outcomes)
        self._watch_unsent()
        for task, outcome in outcomes:
            _resolve(task, outcome)
        self._more_to_start = self._start_worker()
        return not self._finished()

    def _timeout(self) -> float | None:
        if self._more_to_start:
            return 0.0
        now = time.monotonic()
        for worker, deadline in list(self._deadlines.items()):
            if deadline <= now:
                worker.kill()
                del self._deadlines[worker]
        return min(self._deadlines.values()) - now if self._deadlines else None

    def _watch_unsent(self) -> None:
        with self._lock:
            workers, self._unsent = self._unsent, []
            for worker in workers:
                if worker.unsent and worker in self._workers and worker not in self._deadlines:
                    both = selectors.EVENT_READ | selectors.EVENT_WRITE
                    self._selector.modify(worker.channel, both, worker)

    def _flush(self, worker: WorkerProcess) -> None:
        with self._lock:
            worker.flush()
            if not worker.unsent:
                self._selector.modify(worker.channel, selectors.EVENT_READ, worker)

    def _receive(self, worker: WorkerProcess, outcomes: list[Any], turns: int = 64) -> None:
        frames, more = worker.receive(turns)
        for frame in frames:
            if worker.ready:
                with self._lock:
                    task, worker.task = worker.task, None
                    worker.answers += 1
                    self._free(worker)
                self._failed_starts = 0
                if task is not None:
                    outcomes.append((task, frame))
            elif frame:
                worker.boot_error = frame.decode(errors="replace")
            else:
                worker.ready = True
                with self._lock:
                    self._free(worker)
        if not more and worker not in self._deadlines:
            # It cannot be reached any more. Usually it has ended; else it has to.
            self._selector.unregister(worker.channel)
            self._deadlines[worker] = time.monotonic() + _GRACE
            worker.doomed = True

    def _free(self, worker: WorkerProcess) -> None:
        while self._pending and not worker.doomed:
            task = self._pending.popleft()
            if task.claim():
                if self._hand(worker, task):
                    return
                self._pending.appendleft(task)
        if not worker.doomed:
            self._idle.append(worker)

    def _bury(self, worker: WorkerProcess, outcomes: list[Any]) -> None:
        worker.doomed = True
        if worker not in self._deadlines:
            self._receive(worker, outcomes, turns=sys.maxsize)  # an answer may have come before the end
        with self._lock:
            self._workers.discard(worker)
            if worker in self._idle:
                self._idle.remove(worker)
            task, worker.task = worker.task, None
        if self._deadlines.pop(worker, None) is None:
            self._selector.unregister(worker.channel)
        self._selector.unregister(worker.exit_descriptor)
        exitcode = worker.reap()
        if task is not None:
            self._failed_starts = 0
            incident = next(_incidents)
            if worker.stopped:
                how = f"worker process {worker.pid} was stopped by stop_running()"
                error = WorkerLostError(how, worker.pid, exitcode, incident)
            else:
                error = worker_lost(worker.pid, exitcode, incident)
            outcomes.append((task, error))
        elif not worker.answers and not worker.expected:
            reason = f"\n{worker.boot_error}" if worker.boot_error else ""
            self._start_failed(f"worker process {worker.pid} {describe_exit(exitcode)}{reason}")

    def _start_failed(self, how: str) -> None:
        self._failed_starts += 1
        self._last_failure = how

    def _start_worker(self) -> bool:
        """Start one worker if tasks need it; True where another one may be needed."""
        with self._lock:
            busy = sum(worker.task is not None for worker in self._workers)
            wanted = min(self.max_workers, busy + len(self._pending)) - len(self._workers)
        if wanted <= 0:
            return False
        if self._failed_starts >= _MAX_FAILED_STARTS:
            if not self._workers:
                self._fail_pending()
            return False
        try:
            worker = WorkerProcess(self._context, self._setup)
        except Exception as error:
            self._start_failed(f"{type(error).__name__}: {error}")
            return True
        with self._lock:
            self._workers.add(worker)
        self._selector.register(worker.channel, selectors.EVENT_READ, worker)
        self._selector.register(worker.exit_descriptor, selectors.EVENT_READ, worker)
        return wanted > 1

    def _fail_pending(self) -> None:
        with self._lock:
            tasks, self._pending = self._pending, deque()
        message = (
            f"no worker process could be started: {self._failed_starts} in a row ended before their first "
            f"answer, the last one so: {self._last_failure}"
        )
        self._failed_starts = 0
        incident = next(_incidents)
        for task in tasks:
            _resolve(task, WorkerLostError(message, incident=incident))

    def _finished(self) -> bool:
        if not self.closed:
            return False
        with self._lock:
            if self._pending or any(worker.task is not None for worker in self._workers):
                return False
        for worker in self._workers:
            if not worker.ready:
                worker.kill()
            elif not worker.doomed:
                worker.let_go()
                self._deadlines.setdefault(worker, time.monotonic() + _GRACE)
        return not self._workers

    def _give_up(self, error: BaseException) -> None:
        with self._lock:
            self.closed = True
            workers, self._workers, self._idle = self._workers, set(), []
            tasks = [*self._pending, *(worker.task for worker in workers if worker.task is not None)]
            self._pending.clear()
        for worker in workers:
            worker.kill()
            worker.reap()
        for task in tasks:
            failure = RuntimeError("the thread that manages anyfold's workers has failed; this is a bug")
            failure.__cause__ = error
            _resolve(task, failure)


def _resolve(task: Task, outcome: bytes | bytearray | BaseException) -> None:
    value = None
    exception = outcome if isinstance(outcome, BaseException) else None
    if not task.claim():
        return
    if not isinstance(outcome, BaseException):
        value, exception = load_answer(outcome)
    try:
        if exception is None:
            task.future.set_result(value)
        else:
            task.future.set_exception(exception)
    except InvalidStateError:
        pass  # somebody resolved it by hand
    except BaseException:
        # Futures log an Exception of a callback themselves; the rest must not end this thread either.
        _logger.exception("a callback of %r raised", task.future)


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
