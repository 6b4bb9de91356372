"""What makes a process pool heal that breaks as a whole when one of its workers ends."""

from __future__ import annotations

import abc
import itertools
import os
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future
from functools import partial
from typing import Any, ParamSpec, TypeVar

from anyfold._worker.call import Answer, call, dumps_call, load_answer
from anyfold.errors import WorkerLostError
from anyfold.executors._exit import at_interpreter_exit
from anyfold.executors._futures import FollowingFuture, failed_future
from anyfold.executors._lost import find_culprit, kill_all, worker_lost
from anyfold.executors._start import standard_descriptors
from anyfold.executors.base import Isolation

__all__ = ["HealingPool"]

P = ParamSpec("P")
T = TypeVar("T")

_incidents = itertools.count(1)


class _Generation:
    """One inner pool, from its making to its end."""

    def __init__(self, pool: Any) -> None:
        self.pool = pool
        self.incident = f"{type(pool).__module__}-{next(_incidents)}"
        self.broken = False
        self.stopped = False
        self.culprit: tuple[int | None, int | None] = (None, None)
        self.outstanding: set[Future[Any]] = set()
        self.manager: threading.Thread | None = None

    def processes(self) -> list[Any]:
        return list((self.pool._processes or {}).values())

    def has_broken(self) -> bool:
        flags = getattr(self.pool, "_flags", None)
        return bool(self.pool._broken if flags is None else flags.broken)

    def remember_manager(self) -> None:
        # The pool forgets its thread when it is shut down, even where nobody has waited for it yet.
        manager = self.pool._executor_manager_thread
        if manager is not None:
            self.manager = manager
            _managers.add(manager)


class HealingPool(Executor, abc.ABC):
    """Base of the backends whose inner pool loses all of its tasks when a worker ends.

    The futures of all tasks that the pool had been given raise `WorkerLostError`, with the same
    ``incident``; the next ``submit`` builds a fresh pool. ``pid`` and ``exitcode`` are set where one worker
    can be made out that ended before the pool itself ended the others.

    Parameters
    ----------
    max_workers : int
        How many processes there may be.
    """

    isolation: Isolation = "process"
    capabilities = frozenset({"healing", "stop_running"})

    def __init__(self, max_workers: int) -> None:
        self.max_workers = max_workers
        self.closed = False
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._current: _Generation | None = None
        self._past: list[_Generation] = []
        _pools.add(self)

    @abc.abstractmethod
    def _build(self) -> Any:
        """Make the inner pool."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Schedule ``fn(*args, **kwargs)``; what cannot be pickled makes a future that raises."""
        try:
            payload = dumps_call(fn, args, kwargs)
        except Exception as error:
            self._check_open()
            return failed_future(error)
        while True:
            generation = self._generation()
            try:
                # Not under our lock: the pool calls futures back, and so us, under locks of its own.
                with standard_descriptors():
                    inner = generation.pool.submit(call, payload)
            except BrokenExecutor:
                self._broke(generation)
            except OSError:  # the pool breaks and closes its pipes while it starts a worker for this task
                if not generation.has_broken():
                    raise
                self._broke(generation)
            except RuntimeError:
                if self._current is generation or self.closed:
                    raise
            else:
                if generation.manager is None:
                    generation.remember_manager()
                generation.outstanding.add(inner)
                inner.add_done_callback(generation.outstanding.discard)
                return FollowingFuture(inner, partial(self._read, generation))

    def _check_open(self) -> None:
        if self._pid != os.getpid():
            raise RuntimeError(
                f"this executor belongs to process {self._pid}, of which this process, {os.getpid()}, is a "
                "fork; make a new executor here"
            )
        if self.closed:
            raise RuntimeError("cannot schedule new futures after shutdown")

    def _generation(self) -> _Generation:
        self._check_open()
        with self._lock:
            self._check_open()
            if self._current is None:
                with standard_descriptors():
                    self._current = _Generation(self._build())
            return self._current

    def _read(self, generation: _Generation, inner: Future[Any]) -> Answer:
        error = inner.exception()
        if error is None:
            return load_answer(inner.result())
        if not isinstance(error, BrokenExecutor):
            return Answer(None, error)
        self._broke(generation)
        if generation.stopped:
            lost = WorkerLostError("the task was stopped by stop_running()", incident=generation.incident)
        else:
            doing = "and the pool lost all the tasks that it had been given, this one among them"
            lost = worker_lost(*generation.culprit, generation.incident, doing)
        lost.__cause__ = error
        return Answer(None, lost)

    def _broke(self, generation: _Generation) -> None:
        """Note, once, who ended, and let none of the others survive."""
        with self._lock:
            if generation.broken:
                return
            generation.broken = True
            self._retire(generation)
            processes = generation.processes()
            generation.culprit = find_culprit(processes)
        kill_all(processes)

    def _retire(self, generation: _Generation) -> None:
        generation.remember_manager()
        if self._current is generation:
            self._current = None
        self._past = [past for past in self._past if past.manager is not None and past.manager.is_alive()]
        self._past.append(generation)

    def stop_running(self) -> None:
        """Kill the workers; all tasks given so far, queued ones too, raise `WorkerLostError`."""
        with self._lock:
            generation = self._current
            if generation is None or not generation.outstanding or self._pid != os.getpid():
                return
            generation.stopped = True
            self._retire(generation)
        kill_all(generation.processes())

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let the workers go when their tasks are done; from a future's callback it does not wait."""
        if self._pid != os.getpid():
            return
        with self._lock:
            self.closed = True
            generation = self._current
            if generation is not None:
                self._retire(generation)
            past = list(self._past)
        if generation is not None:
            if cancel_futures:
                for future in list(generation.outstanding):
                    future.cancel()
            generation.pool.shutdown(wait=False)
        for generation in past:
            if wait and generation.manager is not None:
                _join(generation.manager)


def _join(thread: threading.Thread) -> None:
    if thread is not threading.current_thread():
        thread.join()


_pools: weakref.WeakSet[HealingPool] = weakref.WeakSet()
_managers: weakref.WeakSet[threading.Thread] = weakref.WeakSet()


def _finish_all() -> None:
    for pool in list(_pools):
        pool.shutdown()
    # Those of pools that nobody holds any more are about to end; the standard library would trip over
    # them while they do.
    for manager in list(_managers):
        _join(manager)


at_interpreter_exit(_finish_all)
