"""The ``joblib`` backend: whatever backend of joblib's is active, as an executor.

joblib has no public way to run single calls on a backend: `Parallel` is an iterator that aborts at the first
error. So this file does what `Parallel` does inside, and is the only one that knows how.
"""

from __future__ import annotations

import concurrent.futures
import copy
import functools
import itertools
import multiprocessing.pool
import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future
from functools import partial
from multiprocessing.connection import Pipe, wait
from typing import Any, ParamSpec, TypeVar

from joblib import Parallel
from joblib.externals.loky.backend import resource_tracker
from joblib.parallel import BatchedCalls, SequentialBackend, get_active_backend

from anyfold._worker.call import Answer, call, call_watching, dumps_call, load_answer
from anyfold.errors import UnsupportedFeatureError, WorkerLostError
from anyfold.executors._exit import at_interpreter_exit
from anyfold.executors._futures import failed_future, run_inline, settle
from anyfold.executors._joblib_pool import (
    configuration,
    end_pool,
    is_of_this_host,
    is_reusable,
    keep,
    made_here,
    processes_of,
    reusable_pool,
)
from anyfold.executors._lost import find_culprit, kill_all, worker_lost
from anyfold.executors._options import check_max_workers
from anyfold.executors._start import interrupts_blocked
from anyfold.executors.base import Isolation

__all__ = ["JoblibExecutor"]

P = ParamSpec("P")
T = TypeVar("T")

_incidents = itertools.count(1)


class _Task:
    """A call, and the future of its answer."""

    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self.function = function
        self.arguments = arguments
        self.future: Future[Any] = Future()
        self._claimed = False

    def claim(self) -> bool:
        """Say that the call runs from now on; False where it was cancelled before."""
        self._claimed = self._claimed or self.future.set_running_or_notify_cancel()
        return self._claimed


