"""joblib's pools of processes: which one it would use now, whose it is, and how a pool ends."""

from __future__ import annotations

import multiprocessing.pool
import os
import weakref
from collections.abc import Callable
from typing import Any

from joblib.externals.loky import reusable_executor
from joblib.parallel import get_active_backend

from anyfold._worker.boot import watch_driver
from anyfold.executors._lost import kill_all

__all__ = [
    "configuration",
    "end_pool",
    "is_of_this_host",
    "is_reusable",
    "keep",
    "made_here",
    "processes_of",
    "reusable_pool",
]

made_here: weakref.WeakSet[Any] = weakref.WeakSet()
"""The reusable pools that joblib has made for an executor of anyfold's."""


def configuration() -> tuple[Any, ...]:
    """Return what `joblib.parallel_config` says of workers, as far as it can be compared."""
    backend, n_jobs = get_active_backend()
    options = getattr(backend, "backend_kwargs", {})
    return type(backend), n_jobs, getattr(backend, "inner_max_num_threads", None), dict(options)


def reusable_pool() -> Any:
    """Return joblib's pool of loky workers, None where there is none that joblib would use again."""
    pool = reusable_executor._executor
    return None if pool is None or pool._flags.shutdown or pool._flags.broken else pool


def is_reusable(pool: Any) -> bool:
    """Return whether a pool is of the kind of which joblib has one for the whole process."""
    return isinstance(pool, reusable_executor._ReusablePoolExecutor)


def is_of_this_host(pool: Any) -> bool:
    """Return whether a pool is of a kind whose workers are processes of this host."""
    return is_reusable(pool) or isinstance(pool, multiprocessing.pool.Pool)


def keep(pool: Any) -> None:
    """Note that a pool was made for an executor of anyfold's; no worker of it may have started."""
    made_here.add(pool)
    # A worker that has no task yet would wait for one for minutes after its caller was killed.
    pool._initializer, pool._initargs = _watching, (os.getpid(), pool._initializer, pool._initargs)


def _watching(pid: int, initializer: Callable[..., Any] | None, initargs: tuple[Any, ...]) -> None:
    watch_driver(pid)
    if initializer is not None:
        initializer(*initargs)


def processes_of(pool: Any) -> list[Any]:
    return list(pool._processes.values() if hasattr(pool, "_flags") else pool._pool)


def end_pool(pool: Any) -> None:
    """End a pool that has nothing left to do, or has lost a worker; leave no process of it behind."""
    if not isinstance(pool, multiprocessing.pool.Pool):
        pool.terminate(kill_workers=True)
        return
    private: Any = pool
    _stop_replacing(private)
    kill_all(private._pool)
    for worker in private._pool:
        worker.join()
    # A killed worker cannot give back the lock of a queue, for which terminate would wait for ever. The
    # first of them is taken by workers only, the second for a moment by a thread here too.
    for lock, patience in ((private._inqueue._rlock, 0.0), (private._outqueue._wlock, 1.0)):
        lock.acquire(timeout=patience)
        lock.release()
    private.terminate()


def _stop_replacing(pool: Any) -> None:
    """End the thread of a `multiprocessing.Pool` that starts new workers."""
    pool._worker_handler._state = multiprocessing.pool.TERMINATE
    pool._change_notifier.put(None)
    pool._worker_handler.join()


def _forget_in_child() -> None:
    # joblib would go on to use its copy of a pool whose threads are the parent's.
    if reusable_executor._executor in made_here:
        reusable_executor._executor = reusable_executor._executor_kwargs = None


os.register_at_fork(after_in_child=_forget_in_child)
