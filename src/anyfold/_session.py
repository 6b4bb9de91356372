"""What every front door does between its arguments and its result.

settings ──> executor ──> publish the job ──> drive ──> outcomes, warnings issued again
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from typing import Any

import sklearn

from anyfold._engine.choose import FIRST_START, WARM_START
from anyfold._engine.journal import Journal
from anyfold._engine.sharing import share
from anyfold._mail.contact import WorkerInfo
from anyfold._plan.content import Conditions
from anyfold._plan.models import near
from anyfold._plan.pickling import culprit_in_model
from anyfold._plan.splitting import Outlook
from anyfold._worker.boot import capture_setup, recalling
from anyfold._worker.capture import the_callers_ears
from anyfold._worker.execute import inside_worker
from anyfold.errors import (
    InvalidInputError,
    InvalidSettingError,
    UnknownBackendError,
    UnpicklableModelError,
    UnsupportedFeatureError,
)
from anyfold.executors.base import Executor, Shared, capabilities_of, isolation_of, require_capability
from anyfold.settings import Resolved, effective_n_jobs

__all__ = [
    "Choice",
    "Workers",
    "check_resources",
    "conditions",
    "expected_workers",
    "open_journal",
    "open_workers",
    "refuse_journal",
    "share_data",
    "share_model",
    "unpicklable",
]

STOPPABLE = ("multiprocessing", "processes", "loky", "joblib with one of these", "dask", "ray")
"""Backends of anyfold whose running work can be stopped."""


@dataclass(frozen=True, slots=True)
class Workers:
    """Where a run takes place."""

    executor: Executor
    backend: str
    n_workers: int
    temp_dir: str | None
    reason: str | None = None
    """Why it takes place there, where that was anyfold's choice."""
    choice: Choice | None = None
    """Where it may go on, if it begins here."""

    @property
    def ran_on(self) -> str:
        """The name of the backend that tasks ran on; of both, the one with workers."""
        return self.backend if self.choice is None else self.choice.ran_on

    @property
    def most_workers(self) -> int:
        """How many tasks may run at once."""
        if self.choice is None or self.choice.ran_on == self.backend:
            return self.n_workers
        return self.choice.n_workers

    @property
    def may_be(self) -> int:
        """How many tasks may come to run at once, wherever the run takes place."""
        return self.n_workers if self.choice is None else self.choice.n_workers

    @property
    def why(self) -> str | None:
        """Why tasks ran where they did; None where the caller had decided."""
        return self.reason if self.choice is None else self.choice.why


@dataclass(slots=True)
class Choice:
    """Workers that may be started, and what became of it."""

    lend: Callable[[], contextlib.AbstractContextManager[Workers]]
    """Lends the workers, in whatever thread; they need not have been started."""
    backend: str
    n_workers: int
    start_seconds: float
    """Until the first of them would be ready."""
    n_here: int = 0
    """Tasks that ran in the calling process."""
    n_there: int = 0
    """Tasks that ran on workers."""
    why_not: str | None = None
    """Why tasks could not be given to workers."""

    def started_in(self, seconds: float) -> None:
        """Remember how long workers took to be ready."""
        if self.start_seconds > WARM_START:
            _start_seconds[self.backend] = seconds
            self.start_seconds = WARM_START

    def note(self, n_here: int, n_there: int, why_not: str | None) -> None:
        """Note how many tasks of a run were begun where."""
        self.n_here += n_here
        self.n_there += n_there
        self.why_not = why_not

    @property
    def ran_on(self) -> str:
        """The backend that tasks ran on."""
        return self.backend if self.n_there else "serial"

    @property
    def why(self) -> str:
        """Where tasks ran, and why."""
        if self.n_there:
            return (
                f"{self.n_here} of {self.n_here + self.n_there} tasks ran in the calling process, the others "
                f"on {self.n_workers} workers of {self.backend!r}"
            )
        because = self.why_not or f"less was left than workers take to start, {self.start_seconds:.2g} s"
        return f"all tasks ran in the calling process: {because}"


_start_seconds: dict[str, float] = {}
"""What a start of workers took in this process, by backend."""