class JoblibExecutor(Executor):
    """Runs tasks on the backend of joblib's that is active where it is made.

    Choose it with ``joblib.parallel_config``, or leave joblib's default, loky. Of the backends that come
    with joblib, loky and multiprocessing heal after a lost worker: the tasks that ran then, at most
    ``max_workers`` of them, raise `WorkerLostError`. (joblib itself never notices a lost worker of its
    multiprocessing backend; here its processes are watched.) Distributed backends report what they report.

    joblib's loky workers are one pool for the whole process. `shutdown` ends it only where it was made for an
    executor of this kind, and no other one uses it.

    Parameters
    ----------
    max_workers : int, optional
        How many workers there may be; by default joblib's active ``n_jobs``, and all cores where there is
        none.

    Attributes
    ----------
    max_workers : int
    isolation : {"process", "thread", "none"}
        By the active backend.
    """

    one_at_a_time = True
    """A process has one pool of joblib's, which the next executor would get with the workers as they are."""

    def __init__(self, max_workers: int | None = None) -> None:
        self.closed = False
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._in_callback = threading.local()
        self._pending: deque[_Task] = deque()
        self._running: set[_Task] = set()
        self._recovering = False
        self._broken: Exception | None = None
        self._watch: Callable[[], None] | None = None
        self._recovery: threading.Thread | None = None
        self._closing: threading.Thread | None = None
        backend, n_jobs = get_active_backend()
        self._asked = configuration()
        if max_workers is not None:
            n_jobs = check_max_workers(max_workers)
        # A copy: other calls of joblib under the same configuration set up, and end, the same object.
        self._parallel = Parallel(n_jobs=-1 if n_jobs is None else n_jobs, backend=copy.copy(backend))
        before = reusable_pool()
        with interrupts_blocked(resource_tracker):
            self._parallel.__enter__()
            self._ready(before)
        _open[self] = None
        backend = self._parallel._backend
        self.max_workers: int = self._parallel._effective_n_jobs()
        self.isolation: Isolation = _isolation(backend)
        known = self._pool() is not None
        self.capabilities: frozenset[str] = frozenset({"healing", "stop_running"} if known else ())
        self.keep_warm = known and is_of_this_host(self._pool())
        if self.isolation != "none" and not backend.supports_retrieve_callback:
            self.shutdown()
            raise UnsupportedFeatureError(
                f"joblib's backend {type(backend).__qualname__} cannot report finished calls "
                "(supports_retrieve_callback is False); choose another one with joblib.parallel_config"
            )

    def __repr__(self) -> str:
        return f"JoblibExecutor({type(self._parallel._backend).__name__}, max_workers={self.max_workers})"

    def is_current(self) -> bool:
        """Return whether joblib is configured as it was, and would use the same workers."""
        pool = self._pool()
        if self._recovering or self._broken is not None or self._asked != configuration():
            return False
        return not is_reusable(pool) or (pool is reusable_pool() and pool._max_workers == self.max_workers)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Schedule ``fn(*args, **kwargs)``; what cannot be pickled makes a future that raises."""
        self._check_open()
        if self.isolation == "none":
            return run_inline(fn, args, kwargs)
        if self.isolation == "thread":
            task = _Task(_answer, (fn, args, kwargs))
        else:
            try:
                payload = dumps_call(fn, args, kwargs)
            except Exception as error:
                return failed_future(error)
            # Only pools of processes that we know are on this host for certain.
            local = "stop_running" in self.capabilities
            task = _Task(call_watching, (payload, self._pid)) if local else _Task(call, (payload,))
        with self._lock:
            self._check_open()
            self._pending.append(task)
        self._dispatch()
        return task.future

    def _check_open(self) -> None:
        if self._broken is not None:
            raise BrokenExecutor("joblib's workers were lost and could not be replaced") from self._broken
        if self.closed:
            raise RuntimeError("cannot schedule new futures after shutdown")

    def _dispatch(self) -> None:
        """Hand over as many tasks as there are workers: those that wait can still be cancelled."""
        while True:
            with self._lock:
                if self._recovering or not self._pending or len(self._running) >= self.max_workers:
                    return
                task = self._pending.popleft()
                if not task.claim():
                    continue
                self._running.add(task)
            backend = self._parallel._backend
            calls = BatchedCalls([(task.function, task.arguments, {})], backend.get_nested_backend())
            try:
                with interrupts_blocked(resource_tracker):  # it may start workers
                    backend.submit(calls, callback=partial(self._finish, backend, task))
                _finish_before(type(backend).__qualname__)
            except BrokenExecutor as error:
                with self._lock:  # no worker has seen this one
                    if task in self._running:
                        self._running.discard(task)
                        self._pending.appendleft(task)
                self._lose(error, self._pool())
            except Exception as error:
                self._resolve(task, Answer(None, error))

    def _finish(self, backend: Any, task: _Task, out: Any) -> None:
        """Take the answer; called by a thread of joblib's."""
        self._in_callback.active = True
        try:
            (value,) = backend.retrieve_result_callback(out)
            answer = value if isinstance(value, Answer) else load_answer(value)
        except BrokenExecutor as error:
            self._lose(error, self._pool())
        except BaseException as error:
            self._resolve(task, Answer(None, error))
        else:
            self._resolve(task, answer)
        finally:
            self._in_callback.active = False

    def _resolve(self, task: _Task, answer: Answer) -> None:
        with self._lock:
            if task not in self._running:
                return  # counted as lost before
            self._running.discard(task)
        self._dispatch()
        settle(task.future, answer)

    # ---------------------------------------------------------------- lost workers

    def _pool(self) -> Any:
        """Return the pool of processes under joblib's backend, None where it has none that we know."""
        backend = self._parallel._backend
        pool = getattr(backend, "_workers", None) or getattr(backend, "_pool", None)
        return None if isinstance(pool, multiprocessing.pool.ThreadPool) else pool

    def _ready(self, before: Any = None) -> None:
        """Begin to use the backend that joblib has set up; `before` is the reusable pool that there was."""
        backend = self._parallel._backend
        if hasattr(backend, "start_call"):
            backend.start_call()
        self._parallel._calling = True
        if hasattr(backend, "_get_pool"):
            backend._get_pool()  # made at the first call, and twice where two threads make it
        pool = self._pool()
        if isinstance(pool, multiprocessing.pool.Pool):
            self._watch = self._watch_workers(pool)
        elif is_reusable(pool) and pool is not before:
            keep(pool)

    def _watch_workers(self, pool: Any) -> Callable[[], None]:
        """Notice the end of a worker, which `multiprocessing.Pool` replaces and says nothing."""
        workers = list(pool._pool)
        stopped, stop = Pipe(duplex=False)

        def watch() -> None:
            ready = wait([stopped, *(worker.sentinel for worker in workers)])
            if stopped not in ready:
                self._lose(
                    BrokenExecutor("a worker of joblib's multiprocessing backend ended"), pool, workers
                )
            stopped.close()

        threading.Thread(target=watch, name="anyfold-watch-joblib", daemon=True).start()
        return stop.close

    def stop_running(self) -> None:
        """Kill the workers; the futures of running tasks raise `WorkerLostError`, those that wait go on."""
        if self._running and self._pid == os.getpid():
            self._lose(WorkerLostError("the task was stopped by stop_running()"), self._pool())

    def _lose(self, error: Exception, pool: Any, workers: list[Any] | None = None) -> None:
        with self._lock:
            if self._recovering or pool is None or pool is not self._pool():
                return
            self._recovering = True
            lost, self._running = self._running, set()
        if workers is None:
            workers = processes_of(pool)
        pid, exitcode = find_culprit(workers)
        incident = f"joblib-{next(_incidents)}"
        kill_all(workers)
        # joblib ends a broken pool by waiting for a thread, which may be this one.
        self._recovery = threading.Thread(target=self._recover, args=(pool,), name="anyfold-recover-joblib")
        self._recovery.start()
        for task in lost:
            if isinstance(error, WorkerLostError):
                failure = WorkerLostError(str(error), incident=incident)
            else:
                failure = worker_lost(pid, exitcode, incident, "and took with it all tasks that were running")
                failure.__cause__ = error
            settle(task.future, Answer(None, failure))

    def _recover(self, pool: Any) -> None:
        try:
            end_pool(pool)
            self._parallel._backend._pool = None
            if self._pending or not self.closed:
                with interrupts_blocked(resource_tracker):
                    self._parallel._initialize_backend()
                    self._ready()
        except Exception as error:
            with self._lock:
                self._broken = error
                tasks, self._pending = list(self._pending), deque()
            for task in tasks:
                if task.claim():
                    failure = BrokenExecutor("joblib's workers were lost and could not be replaced")
                    settle(task.future, Answer(None, failure))
        with self._lock:
            self._recovering = False
        self._dispatch()

    # ---------------------------------------------------------------- the end

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let the workers go when their tasks are done; from a future's callback it does not wait."""
        if os.getpid() != self._pid:
            return
        with self._lock:
            first, self.closed = not self.closed, True
            cancelled: list[_Task] = []
            if cancel_futures:
                cancelled, self._pending = list(self._pending), deque()
            left = [task.future for task in (*self._running, *self._pending)]
        for task in cancelled:
            task.future.cancel()
            task.future.set_running_or_notify_cancel()
        if first:
            self._closing = threading.Thread(target=self._close, args=(left,), name="anyfold-close-joblib")
            self._closing.start()
        if wait and self._closing is not None and not getattr(self._in_callback, "active", False):
            self._closing.join()

    def _close(self, left: list[Future[Any]]) -> None:
        concurrent.futures.wait(left)
        if self._recovery is not None:
            self._recovery.join()
        if self._watch is not None:
            self._watch()
        pool = self._pool()
        if isinstance(pool, multiprocessing.pool.Pool):
            end_pool(pool)  # its own way waits for workers, and one was seen that outlived SIGTERM
        self._parallel.__exit__(None, None, None)
        # A reusable pool that was there before is somebody else's, and so is one that has other work.
        _open.pop(self, None)
        used = any(other._pool() is pool for other in list(_open))
        if pool in made_here and not used and not pool._pending_work_items:
            pool.shutdown(wait=True)


def _isolation(backend: Any) -> Isolation:
    if isinstance(backend, SequentialBackend):
        return "none"
    shares = getattr(backend, "uses_threads", False) or getattr(backend, "supports_sharedmem", False)
    return "thread" if shares else "process"


def _answer(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Answer:
    try:
        return Answer(fn(*args, **kwargs), None)
    except BaseException as error:
        return Answer(None, error)


_open: dict[JoblibExecutor, None] = {}
"""Those that have not been shut down."""

os.register_at_fork(after_in_child=_open.clear)


def _finish_all() -> None:
    for executor in list(_open):
        executor.shutdown()


@functools.cache
def _finish_before(_backend: str) -> None:
    """Finish before that kind of backend does, which prepares for the interpreter's end at its first task."""
    at_interpreter_exit(_finish_all)
