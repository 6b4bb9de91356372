"""The thread that manages the workers of anyfold's own process pool; see `Pool` for the whole."""

from __future__ import annotations

import itertools
import selectors
import sys
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from anyfold._worker.call import Answer, load_answer
from anyfold.errors import WorkerLostError, WorkerStartError
from anyfold.executors._futures import settle
from anyfold.executors._lost import describe_exit, worker_lost
from anyfold.executors._worker_process import Task, WorkerProcess

if TYPE_CHECKING:
    from anyfold.executors._pool import Pool

__all__ = ["PoolManager"]

_MAX_FAILED_STARTS = 3
_GRACE = 5.0
"""Seconds that a worker without a task has to end by itself."""

_incidents = itertools.count(1)


class PoolManager:
    """Starts workers, passes tasks and answers on, and notices workers that end."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._selector: selectors.BaseSelector
        self._deadlines: dict[WorkerProcess, float] = {}
        self._failed_starts = 0
        self._last_failure = ""
        self._more_to_start = False

    def run(self) -> None:
        """Work until the pool is closed and its last worker gone."""
        try:
            with selectors.DefaultSelector() as self._selector:
                self._selector.register(self._pool.wakeup.descriptor, selectors.EVENT_READ, None)
                while self._step():
                    pass
        except BaseException as error:
            self._give_up(error)
            raise

    def _step(self) -> bool:
        """Handle what has happened; False when there is nothing left to do."""
        outcomes: list[tuple[Task, bytes | bytearray | WorkerLostError]] = []
        ended: list[WorkerProcess] = []
        for key, events in self._selector.select(self._timeout()):
            worker: WorkerProcess | None = key.data
            if worker is None:
                self._pool.wakeup.clear()
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
        with self._pool.lock:
            workers, self._pool.unsent = self._pool.unsent, []
            for worker in workers:
                if worker.unsent and not worker.hung_up:
                    both = selectors.EVENT_READ | selectors.EVENT_WRITE
                    self._selector.modify(worker.channel, both, worker)

    def _flush(self, worker: WorkerProcess) -> None:
        with self._pool.lock:
            worker.flush()
            if not worker.unsent:
                self._selector.modify(worker.channel, selectors.EVENT_READ, worker)

    def _receive(self, worker: WorkerProcess, outcomes: list[Any], turns: int = 64) -> None:
        frames, more = worker.receive(turns)
        for frame in frames:
            if worker.ready:
                with self._pool.lock:
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
                with self._pool.lock:
                    self._free(worker)
        if not more:
            # It cannot be reached any more. Usually it is about to end; else it has to.
            self._hang_up(worker)
            self._deadlines.setdefault(worker, time.monotonic() + _GRACE)

    def _hang_up(self, worker: WorkerProcess) -> None:
        self._selector.unregister(worker.channel)
        worker.hung_up = worker.doomed = True

    def _free(self, worker: WorkerProcess) -> None:
        while self._pool.pending and not worker.doomed:
            task = self._pool.pending.popleft()
            if task.claim():
                if self._pool.hand(worker, task):
                    return
                self._pool.pending.appendleft(task)
        if not worker.doomed:
            self._pool.idle.append(worker)

    def _bury(self, worker: WorkerProcess, outcomes: list[Any]) -> None:
        worker.doomed = True
        if not worker.hung_up:
            self._receive(worker, outcomes, turns=sys.maxsize)  # an answer may have come before the end
        if not worker.hung_up:
            self._hang_up(worker)  # a child of the worker's keeps its end open
        with self._pool.lock:
            self._pool.workers.discard(worker)
            if worker in self._pool.idle:
                self._pool.idle.remove(worker)
            task, worker.task = worker.task, None
        self._deadlines.pop(worker, None)
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
        with self._pool.lock:
            busy = sum(worker.task is not None for worker in self._pool.workers)
            wanted = min(self._pool.max_workers, busy + len(self._pool.pending)) - len(self._pool.workers)
        if wanted <= 0:
            return False
        if self._failed_starts >= _MAX_FAILED_STARTS:
            if not self._pool.workers:
                self._fail_pending()
            return False
        try:
            worker = WorkerProcess(self._pool.context, self._pool.setup)
        except Exception as error:
            self._start_failed(f"{type(error).__name__}: {error}")
            return True
        with self._pool.lock:
            self._pool.workers.add(worker)
        self._selector.register(worker.channel, selectors.EVENT_READ, worker)
        self._selector.register(worker.exit_descriptor, selectors.EVENT_READ, worker)
        return wanted > 1

    def _fail_pending(self) -> None:
        with self._pool.lock:
            tasks, self._pool.pending = self._pool.pending, deque()
        message = (
            f"no worker process could be started: {self._failed_starts} in a row ended before their first "
            f"answer, the last one so: {self._last_failure}"
        )
        self._failed_starts = 0
        incident = next(_incidents)
        for task in tasks:
            _resolve(task, WorkerStartError(message, incident=incident))

    def _finished(self) -> bool:
        if not self._pool.closed:
            return False
        with self._pool.lock:
            if self._pool.pending or any(worker.task is not None for worker in self._pool.workers):
                return False
        for worker in self._pool.workers:
            if not worker.ready:
                worker.kill()
            elif not worker.doomed:
                worker.let_go()
                self._deadlines.setdefault(worker, time.monotonic() + _GRACE)
        return not self._pool.workers

    def _give_up(self, error: BaseException) -> None:
        with self._pool.lock:
            self._pool.closed = True
            workers, self._pool.workers, self._pool.idle = self._pool.workers, set(), []
            tasks = [*self._pool.pending, *(worker.task for worker in workers if worker.task is not None)]
            self._pool.pending.clear()
        for worker in workers:
            worker.kill()
            worker.reap()
        for task in tasks:
            failure = RuntimeError("the thread that manages anyfold's workers has failed; this is a bug")
            failure.__cause__ = error
            _resolve(task, failure)


def _resolve(task: Task, outcome: bytes | bytearray | BaseException) -> None:
    if task.claim():
        settled = Answer(None, outcome) if isinstance(outcome, BaseException) else load_answer(outcome)
        settle(task.future, settled)
