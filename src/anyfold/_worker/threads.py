"""How many threads a task may use: of BLAS, of OpenMP, and of a model's own ``n_jobs``.

BLAS keeps one limit for a process, OpenMP one for each thread. A worker process is set once for a
run and stays so. The caller's own process is limited while tasks run in it, and restored when none does:
by the engine around a run, and by each worker thread around a unit: the caller may be at something else.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from joblib import parallel_config
from joblib.parallel import ThreadingBackend

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

    from anyfold.executors.base import Isolation

__all__ = ["limit_caller", "limit_worker"]

VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)
"""What libraries read that are loaded after the limit was set."""


_blas_lock = threading.Lock()
_blas_depth = 0
_blas_limit: Any = None


@contextlib.contextmanager
def limit_caller(n_threads: int) -> Iterator[None]:
    """Limit the libraries of the caller's process and of this thread, and restore them afterwards.

    BLAS has one limit for the process: of several at once the first one sets it and the last one restores it.
    """
    global _blas_depth, _blas_limit
    with _blas_lock:
        if _blas_depth == 0:
            with _in_control():
                _blas_limit = _controller().select(user_api="blas").limit(limits=n_threads)
        _blas_depth += 1
    try:
        with _controller().select(user_api="openmp").limit(limits=n_threads):
            yield
    finally:
        with _blas_lock:
            _blas_depth -= 1
            if _blas_depth == 0:
                with _in_control():
                    _blas_limit.restore_original_limits()


@contextlib.contextmanager
def _in_control() -> Iterator[None]:
    """Have this thread's limits of OpenBLAS take effect, and leave it to all threads afterwards.

    threadpoolctl from 3.8 on lets one thread limit it, and takes no notice of the others. Here one thread may
    set the limit of a process and another one restore it.
    """
    from threadpoolctl import OpenBLASController

    leave: Callable[..., None] = getattr(OpenBLASController, "clear_controlling_thread", lambda **_: None)
    leave(force=True)
    try:
        yield
    finally:
        leave(force=True)


def _unlock_in_child() -> None:
    global _blas_lock, _blas_depth
    _blas_lock, _blas_depth = threading.Lock(), 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock_in_child)


@contextlib.contextmanager
def limit_worker(n_threads: int, isolation: Isolation) -> Iterator[None]:
    """Limit whatever a unit of work may use where it runs."""
    with contextlib.ExitStack() as stack:
        match isolation:
            case "process":
                _settle(n_threads)
            case "thread":
                stack.enter_context(limit_caller(n_threads))
            case "none":
                pass  # the engine limits the caller
        stack.enter_context(_limit_joblib(n_threads))
        yield


class _BoundedThreads(ThreadingBackend):  # type: ignore[misc]
    """Threads of joblib, never more than a limit, whatever ``n_jobs`` a model asks for."""

    def __init__(self, limit: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._limit = limit

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        return int(min(super().effective_n_jobs(n_jobs), self._limit))

    def get_nested_backend(self) -> tuple[Any, int | None]:
        return super().get_nested_backend()[0].__class__(nesting_level=1), 1


def _limit_joblib(n_threads: int) -> Any:
    if n_threads == 1:
        # parallel_config(n_jobs=1) would not bind an explicit n_jobs=-1; this backend does.
        return parallel_config(backend="sequential")
    return parallel_config(backend=_BoundedThreads(n_threads))


_settled = threading.local()


def _settle(n_threads: int) -> None:
    """Limit this worker process for good, and again when a package was imported since."""
    state = (n_threads, len(sys.modules))
    if getattr(_settled, "state", None) == state:
        return
    for variable in VARIABLES:
        os.environ[variable] = str(n_threads)
    with _in_control():
        _controller().limit(limits=n_threads)
    _settled.state = state


_known: tuple[int, ThreadpoolController] | None = None


def _controller() -> ThreadpoolController:
    # Looking for the loaded libraries takes milliseconds: do it again only after an import.
    global _known
    from threadpoolctl import ThreadpoolController

    n_modules = len(sys.modules)
    if _known is None or _known[0] != n_modules:
        _known = (n_modules, ThreadpoolController())
    return _known[1]
