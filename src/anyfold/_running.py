"""Runs prepared work to its end: publishes it, drives it, and issues its warnings again.

prepare(workers) ──> work and leaves ──> drive ──> outcomes ──> warnings
"""

from __future__ import annotations

import contextlib
import os
import secrets
import warnings
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import sklearn

from anyfold._engine.drive import drive, in_caller
from anyfold._engine.events import Event, observer
from anyfold._engine.progress import Bar, progress_bar
from anyfold._engine.relay import Relay, issue_warnings
from anyfold._engine.run import Run
from anyfold._engine.sharing import Direct, share
from anyfold._plan.pickling import culprit_in_models
from anyfold._plan.prefix import Layout
from anyfold._plan.task import Leaf, Outcome, TaskKey
from anyfold._plan.units import LARGEST_UNIT
from anyfold._session import Workers, unpicklable
from anyfold._worker.capture import Ears, the_callers_ears
from anyfold._worker.execute import Job, Work, depth, inside_worker
from anyfold._worker.kept_steps import forget_steps
from anyfold.errors import AnyfoldWarning, UnpicklableModelError
from anyfold.executors.base import Shared, isolation_of
from anyfold.settings import Resolved

__all__ = ["Prepared", "Surroundings", "Terms", "run_work", "working"]


@dataclass(frozen=True, slots=True)
class Prepared:
    """Work as it is to be done on certain workers."""

    work: Work
    leaves: Iterable[Leaf]
    """Drawn as needed, in the order in which they should start."""
    n_leaves: int | None
    """None where nobody knows."""
    layout: Layout | None = None
    largest_unit: int = LARGEST_UNIT


@dataclass(frozen=True, slots=True)
class Terms:
    """What a run has besides the work and the workers."""

    settings: Resolved
    root_seed: int
    stop_on_failure: bool
    outcomes: dict[TaskKey, Outcome]
    """Fills as they come, whatever ends the run."""
    record: Callable[[Iterable[Outcome]], None] | None
    """Is given each before it is counted."""
    rank: Callable[[TaskKey], int]
    """In which order the caller hears what tasks say."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the tasks of a run take over from the thread that asked for it."""

    sklearn_config: Mapping[str, Any]
    ears: Ears
    depth: int

    @classmethod
    def of_this_thread(cls) -> Surroundings:
        """Return what holds here and now."""
        return cls(sklearn.get_config(), the_callers_ears(), depth())


def run_work(
    prepare: Callable[[Workers], Prepared],
    *,
    workers: Workers,
    settings: Resolved,
    root_seed: int,
    stop_on_failure: bool,
    outcomes: dict[TaskKey, Outcome],
    record: Callable[[Iterable[Outcome]], None] | None,
    rank: Mapping[TaskKey, int],
    returns_partly: bool = True,
) -> None:
    """Run the leaves of some work; `outcomes` fills as they come, whatever ends the run.

    What to do is asked when it is known where; twice, where work begins in the caller and may go on
    elsewhere. Each outcome is passed to `record` before it is counted. What tasks say is passed on in the
    order of `rank`, which has all of them, those among the outcomes included; and so are their warnings,
    at the end. A time limit ends it with a warning, unless the caller makes an error of what is missing.
    """
    n_before = len(outcomes)
    order = _without(outcomes, rank)
    terms = Terms(settings, root_seed, stop_on_failure, outcomes, record, order.__getitem__)
    out_of_time = False
    if workers.choice is not None:
        from anyfold._auto import Auto

        Auto(prepare, workers, workers.choice, terms, len(order)).run()
    else:
        with working(prepare(workers), terms, workers=workers) as run, in_caller(run.job):
            run.to_the_end()
        out_of_time = run.out_of_time
    issue_warnings(outcomes[key] for key in sorted(outcomes, key=rank.__getitem__))
    if out_of_time and returns_partly:
        warnings.warn(
            f"time_limit={settings.time_limit:g} seconds were over when {len(outcomes) - n_before} of "
            f"{len(order)} tasks had finished; result.missing names the others",
            AnyfoldWarning,
            stacklevel=3,
        )


@contextlib.contextmanager
def working(
    prepared: Prepared,
    terms: Terms,
    *,
    workers: Workers,
    surroundings: Surroundings | None = None,
    relay: Relay | None = None,
    observe: Callable[[Event], None] | None = None,
    has_more: Callable[[], bool] | None = None,
    keeps_data: bool = True,
) -> Iterator[Run]:
    """Publish some work and set up its run, for a block that goes through it inside `in_caller`.

    What is given beyond the workers has an owner who sees to it: two runs share it.
    """
    settings = terms.settings
    isolation = isolation_of(workers.executor)
    caller = surroundings or Surroundings.of_this_thread()
    job = Job(
        identity=secrets.token_hex(8),
        work=prepared.work,
        root_seed=terms.root_seed,
        isolation=isolation,
        n_workers=workers.n_workers,
        timeout=settings.timeout,
        stop_on_failure=terms.stop_on_failure,
        inner_threads=settings.inner_threads,
        sklearn_config=caller.sklearn_config,
        ears=caller.ears,
        caller=os.getpid(),
        depth=caller.depth,
        keeps_data=keeps_data,
        is_live=isolation == "none" and relay is None,
    )
    bar = Bar()
    if observe is None:
        known = terms.outcomes.values()
        bar = progress_bar(settings.progress, known, in_processes=isolation == "process")
        observe = observer([*settings.callbacks, bar])
    own_relay = None
    if relay is None:
        relay = own_relay = Relay(prints=not job.is_live)
    # In the caller's own process the models are used as they are: each task works on a clone.
    shared: Shared[Job] = _published(job, workers) if isolation == "process" else Direct(job)
    try:
        with drive(
            job,
            prepared.leaves,
            prepared.n_leaves,
            executor=workers.executor,
            shared_job=shared,
            n_workers=workers.n_workers,
            rank=terms.rank,
            relay=relay,
            layout=prepared.layout,
            outcomes=terms.outcomes,
            record=terms.record,
            retries=settings.retries,
            time_limit=settings.time_limit,
            temp_dir=workers.temp_dir,
            resources=settings.resources,
            largest_unit=prepared.largest_unit,
            has_more=has_more,
            observe=observe,
        ) as run:
            run.bar = bar
            yield run
    finally:
        shared.release()
        if isolation != "process" and not inside_worker():  # the run that this one is inside of goes on
            forget_steps()
        if own_relay is not None:
            own_relay.finish()


def _without(done: Container[TaskKey], rank: Mapping[TaskKey, int]) -> dict[TaskKey, int]:
    left = (key for key in sorted(rank, key=rank.__getitem__) if key not in done)
    return {key: position for position, key in enumerate(left)}


def _published(job: Job, workers: Workers) -> Shared[Job]:
    """Publish a job; where that fails since something cannot be pickled, say what."""
    try:
        return share(workers.executor, job, workers.temp_dir)
    except Exception as error:
        culprit = culprit_in_models(getattr(job.work, "models", {}))
        if culprit is None:
            raise
        raise UnpicklableModelError(
            f"{unpicklable(culprit, workers, error)}. Backends 'serial' and 'threads' need not send models"
        ) from error
