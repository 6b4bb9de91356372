"""Runs a unit of work on a worker: the same code on every backend.

    run_unit ──> for each leaf:  report "started" ──> run_leaf ──> report "done" with the outcome

What a leaf does is the business of its `Work`; what surrounds it is done here once: thread budget,
scikit-learn's configuration, global generators, warnings, model errors, read-only data, and what a task has
changed in its process.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Protocol, runtime_checkable

from anyfold._data.kinds import is_readonly_error
from anyfold._data.serialize import dumps
from anyfold._data.slices import default_cache_limit, set_cache_limit
from anyfold._mail.evidence import EvidenceAddress
from anyfold._mail.messages import LocalAddress, SocketAddress
from anyfold._mail.reporter import reporter_for
from anyfold._plan.seeds import NESTED, seed_for
from anyfold._plan.task import Failure, FoldScores, Leaf, Outcome, Place, Stage
from anyfold._worker.capture import Ears, routed
from anyfold._worker.failures import failure_of, is_the_callers
from anyfold._worker.kept_steps import forget_steps, set_steps_limit
from anyfold._worker.logging_hook import portable_record
from anyfold._worker.said import Said, recorded
from anyfold._worker.seeding import kept_globals, seed_globals
from anyfold._worker.threads import limit_worker
from anyfold._worker.tidying import Found
from anyfold._worker.watchdog import watched
from anyfold.errors import SharedLost
from anyfold.executors.base import Isolation, Shared

__all__ = [
    "Job",
    "Produced",
    "SharesSteps",
    "StageError",
    "Work",
    "depth",
    "in_stage",
    "inherited_seed",
    "inside_worker",
    "run_stem",
    "run_unit",
    "seeding_runs",
]

Address = LocalAddress | SocketAddress | EvidenceAddress | None


@dataclass(frozen=True, slots=True)
class Produced:
    """What the work of one leaf came to."""

    value: Any
    extras: Mapping[str, Any] | None = None
    """What is asked for by name later, and may be large."""
    failure: Failure | None = None
    """A part that failed while the rest has a value."""
    n_items: int = 1
    parts: tuple[Outcome, ...] = ()
    """As in the outcome."""


class StageError(Exception):
    """A model raised, as the ``__cause__`` of this, in a stage of its work."""

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self.stage = stage


@contextlib.contextmanager
def in_stage(stage: Stage) -> Iterator[None]:
    """Say of what is raised inside in which stage it was; the innermost one counts."""
    try:
        yield
    except StageError:
        raise
    except BaseException as error:
        raise StageError(stage) from error


class Work(Protocol):
    """What the leaves of one run do."""

    def run(self, leaf: Leaf, *, writable: bool) -> Produced:
        """Do one leaf, on read-only data, or with ``writable`` on copies of its own."""
        ...


@runtime_checkable
class SharesSteps(Work, Protocol):
    """Work whose leaves may have first steps in common, which a layout says."""

    def fit_stem(self, leaf: Leaf, depth: int) -> Any:
        """Fit the first steps of a leaf and return what others need of them."""
        ...

    def take_stem(self, fitted: Any) -> None:
        """Take what another worker has fitted."""
        ...


@dataclass(frozen=True, slots=True)
class Job:
    """What all leaves of one run share; published once."""

    identity: str
    """Of this run alone."""
    work: Work
    root_seed: int
    isolation: Isolation
    n_workers: int
    timeout: float | None
    """Seconds that one leaf may take."""
    stop_on_failure: bool
    """Whether nothing more is wanted of a unit once a leaf of it has failed."""
    inner_threads: int
    sklearn_config: Mapping[str, Any]
    ears: Ears
    caller: int
    """Process id of the caller."""
    keeps_data: bool = True
    """Whether workers keep data from task to task, for which they look how much memory there is."""
    depth: int = 0
    """How many runs it is inside of."""
    is_live: bool = False
    """Whether what leaves print is seen at once, without their names."""


_depth: ContextVar[int] = ContextVar("anyfold_depth", default=0)
_seed: ContextVar[int | None] = ContextVar("anyfold_seed", default=None)


def inside_worker() -> bool:
    """Return whether the caller runs inside a task of anyfold, on whatever backend."""
    return _depth.get() > 0


def depth() -> int:
    """Return how many runs of anyfold the caller is inside of."""
    return _depth.get()


@contextlib.contextmanager
def seeding_runs(seed: int | None) -> Iterator[None]:
    """Give runs inside a task their root seed; None has each draw its own."""
    token = _seed.set(seed)
    try:
        yield
    finally:
        _seed.reset(token)


def inherited_seed() -> int | None:
    """Return the root seed of a run inside a task that is given none; None outside of tasks."""
    return _seed.get()


def run_unit(
    shared_job: Shared[Job],
    unit: int,
    leaves: tuple[Leaf, ...],
    address: Address,
    stem: Shared[Any] | None = None,
) -> tuple[int, tuple[tuple[Any, bytes], ...]]:
    """Run the leaves of a unit one after another.

    Returns
    -------
    n_sent : int
        How many outcomes were sent to the mailbox.
    unsent : tuple of (TaskKey, bytes)
        The outcomes that could not be sent, pickled.
    """
    job = _job(shared_job)
    _take(job, stem)
    reporter = reporter_for(address)
    n_sent = 0
    unsent = []
    with _surroundings(job) as found:
        for leaf in leaves:
            if not reporter.started(unit, leaf.key):
                break
            with watched(job.timeout, address, unit):
                outcome = run_leaf(job, leaf, found)
                data = _pickled(outcome)
            if reporter.done(unit, leaf.key, data):
                n_sent += 1
            else:
                unsent.append((leaf.key, data))
            if job.stop_on_failure and outcome.failure is not None:
                break
        reporter.flush()
    return n_sent, tuple(unsent)


def run_stem(
    shared_job: Shared[Job], leaf: Leaf, depth: int, address: Address, stem: Shared[Any] | None
) -> Any:
    """Fit the first steps of a leaf for others; None where these find them in this very process.

    What is said and raised meanwhile is kept with the steps, for the leaves.
    """
    job = _job(shared_job)
    _take(job, stem)
    with (
        _surroundings(job) as found,
        watched(job.timeout, address),
        _heard(job),
        found,
    ):
        _seed_generators(job, leaf)
        fitted = _sharing(job).fit_stem(leaf, depth)
    return fitted if job.isolation == "process" else None


def _job(shared_job: Shared[Job]) -> Job:
    job = shared_job.get()
    if job.isolation == "process" and job.caller == os.getpid():
        job = replace(job, isolation="thread")  # an executor that runs work in the caller's own process
    _settle(job)
    return job


def _take(job: Job, stem: Shared[Any] | None) -> None:
    if stem is not None:
        with contextlib.suppress(SharedLost):  # what is not there is fitted here
            _sharing(job).take_stem(stem.get())


def _sharing(job: Job) -> SharesSteps:
    if not isinstance(job.work, SharesSteps):
        raise TypeError(f"{type(job.work).__name__} has no steps that its leaves could share")
    return job.work


def run_leaf(job: Job, leaf: Leaf, found: Found) -> Outcome:
    """Do one leaf; an error of the model is an outcome, not an exception."""
    started = time.time()
    with seeding_runs(seed_for(job.root_seed, NESTED, leaf.key.fold)), _heard(job) as said:
        produced = _attempt(job, leaf, said, found)
    return _outcome(leaf, produced, said, started)


_settled: str | None = None
_settling = threading.Lock()


def _settle(job: Job) -> None:
    """Share out the memory for what is kept from task to task, once per job and process."""
    global _settled
    with _settling:
        n_tasks = job.n_workers if job.isolation == "thread" else 1
        if _settled == job.identity or (_settled is not None and job.depth > 0 and n_tasks == 1):
            return  # what a run inside of a task keeps is kept beside what that task's run keeps
        if job.keeps_data:
            limit = default_cache_limit(job.n_workers)
            set_cache_limit(limit, n_tasks)
            set_steps_limit(limit, n_tasks)
        forget_steps()
        _settled = job.identity


def _settle_anew_in_child() -> None:
    global _settling
    _settling = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_settle_anew_in_child)


@contextlib.contextmanager
def _surroundings(job: Job) -> Iterator[Found]:
    import sklearn

    token = _depth.set(job.depth + 1)
    try:
        with (
            limit_worker(job.inner_threads, job.isolation),
            sklearn.config_context(**job.sklearn_config),
            routed(job.ears, own_process=job.isolation == "process"),
            contextlib.nullcontext() if job.isolation == "thread" else kept_globals(),
            contextlib.closing(Found(job.isolation)) as found,
        ):
            yield found
    finally:
        _depth.reset(token)


def _heard(job: Job) -> contextlib.AbstractContextManager[Said]:
    return recorded(is_live=job.is_live)


def _attempt(job: Job, leaf: Leaf, said: Said, found: Found) -> Produced:
    for writable in (False, True):
        stage: Stage = "fit"
        try:
            with found:
                _seed_generators(job, leaf)
                return job.work.run(leaf, writable=writable)
        except StageError as wrapped:
            stage, error = wrapped.stage, wrapped.__cause__ or wrapped
        except BaseException as direct:
            error = direct
        try:
            if job.isolation == "none" and is_the_callers(error):
                raise error
            if writable or not is_readonly_error(error):
                return Produced(None, failure=failure_of(stage, error))
        finally:
            del error  # it knows this frame, which would keep whatever the task has used, and its callers
        said.clear()  # the model writes to its data: once more, on copies of its own
    raise AssertionError("unreachable")


def _seed_generators(job: Job, leaf: Leaf) -> None:
    if job.isolation != "thread":
        seed_globals(job.root_seed, leaf.key.fold)


def _outcome(leaf: Leaf, produced: Produced, said: Said, started: float) -> Outcome:
    payload, failure = None, produced.failure
    if produced.extras is not None:
        try:
            payload = dumps(produced.extras)
        except Exception as error:
            failure = failure_of("result", error)
    return Outcome(
        key=leaf.key,
        value=produced.value,
        failure=failure,
        warnings=tuple(said.warnings),
        logs=tuple(said.logs),
        output=tuple(said.output),
        payload=payload,
        place=Place(_host(), os.getpid(), threading.current_thread().name),
        started=started,
        ended=time.time(),
        n_items=produced.n_items,
        parts=produced.parts,
    )


def _pickled(outcome: Outcome) -> bytes:
    if _is_plain(outcome):
        return pickle.dumps(outcome, pickle.HIGHEST_PROTOCOL)  # a quarter of the time
    try:
        return dumps(outcome)
    except Exception as error:
        failure = failure_of("result", error)
    outcome = replace(outcome, logs=tuple(map(portable_record, outcome.logs)))  # they may hold anything
    with contextlib.suppress(Exception):
        return dumps(outcome)
    return dumps(replace(outcome, value=None, warnings=(), payload=None, failure=failure, parts=()))


def _is_plain(outcome: Outcome) -> bool:
    """Return whether there is nothing but numbers of Python's, as most tasks return."""
    value = outcome.value
    if type(value) is not FoldScores or value.train is not None:
        return False
    rest = outcome.failure or outcome.warnings or outcome.logs or outcome.output or outcome.payload
    return not rest and all(type(score) is float for score in value.test.values())


@cache
def _host() -> str:
    return socket.gethostname()