@contextlib.contextmanager
def open_workers(settings: Resolved, *, may_move: bool = False) -> Iterator[Workers]:
    """Find the executor that the settings name; one of the user's stays open afterwards.

    With the backend ``"auto"`` work begins in the caller if it may move to workers later.
    """
    from anyfold.executors.adapter import as_executor

    temp_dir = None if settings.temp_dir is None else str(settings.temp_dir)
    backend = _backend(settings)
    if backend == "auto":
        with _chosen_workers(settings, temp_dir, may_move=may_move) as workers:
            yield workers
        return
    if not isinstance(backend, str):
        executor = as_executor(backend)
        yield _checked(Workers(executor, type(backend).__name__, _width(executor), temp_dir), settings)
        return
    with _lent(backend, settings, temp_dir) as workers:
        yield workers


@contextlib.contextmanager
def _chosen_workers(settings: Resolved, temp_dir: str | None, *, may_move: bool) -> Iterator[Workers]:
    from anyfold.executors.serial import SerialExecutor

    if settings.backend_options:
        raise InvalidSettingError(
            f"backend_options={dict(settings.backend_options)!r} (from "
            f"{settings.sources['backend_options']}): the backend 'auto' has none; name the backend that "
            "they are for"
        )
    is_limited = settings.timeout is not None or settings.time_limit is not None
    n_jobs = effective_n_jobs(settings.n_jobs)
    here = Workers(SerialExecutor(), "serial", 1, temp_dir)
    backend, is_warm = _with_workers(settings)
    if n_jobs == 1 and not is_limited:
        yield _checked(replace(here, reason="one worker is all there may be"), settings)
    elif is_limited or settings.journal or settings.resources or not may_move or backend == "threads":
        reason = "this kind of work does not move"
        if is_limited:
            reason = "timeout= and time_limit= need workers that can be stopped"
        elif settings.journal:
            reason = "what has a journal shall outlive a model that ends its process"
        with _lent(backend, settings, temp_dir) as workers:
            yield replace(workers, reason=reason)
    else:
        setup = capture_setup(kill_with_parent_thread=False)

        @contextlib.contextmanager
        def lend() -> Iterator[Workers]:
            with contextlib.ExitStack() as stack:
                with recalling(setup):
                    workers = stack.enter_context(_lent(backend, settings, temp_dir))
                yield workers

        seconds = WARM_START if is_warm else _start_seconds.get(backend, FIRST_START)
        yield replace(here, choice=Choice(lend, backend, n_jobs, seconds))


@contextlib.contextmanager
def _lent(backend: str, settings: Resolved, temp_dir: str | None) -> Iterator[Workers]:
    from anyfold.executors._warm import borrow

    with borrow(backend, settings.n_jobs, settings.backend_options, settings.start_method) as executor:
        yield _checked(Workers(executor, backend, _width(executor), temp_dir), settings)


def _with_workers(settings: Resolved) -> tuple[str, bool]:
    """Return the backend whose workers are there, or else the one that starts best, and which it is."""
    from anyfold.executors._warm import is_warm

    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        return "threads", True
    names = ("multiprocessing", "loky", "processes")
    warm = (name for name in names if is_warm(name, settings.n_jobs, {}, settings.start_method))
    found = next(warm, None)
    return found or names[0], found is not None


def expected_workers(settings: Resolved) -> Outlook:
    """Say what `open_workers` would find, without starting anything."""
    from anyfold.executors._expected import ExpectedWorkers
    from anyfold.executors.adapter import as_executor

    backend = _backend(settings)
    if backend == "auto":
        backend, _ = _with_workers(settings)
    if not isinstance(backend, str):
        width = _width(as_executor(backend))
        return Outlook(lambda: width, lambda: True)
    expected = ExpectedWorkers(backend, settings.n_jobs, settings.backend_options, settings.start_method)
    return Outlook(expected.count, expected.are_there, takes_long=expected.is_elsewhere)


