"""anyfold as a backend of joblib's.

the caller's thread                       a thread for each call of Parallel
-------------------                       ----------------------------------
start_call ── workers are found ────────> the engine's loop
submit ────── a batch is a leaf ────────> waits for what happens
callback <─────────────────────────────── an outcome
stop_call ──────────────────────────────> ends; what still runs is stopped
"""

from __future__ import annotations

import contextvars
import copy
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import sklearn
from joblib.parallel import AutoBatchingMixin, FallbackToBackend, ParallelBackendBase, SequentialBackend

from anyfold._data.kinds import is_guardable
from anyfold._data.serialize import dumps
from anyfold._data.sizes import nbytes_of
from anyfold._engine.drive import in_caller
from anyfold._engine.run import Run
from anyfold._engine.sharing import share
from anyfold._mapping import Told, index_of, values_of
from anyfold._plan.groups import BatchKey, Group
from anyfold._plan.seeds import root_seed
from anyfold._plan.task import Leaf, Outcome, TaskKey
from anyfold._session import Workers, open_workers, working
from anyfold._worker.batches import Common, run_batch
from anyfold._worker.mapping import Kept, Mapped
from anyfold.errors import AnyfoldError, InvalidSettingError, TimeLimitError, UnsupportedFeatureError
from anyfold.executors.base import Executor, Shared, isolation_of
from anyfold.settings import Resolved, effective_n_jobs, resolve

__all__ = ["AnyfoldBackend"]

LOCAL = ("threads", "processes", "multiprocessing", "loky")
JOBLIB_S_OWN = ("context", "max_nbytes", "mmap_mode", "prefer", "require", "temp_folder", "verbose")
"""What joblib gives to every backend and concerns others only."""

LARGE = 1 << 16
"""Bytes from which on an argument is published when it comes for the second time."""

Answer = tuple[Any, BaseException | None]


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
        self._call: _Call | None = None
        self._settings = self._resolved({})
        self._width: int | None = None
        self._held = _Held()
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
        if settings.journal is not None:
            raise UnsupportedFeatureError(
                f"journal={str(settings.journal)!r} (from {settings.sources['journal']}): what joblib is "
                "given has no journal; pass journal=None"
            )
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

    def configure(self, n_jobs: int = 1, parallel: Any = None, **options: Any) -> int:
        """Get ready for calls of one `joblib.Parallel`; each has a backend of its own."""
        if not self._is_own:
            own = copy.copy(self)
            own._is_own = True
            raise FallbackToBackend(own)
        self.parallel = parallel
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
        self._call = _Call(self._settings, self._held)

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


class _Held:
    """Keeps workers that do not stay warm by themselves, for the calls of one backend, while that lives."""

    def __init__(self) -> None:
        self._settings: Resolved | None = None
        self._workers: Workers | None = None
        self._close: Callable[[], object] = lambda: None

    @contextmanager
    def workers(self, settings: Resolved) -> Iterator[Workers]:
        """Lend workers to one call."""
        if self._workers is not None and self._are_for(settings):
            yield self._workers
            return
        self._close()
        self._workers = None
        with ExitStack() as stack:
            workers = stack.enter_context(open_workers(settings))
            executor = workers.executor
            is_ours = isinstance(settings.backend, str) and isolation_of(executor) == "process"
            if is_ours and not getattr(executor, "keep_warm", True):
                self._settings, self._workers = settings, workers
                self._close = weakref.finalize(self, stack.pop_all().close)
            yield workers

    def _are_for(self, settings: Resolved) -> bool:
        known = self._settings
        return (
            known is not None
            and not getattr(self._workers and self._workers.executor, "closed", False)
            and known.backend == settings.backend
            and known.n_jobs == settings.n_jobs
            and known.backend_options == settings.backend_options
        )


