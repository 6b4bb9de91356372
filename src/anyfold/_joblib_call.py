"""One call of `joblib.Parallel`: its workers, and the engine's loop in a thread."""

from __future__ import annotations

import contextvars
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import sklearn

from anyfold._engine.drive import in_caller
from anyfold._engine.relay import Told
from anyfold._engine.run import Run
from anyfold._items import index_of, values_of
from anyfold._joblib_arguments import Arguments
from anyfold._plan.groups import BatchKey, Group
from anyfold._plan.seeds import root_seed
from anyfold._plan.task import Leaf, Outcome, TaskKey
from anyfold._running import Prepared, Terms, working
from anyfold._session import Workers, open_workers
from anyfold._worker.batches import run_batch
from anyfold._worker.mapping import Kept, Mapped
from anyfold.errors import AnyfoldError, TimeLimitError
from anyfold.executors.base import isolation_of
from anyfold.settings import Resolved

__all__ = ["Answer", "Call", "HeldWorkers"]

Answer = tuple[Any, BaseException | None]


class HeldWorkers:
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


class Call:
    """One call of `joblib.Parallel`: its workers, and the loop in a thread."""

    def __init__(self, settings: Resolved, held: HeldWorkers, max_nbytes: int | None) -> None:
        self._settings = settings
        self._stack = ExitStack()
        self._workers = self._stack.enter_context(held.workers(settings))
        self._pending: dict[int, Callable[[Answer], object]] = {}
        self._told = Told()
        isolation = isolation_of(self._workers.executor)
        kept: Kept | None = None if isolation == "process" else {}
        self._arguments = None if kept is not None else Arguments(self._workers, max_nbytes)
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
                    Prepared(work, _Drawn(self._batches), None, largest_unit=1),
                    Terms(self._settings, root, False, self._outcomes, None, index_of),
                    workers=self._workers,
                    keeps_data=False,
                ) as run,
                in_caller(run.job),
            ):
                with self._lock:
                    self._run = run
                run.fill_window()
                while not self._closing and run.advance():
                    run.judge.fail_the_rest()
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


def _name_of(batch: Any) -> str:
    function = batch.items[0][0]
    function = getattr(function, "function", function)  # scikit-learn's wrapper
    return str(getattr(function, "__name__", type(function).__name__)).strip("_")
