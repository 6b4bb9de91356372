"""What every front door does between its arguments and its result.

settings ──> executor ──> publish the job ──> drive ──> outcomes, warnings issued again
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import sklearn

from anyfold._engine.drive import drive
from anyfold._engine.events import progress_observer
from anyfold._engine.relay import issue_warnings
from anyfold._engine.sharing import Direct, share
from anyfold._plan.task import Leaf, Outcome, TaskKey
from anyfold._worker.capture import current_filters
from anyfold._worker.execute import Job, Work, inside_worker
from anyfold.errors import UnsupportedFeatureError
from anyfold.executors.base import Executor, Shared, isolation_of
from anyfold.settings import Resolved, effective_n_jobs

__all__ = ["RunRecord", "Workers", "open_workers", "run_work"]


@dataclass(frozen=True, slots=True)
class Workers:
    """Where a run takes place."""

    executor: Executor
    backend: str
    n_workers: int
    temp_dir: str | None


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What a run came to."""

    outcomes: dict[TaskKey, Outcome]
    wall_time: float
    """Seconds."""


@contextlib.contextmanager
def open_workers(settings: Resolved) -> Iterator[Workers]:
    """Find the executor that the settings name; one of the user's stays open afterwards."""
    from anyfold.executors._warm import borrow
    from anyfold.executors.adapter import as_executor

    temp_dir = None if settings.temp_dir is None else str(settings.temp_dir)
    backend = settings.backend
    if inside_worker() and settings.sources["backend"] not in ("argument", "config_context"):
        backend = "serial"  # a run inside a task shares the task's cores unless it is told otherwise
    if not isinstance(backend, str):
        executor = as_executor(backend)
        yield _checked(Workers(executor, type(backend).__name__, _width(executor), temp_dir), settings)
        return
    with borrow(backend, settings.n_jobs, settings.backend_options, settings.start_method) as executor:
        yield _checked(Workers(executor, backend, _width(executor), temp_dir), settings)


def _width(executor: Executor) -> int:
    width: int | None = getattr(executor, "max_workers", None)
    return effective_n_jobs(None) if width is None else width


def _checked(workers: Workers, settings: Resolved) -> Workers:
    if getattr(workers.executor, "start_method", None) == "fork" and settings.inner_threads > 1:
        raise UnsupportedFeatureError(
            f"inner_threads={settings.inner_threads} with start method 'fork': OpenMP hangs in a forked "
            "process whose parent has used it. Choose start method 'forkserver' or 'spawn', or inner_threads=1"
        )
    return workers


def run_work(
    work: Work,
    leaves: Iterable[Leaf],
    n_leaves: int,
    *,
    workers: Workers,
    settings: Resolved,
    root_seed: int,
    stop_on_failure: bool,
    in_order: Callable[[dict[TaskKey, Outcome]], Iterable[Outcome]],
) -> RunRecord:
    """Run the leaves of some work and issue the warnings of its tasks in task order."""
    started = time.perf_counter()
    isolation = isolation_of(workers.executor)
    job = Job(
        work=work,
        root_seed=root_seed,
        isolation=isolation,
        n_workers=workers.n_workers,
        inner_threads=settings.inner_threads,
        sklearn_config=sklearn.get_config(),
        warning_filters=current_filters(),
    )
    # In the caller's own process the models are used as they are: each task works on a clone.
    shared: Shared[Job] = (
        share(workers.executor, job, workers.temp_dir) if isolation == "process" else Direct(job)
    )
    try:
        outcomes = drive(
            job,
            leaves,
            n_leaves,
            executor=workers.executor,
            shared_job=shared,
            n_workers=workers.n_workers,
            retries=settings.retries,
            stop_on_failure=stop_on_failure,
            temp_dir=workers.temp_dir,
            observe=progress_observer(settings.progress),
        )
    finally:
        shared.release()
    issue_warnings(in_order(outcomes))
    return RunRecord(outcomes, time.perf_counter() - started)