class _Call:
    """One call of `joblib.Parallel`: its workers, and the loop in a thread."""

    def __init__(self, settings: Resolved, held: _Held) -> None:
        self._settings = settings
        self._stack = ExitStack()
        self._workers = self._stack.enter_context(held.workers(settings))
        self._pending: dict[int, Callable[[Answer], object]] = {}
        self._told = Told()
        isolation = isolation_of(self._workers.executor)
        kept: Kept | None = None if isolation == "process" else {}
        self._arguments = None if kept is not None else _Arguments(self._workers)
        self._batches: deque[Leaf] = deque()
        self._outcomes = _Outcomes(self._pending, self._told, kept)
        self._n_submitted = 0
        self._run: Run | None = None
        self._ended: BaseException | None = None
        self._closing = False
        self._lock = threading.Lock()
        seed = settings.random_state
        root = root_seed(seed)
        work = Mapped(run_batch, False, None if seed is None else root, isolation, os.getpid(), kept)
        context = contextvars.copy_context()
        self._thread = threading.Thread(
            target=context.run,
            args=(self._serve, work, root, sklearn.get_config()),
            name="anyfold-joblib",
            daemon=True,
        )
        self._thread.start()

    def submit(self, batch: Any, callback: Callable[[Answer], object]) -> int:
        """Have a batch run and the callback called with its answer."""
        number, self._n_submitted = self._n_submitted, self._n_submitted + 1
        pack = None if self._arguments is None else self._arguments.packed
        try:
            leaf = Group.of(BatchKey(_name_of(batch), 1, number), [batch], pack)
        except Exception as error:
            callback((None, error))
            return number
        with self._lock:
            ended = self._ended
            if ended is None:
                self._pending[number] = callback
                self._batches.append(leaf)
                if self._run is not None:
                    self._run.wake()
        if ended is not None:
            callback((None, ended))
        return number

    def close(self, *, aborted: bool = False) -> None:
        """Stop what still runs, end the loop and let go of the workers."""
        self._closing = True
        with self._lock:
            if self._run is not None:
                self._run.wake()
        self._thread.join()
        if self._arguments is not None:
            self._arguments.release()
        # Threads cannot be stopped; nobody shall wait for them who has given up.
        if aborted and isolation_of(self._workers.executor) == "thread":
            error = AnyfoldError("the call was aborted")
            self._stack.__exit__(AnyfoldError, error, None)
        else:
            self._stack.close()
        self._told.issue()

    def _serve(self, work: Mapped, root: int, config: dict[str, Any]) -> None:
        try:
            with (
                sklearn.config_context(**config),
                working(
                    work,
                    _Drawn(self._batches),
                    None,
                    workers=self._workers,
                    settings=self._settings,
                    root_seed=root,
                    stop_on_failure=False,
                    outcomes=self._outcomes,
                    record=None,
                    rank=index_of,
                    largest_unit=1,
                    keeps_data=False,
                ) as run,
                in_caller(run.job),
            ):
                with self._lock:
                    self._run = run
                run.fill_window()
                while not self._closing and run.advance():
                    run.fail_the_rest()
                if run.out_of_time:
                    raise TimeLimitError(f"time_limit={self._settings.time_limit:g} seconds were over")
        except BaseException as error:
            self._end(error)
        else:
            self._end(AnyfoldError("the call of joblib.Parallel has ended"))

    def _end(self, error: BaseException) -> None:
        with self._lock:
            self._ended, self._run = error, None
            pending = list(self._pending.values())
            self._pending.clear()
        for callback in pending:
            callback((None, error))


class _Drawn:
    """Gives what there is now; there may be more later."""

    def __init__(self, batches: deque[Leaf]) -> None:
        self._batches = batches

    def __iter__(self) -> Iterator[Leaf]:
        return self

    def __next__(self) -> Leaf:
        try:
            return self._batches.popleft()
        except IndexError:
            raise StopIteration from None


class _Outcomes(dict[TaskKey, Outcome]):
    """Passes each outcome on to its callback, and keeps none."""

    def __init__(self, pending: dict[int, Callable[[Answer], object]], told: Told, kept: Kept | None) -> None:
        super().__init__()
        self._pending = pending
        self._told = told
        self._kept = kept

    def __contains__(self, key: object) -> bool:
        return isinstance(key, TaskKey) and key.fold not in self._pending

    def __setitem__(self, key: TaskKey, outcome: Outcome) -> None:
        callback = self._pending.pop(key.fold, None)
        if callback is None:
            return
        self._told.take(outcome)
        values, error = values_of(outcome, self._kept)
        callback((values[0] if error is None else None, error))


class _Arguments:
    """Sends batches of calls; large data that several calls have in common only once."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._seen: dict[int, Any] = {}
        """Weak references by id."""
        self._known: dict[int, tuple[Any, Any]] = {}
        """By id: an object, and what is sent in its place."""
        self._shared: list[Shared[Any]] = []

    def packed(self, batches: Sequence[Any]) -> bytes:
        """Pickle batches."""
        return dumps([self._sent(batch) for batch in batches])

    def _sent(self, batch: Any) -> Any:
        sent = copy.copy(batch)
        sent.items = [
            (
                function,
                tuple(map(self._in_place_of, args)),
                {name: self._in_place_of(value) for name, value in kwargs.items()},
            )
            for function, args, kwargs in batch.items
        ]
        return sent

    def _in_place_of(self, value: Any) -> Any:
        if id(value) in self._known:
            return self._known[id(value)][1]
        reference = self._seen.get(id(value))
        if reference is not None and reference() is value:
            stands_for = self._published(value)
            self._known[id(value)] = value, stands_for
            return stands_for
        if _may_be_large(value):
            self._seen[id(value)] = weakref.ref(value)
        return value

    def _published(self, value: Any) -> Any:
        if nbytes_of(value) < LARGE or not is_guardable(value):
            return value
        shared = share(self._workers.executor, value, self._workers.temp_dir)
        self._shared.append(shared)
        return Common(shared)

    def release(self) -> None:
        """Give up what was published."""
        for shared in self._shared:
            shared.release()


def _may_be_large(value: Any) -> bool:
    package = type(value).__module__.partition(".")[0]
    return package in ("numpy", "scipy", "pandas", "polars") and hasattr(value, "shape") and _is_weak(value)


def _is_weak(value: Any) -> bool:
    return hasattr(type(value), "__weakref__") or type(value).__module__ == "numpy"


def _name_of(batch: Any) -> str:
    function = batch.items[0][0]
    function = getattr(function, "function", function)  # scikit-learn's wrapper
    return str(getattr(function, "__name__", type(function).__name__)).strip("_")