def _backend(settings: Resolved) -> Any:
    """Return the name of a backend that exists, or an executor of the user's."""
    from anyfold.executors.registry import find_backend

    backend = settings.backend
    if inside_worker() and settings.sources["backend"] not in ("argument", "config_context"):
        return "serial"  # a run inside a task shares the task's cores unless it is told otherwise
    if backend == "auto":
        return "serial" if inside_worker() else "auto"
    if isinstance(backend, str):
        try:
            find_backend(backend)
        except UnknownBackendError as error:
            if (source := settings.sources["backend"]) == "argument":
                raise
            raise UnknownBackendError(f"backend from {source}: {error}") from None
    return backend


def _width(executor: Executor) -> int:
    width: int | None = getattr(executor, "max_workers", None)
    return effective_n_jobs(None) if width is None else width


def _checked(workers: Workers, settings: Resolved) -> Workers:
    """Refuse what the executor cannot do, before any work starts."""
    for setting, capability in (("timeout", "healing"), ("time_limit", "stop_running")):
        value = getattr(settings, setting)
        can = isolation_of(workers.executor) == "process" and capability in capabilities_of(workers.executor)
        if value is not None and not can:
            raise UnsupportedFeatureError(
                f"{setting}={value:g}: backend {workers.backend!r} cannot stop work that runs, so that it "
                f"could not be kept. These can: {', '.join(STOPPABLE)}"
            )
    if settings.resources:
        require_capability(workers.executor, "resources", f"resources={dict(settings.resources)!r}")
    if getattr(workers.executor, "start_method", None) == "fork" and settings.inner_threads > 1:
        raise UnsupportedFeatureError(
            f"inner_threads={settings.inner_threads} with start method 'fork': OpenMP hangs in a forked "
            "process whose parent has used it. Choose 'forkserver' or 'spawn', or inner_threads=1"
        )
    return workers


def check_resources(settings: Resolved, models: Collection[str]) -> None:
    """Raise `InvalidInputError` where resources are asked for a model that there is not."""
    for name in settings.resources or {}:
        if name not in models:
            raise InvalidInputError(
                f"resources names {name!r}, which is no model{near(name, models)}: "
                f"the models are {list(models)}"
            )


def refuse_journal(settings: Resolved, why: str) -> None:
    """Refuse the journal that a call is given where it could not keep what the call makes.

    One that a context or a variable names for all calls is meant for those that can keep one.
    """
    if settings.journal is not None and settings.sources["journal"] == "argument":
        raise UnsupportedFeatureError(f"journal={str(settings.journal)!r}: {why}")


@contextlib.contextmanager
def open_journal(settings: Resolved) -> Iterator[Journal | None]:
    """Open the journal that the settings name, if any, for the length of a run."""
    if settings.journal is None:
        yield None
        return
    with Journal(settings.journal, WorkerInfo.of_this_process().versions) as journal:
        yield journal


def conditions(settings: Resolved, root_seed: int, return_train_score: bool) -> Conditions:
    """Return what all numbers of a run depend on."""
    return Conditions(
        root_seed=root_seed,
        inner_threads=settings.inner_threads,
        return_train_score=return_train_score,
        sklearn_config=sklearn.get_config(),
        warning_filters=the_callers_ears().filters,
        versions=WorkerInfo.of_this_process().versions,
    )


def share_data(workers: Workers, data: Any, name: str) -> Shared[Any]:
    """Publish data that a call was given; where that fails since it cannot be pickled, say so."""
    try:
        return share(workers.executor, data, workers.temp_dir)
    except Exception as error:
        raise unpicklable(name, workers, error) from error


def share_model(workers: Workers, model: Any, name: str) -> Shared[Any]:
    """Publish a model; where that fails since something of it cannot be pickled, say what."""
    try:
        return share(workers.executor, model, workers.temp_dir)
    except Exception as error:
        culprit = culprit_in_model(name, model) or f"model {name!r}"
        raise unpicklable(culprit, workers, error) from error


def unpicklable(what: str, workers: Workers, error: Exception) -> UnpicklableModelError:
    return UnpicklableModelError(
        f"{what} cannot be sent to the workers of backend {workers.backend!r}: {error}"
    )
