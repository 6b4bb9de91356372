"""anyfold as a backend of joblib's.

the caller's thread                       a thread for each call of Parallel
-------------------                       ----------------------------------
start_call ── workers are found ────────> the engine's loop
submit ────── a batch is a leaf ────────> waits for what happens
callback <─────────────────────────────── an outcome
stop_call ──────────────────────────────> ends; what still runs is stopped
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from joblib.parallel import AutoBatchingMixin, FallbackToBackend, ParallelBackendBase, SequentialBackend

from anyfold._joblib_call import Answer, Call, HeldWorkers
from anyfold._session import refuse_journal
from anyfold.errors import InvalidSettingError
from anyfold.executors.base import Executor, isolation_of
from anyfold.settings import Resolved, effective_n_jobs, resolve

__all__ = ["AnyfoldBackend"]

LOCAL = ("auto", "threads", "processes", "multiprocessing", "loky")
JOBLIB_S_OWN = ("context", "mmap_mode", "prefer", "require", "temp_folder", "verbose")
"""What joblib gives to every backend and concerns others only."""


class AnyfoldBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]
    """Runs what joblib is given on any executor of anyfold.

    Parameters
    ----------
    nesting_level : int, optional
        joblib's.
    inner_max_num_threads : int, optional
        joblib's name for ``inner_threads``.
    executor : str or Executor, optional
        What ``backend`` is elsewhere in anyfold.
    **settings : object
        Settings of anyfold, but ``n_jobs``, which is joblib's.
    """

    supports_retrieve_callback = True
    supports_inner_max_num_threads = True
    default_n_jobs = -1

    def __init__(
        self,
        nesting_level: int | None = None,
        inner_max_num_threads: int | None = None,
        executor: str | Executor | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(nesting_level=nesting_level, inner_max_num_threads=inner_max_num_threads)
        self._given = {**settings, **({} if executor is None else {"backend": executor})}
        self._is_own = False
        self.parallel: Any = None
        self._call: Call | None = None
        self._settings = self._resolved({})
        self._width: int | None = None
        self._max_nbytes: int | None = None
        self._held = HeldWorkers()
        shares = self._settings.backend in ("serial", "threads")
        self.uses_threads = self.supports_sharedmem = shares or _isolation(self._settings) != "process"

    def _resolved(self, more: dict[str, Any]) -> Resolved:
        given = {**self._given, **more}
        if self.inner_max_num_threads is not None:
            given.setdefault("inner_threads", self.inner_max_num_threads)
        settings = resolve(given, caller="joblib.parallel_config")
        if settings.backend == "joblib":
            raise InvalidSettingError(
                "executor='joblib' runs on the active backend of joblib, which is this one: name another"
            )
        refuse_journal(settings, "what joblib is given has no journal")
        return settings

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Return how many workers a value of ``n_jobs`` means on this executor."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        backend = self._settings.backend
        wanted = self._settings.n_jobs if n_jobs in (None, -1) else n_jobs
        if backend == "serial":
            return 1
        if isinstance(backend, str) and (backend in LOCAL or (wanted is not None and wanted > 0)):
            return effective_n_jobs(wanted)
        if self._width is None:
            with self._held.workers(self._settings) as workers:
                self._width = workers.n_workers
        return min(wanted, self._width) if wanted is not None and wanted > 0 else self._width

    def configure(
        self, n_jobs: int = 1, parallel: Any = None, max_nbytes: int | None = None, **options: Any
    ) -> int:
        """Get ready for calls of one `joblib.Parallel`; each has a backend of its own."""
        if not self._is_own:
            own = copy.copy(self)
            own._is_own = True
            raise FallbackToBackend(own)
        self.parallel, self._max_nbytes = parallel, max_nbytes
        own_options = {name: value for name, value in options.items() if name not in JOBLIB_S_OWN}
        if "executor" in own_options:
            own_options["backend"] = own_options.pop("executor")
        self._given.update(own_options)
        self._settings = self._resolved({})
        width = self.effective_n_jobs(n_jobs)
        if width == 1 and isinstance(self._settings.backend, str):
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        if isinstance(self._settings.backend, str) and n_jobs not in (None, -1):
            self._settings = self._resolved({"n_jobs": width})
        return width

    def get_nested_backend(self) -> tuple[Any, int | None]:
        """Return what runs calls of joblib inside of tasks."""
        return SequentialBackend(nesting_level=(self.nesting_level or 0) + 1), None

    def start_call(self) -> None:
        """Find the workers and start the loop."""
        self._call = Call(self._settings, self._held, self._max_nbytes)

    def submit(self, func: Any, callback: Callable[[Answer], object] | None = None) -> Any:
        """Hand a batch of calls over to the loop, whose thread calls back."""
        assert self._call is not None
        return self._call.submit(func, callback or (lambda answer: None))

    def retrieve_result_callback(self, out: Answer) -> Any:
        """Return what a batch came to, or raise."""
        value, error = out
        if error is not None:
            raise error
        return value

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Stop what runs, without waiting for what cannot be stopped."""
        call, self._call = self._call, None
        if call is not None:
            call.close(aborted=True)

    def terminate(self) -> None:
        """Forget the `joblib.Parallel`, which knows this backend."""
        self.parallel = None

    def stop_call(self) -> None:
        """End the loop and let go of the workers, which may stay warm."""
        call, self._call = self._call, None
        if call is not None:
            call.close()


def _isolation(settings: Resolved) -> str:
    return "process" if isinstance(settings.backend, str) else isolation_of(settings.backend)
