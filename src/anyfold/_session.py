"""What every front door does between its arguments and its result.

settings ──> executor ──> publish the job ──> drive ──> outcomes, warnings issued again
"""

from __future__ import annotations

import contextlib
import os
import secrets
import warnings
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import sklearn

from anyfold._engine.drive import drive, in_caller
from anyfold._engine.events import observer
from anyfold._engine.journal import Journal
from anyfold._engine.progress import progress_bar
from anyfold._engine.relay import issue_warnings
from anyfold._engine.run import Run
from anyfold._engine.sharing import Direct, share
from anyfold._mail.contact import WorkerInfo
from anyfold._plan.content import Conditions
from anyfold._plan.models import near
from anyfold._plan.pickling import culprit_in_model, culprit_in_models
from anyfold._plan.prefix import Layout
from anyfold._plan.splitting import Outlook
from anyfold._plan.task import Leaf, Outcome, TaskKey
from anyfold._plan.units import LARGEST_UNIT
from anyfold._worker.capture import the_callers_ears
from anyfold._worker.execute import Job, Work, depth, inside_worker
from anyfold._worker.kept_steps import forget_steps
from anyfold.errors import (
    AnyfoldWarning,
    InvalidInputError,
    UnknownBackendError,
    UnpicklableModelError,
    UnsupportedFeatureError,
)
from anyfold.executors.base import Executor, Shared, capabilities_of, isolation_of, require_capability
from anyfold.settings import Resolved, effective_n_jobs

