"""Executors that the user brings: any PEP 3148 executor, used as it is and never closed."""

from __future__ import annotations

import concurrent.futures
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

from anyfold._worker.call import Answer, call, call_watching, dumps_call, load_answer
from anyfold.errors import InvalidInputError
from anyfold.executors import base
from anyfold.executors._futures import FollowingFuture, failed_future
from anyfold.executors.base import Isolation

__all__ = ["ForeignExecutor", "as_executor"]

P = ParamSpec("P")
T = TypeVar("T")


def as_executor(obj: Any) -> base.Executor:
    """Return an executor that the engine can use.

    Parameters
    ----------
    obj : executor
        One of anyfold's, or of a third party that declares ``isolation`` and ``capabilities``, is
        returned as it is. Any other PEP 3148 executor is wrapped; it stays the user's, and shutting down
        the wrapper does not close it.

    Raises
    ------
    InvalidInputError
        It is no executor, or one that was shut down or has broken.

    Examples
    --------
    >>> from concurrent.futures import ThreadPoolExecutor
    >>> from anyfold.executors import as_executor
    >>> with ThreadPoolExecutor(2) as pool:
    ...     as_executor(pool).isolation
    'thread'
    """
    if type(obj).__module__.partition(".")[0] == "distributed" and hasattr(obj, "scheduler_info"):
        from anyfold.executors.dask import executor_of  # a Client of Dask's, which is no executor itself

        return executor_of(obj)
    if isinstance(obj, type) or not callable(getattr(obj, "submit", None)):
        raise InvalidInputError(
            f"backend={obj!r} is neither the name of a backend nor an executor: an executor has "
            "submit(fn, *args, **kwargs) that returns a concurrent.futures.Future"
        )
    state = _unusable(obj)
    if state:
        raise InvalidInputError(f"the executor {obj!r} {state}; pass a new one, or the name of a backend")
    if hasattr(obj, "isolation") and hasattr(obj, "capabilities") and hasattr(obj, "shutdown"):
        executor: base.Executor = obj
        return executor
    return ForeignExecutor(obj)


def _unusable(obj: Any) -> str:
    """Say why an executor takes no more tasks; empty where nothing is known against it."""
    flags = getattr(obj, "_flags", None)  # loky's
    if getattr(obj, "_broken", False) or getattr(flags, "broken", None):
        return "has broken"
    closed = (
        getattr(obj, "closed", False),
        getattr(obj, "_shutdown", False),
        getattr(obj, "_shutdown_thread", False),
        getattr(flags, "shutdown", False),
    )
    return "was shut down" if any(value is True for value in closed) else ""


class ForeignExecutor(Executor):
    """An executor that anyfold did not write, as one that the engine can use.

    Calls travel pickled by cloudpickle, so that functions defined anywhere can be run, except to threads,
    which share everything.

    Parameters
    ----------
    executor : concurrent.futures.Executor
        Any object with PEP 3148's ``submit``.
    owned : bool, default=False
        Whether `shutdown` shuts it down too; a user's own stays open.

    Attributes
    ----------
    max_workers : int or None
        None where the executor does not say.
    isolation : {"process", "thread"}
    """

    capabilities: frozenset[str] = frozenset()

    def __init__(self, executor: Any, *, owned: bool = False) -> None:
        self._executor = executor
        self._owned = owned
        self.isolation: Isolation = "thread" if isinstance(executor, ThreadPoolExecutor) else "process"
        self._local = _runs_on_this_host(executor)
        workers = getattr(executor, "_max_workers", None)
        self.max_workers: int | None = workers if isinstance(workers, int) else None
        self.closed = False
        self._lock = threading.Lock()
        self._outstanding: set[Future[Any]] = set()

    def __repr__(self) -> str:
        return f"ForeignExecutor({self._executor!r})"

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Pass the call on to the user's executor."""
        if self.closed:
            raise RuntimeError("cannot schedule new futures after shutdown")
        future: Future[T]
        if self.isolation == "thread":
            future = self._pass_on(fn, *args, **kwargs)
        else:
            try:
                payload = dumps_call(fn, args, kwargs)
            except Exception as error:
                return failed_future(error)
            task = (call_watching, payload, os.getpid()) if self._local else (call, payload)
            future = FollowingFuture(self._pass_on(*task), _read)
        with self._lock:
            self._outstanding.add(future)
        future.add_done_callback(self._forget)
        return future

    def _pass_on(self, /, *call: Any, **kwargs: Any) -> Future[Any]:
        future = self._executor.submit(*call, **kwargs)
        if not isinstance(future, Future):
            found = f"{type(future).__module__}.{type(future).__qualname__}"
            raise InvalidInputError(
                f"submit of {self._executor!r} returned a {found}, not a concurrent.futures.Future; it is "
                "no PEP 3148 executor"
            )
        return future

    def _forget(self, future: Future[Any]) -> None:
        with self._lock:
            self._outstanding.discard(future)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Refuse further tasks and wait for those given; only an owned executor is shut down."""
        self.closed = True
        with self._lock:
            outstanding = list(self._outstanding)
        if cancel_futures:
            for future in outstanding:
                future.cancel()
        if wait:
            concurrent.futures.wait(outstanding)
        if self._owned:
            self._executor.shutdown(wait=wait)


def _runs_on_this_host(executor: Any) -> bool:
    """Tell the process pools of the standard library and of loky, without importing either."""
    standard = sys.modules.get("concurrent.futures.process")
    is_standard = standard is not None and isinstance(executor, standard.ProcessPoolExecutor)
    return is_standard or hasattr(executor, "_flags")


def _read(inner: Future[Any]) -> Answer:
    error = inner.exception()
    return load_answer(inner.result()) if error is None else Answer(None, error)