__all__ = [
    "Workers",
    "check_resources",
    "conditions",
    "expected_workers",
    "open_journal",
    "open_workers",
    "refuse_journal",
    "run_work",
    "share_data",
    "share_model",
    "working",
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


@contextlib.contextmanager
def open_workers(settings: Resolved) -> Iterator[Workers]:
    """Find the executor that the settings name; one of the user's stays open afterwards."""
    from anyfold.executors._warm import borrow
    from anyfold.executors.adapter import as_executor

    temp_dir = None if settings.temp_dir is None else str(settings.temp_dir)
    backend = _backend(settings)
    if not isinstance(backend, str):
        executor = as_executor(backend)
        yield _checked(Workers(executor, type(backend).__name__, _width(executor), temp_dir), settings)
        return
    with borrow(backend, settings.n_jobs, settings.backend_options, settings.start_method) as executor:
        yield _checked(Workers(executor, backend, _width(executor), temp_dir), settings)


def expected_workers(settings: Resolved) -> Outlook:
    """Say what `open_workers` would find, without starting anything."""
    from anyfold.executors._expected import ExpectedWorkers
    from anyfold.executors.adapter import as_executor

    backend = _backend(settings)
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


def _without(done: Container[TaskKey], rank: Mapping[TaskKey, int]) -> dict[TaskKey, int]:
    left = (key for key in sorted(rank, key=rank.__getitem__) if key not in done)
    return {key: position for position, key in enumerate(left)}


def share_data(workers: Workers, data: Any, name: str) -> Shared[Any]:
    """Publish data that a call was given; where that fails since it cannot be pickled, say so."""
    try:
        return share(workers.executor, data, workers.temp_dir)
    except Exception as error:
        raise _unpicklable(name, workers, error) from error


def share_model(workers: Workers, model: Any, name: str) -> Shared[Any]:
    """Publish a model; where that fails since something of it cannot be pickled, say what."""
    try:
        return share(workers.executor, model, workers.temp_dir)
    except Exception as error:
        culprit = culprit_in_model(name, model) or f"model {name!r}"
        raise _unpicklable(culprit, workers, error) from error


def _unpicklable(what: str, workers: Workers, error: Exception) -> UnpicklableModelError:
    return UnpicklableModelError(
        f"{what} cannot be sent to the workers of backend {workers.backend!r}: {error}"
    )


def _published(job: Job, workers: Workers) -> Shared[Job]:
    """Publish a job; where that fails since something cannot be pickled, say what."""
    try:
        return share(workers.executor, job, workers.temp_dir)
    except Exception as error:
        culprit = culprit_in_models(getattr(job.work, "models", {}))
        if culprit is None:
            raise
        raise UnpicklableModelError(
            f"{_unpicklable(culprit, workers, error)}. Backends 'serial' and 'threads' need not send models"
        ) from error


def run_work(
    work: Work,
    leaves: Iterable[Leaf],
    n_leaves: int,
    *,
    workers: Workers,
    settings: Resolved,
    root_seed: int,
    stop_on_failure: bool,
    outcomes: dict[TaskKey, Outcome],
    record: Callable[[Iterable[Outcome]], None] | None,
    rank: Mapping[TaskKey, int],
    layout: Layout | None = None,
    largest_unit: int = LARGEST_UNIT,
    returns_partly: bool = True,
) -> None:
    """Run the leaves of some work; `outcomes` fills as they come, whatever ends the run.

    Each is passed to `record` before it is counted. What tasks say is passed on in the order of `rank`,
    which has all of them, those among the outcomes included; and so are their warnings, at the end. A
    time limit ends it with a warning, unless the caller makes an error of what is missing.
    """
    n_before = len(outcomes)
    with (
        working(
            work,
            leaves,
            n_leaves,
            workers=workers,
            settings=settings,
            root_seed=root_seed,
            stop_on_failure=stop_on_failure,
            outcomes=outcomes,
            record=record,
            rank=_without(outcomes, rank).__getitem__,
            layout=layout,
            largest_unit=largest_unit,
        ) as run,
        in_caller(run.job),
    ):
        run.to_the_end()
    issue_warnings(outcomes[key] for key in sorted(outcomes, key=rank.__getitem__))
    n_done = len(outcomes) - n_before
    if run.out_of_time and returns_partly:
        warnings.warn(
            f"time_limit={settings.time_limit:g} seconds were over when {n_done} of {n_leaves} tasks "
            "had finished; result.missing names the others",
            AnyfoldWarning,
            stacklevel=3,
        )


@contextlib.contextmanager
def working(
    work: Work,
    leaves: Iterable[Leaf],
    n_leaves: int | None,
    *,
    workers: Workers,
    settings: Resolved,
    root_seed: int,
    stop_on_failure: bool,
    outcomes: dict[TaskKey, Outcome],
    record: Callable[[Iterable[Outcome]], None] | None,
    rank: Callable[[TaskKey], int],
    layout: Layout | None = None,
    largest_unit: int = LARGEST_UNIT,
    has_more: Callable[[], bool] | None = None,
    keeps_data: bool = True,
) -> Iterator[Run]:
    """Publish some work and set up its run, for a block that goes through it inside `in_caller`."""
    isolation = isolation_of(workers.executor)
    bar = progress_bar(settings.progress, outcomes.values(), in_processes=isolation == "process")
    job = Job(
        identity=secrets.token_hex(8),
        work=work,
        root_seed=root_seed,
        isolation=isolation,
        n_workers=workers.n_workers,
        timeout=settings.timeout,
        stop_on_failure=stop_on_failure,
        inner_threads=settings.inner_threads,
        sklearn_config=sklearn.get_config(),
        ears=the_callers_ears(),
        caller=os.getpid(),
        depth=depth(),
        keeps_data=keeps_data,
    )
    # In the caller's own process the models are used as they are: each task works on a clone.
    shared: Shared[Job] = _published(job, workers) if isolation == "process" else Direct(job)
    try:
        with drive(
            job,
            leaves,
            n_leaves,
            executor=workers.executor,
            shared_job=shared,
            n_workers=workers.n_workers,
            rank=rank,
            layout=layout,
            outcomes=outcomes,
            record=record,
            retries=settings.retries,
            time_limit=settings.time_limit,
            temp_dir=workers.temp_dir,
            resources=settings.resources,
            largest_unit=largest_unit,
            has_more=has_more,
            observe=observer([*settings.callbacks, bar]),
        ) as run:
            run.bar = bar
            yield run
    finally:
        shared.release()
        if isolation != "process" and not inside_worker():  # the run that this one is inside of goes on
            forget_steps()
