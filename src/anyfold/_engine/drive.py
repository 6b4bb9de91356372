"""The only loop that submits and gathers, the same for every backend.

    leaves ──> units ──submit──> executor ═══> worker
                 ▲                               │ started, done, closed   (mailbox)
                 │                               ▼
              the loop <──────── inbox <── future done

`run.py` is the loop, `ledger.py` keeps what has come of it, `supply.py` says what is next, `faults.py`
says who is to blame.
"""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping

from anyfold._engine.events import Event, RunFinished, RunStarted
from anyfold._engine.faults import Blame
from anyfold._engine.journal_file import in_haste
from anyfold._engine.ledger import Ledger
from anyfold._engine.relay import Relay
from anyfold._engine.run import Run
from anyfold._engine.supply import Supply
from anyfold._engine.termination import termination_heard
from anyfold._engine.usage import in_use
from anyfold._plan.prefix import Layout
from anyfold._plan.task import Leaf, Outcome, TaskKey
from anyfold._plan.units import LARGEST_UNIT
from anyfold._worker.capture import routed
from anyfold._worker.execute import Job
from anyfold._worker.threads import limit_caller
from anyfold._worker.tidying import tidied
from anyfold.executors.base import Executor, Shared

__all__ = ["drive", "for_a_step", "in_caller"]


@contextlib.contextmanager
def drive(
    job: Job,
    leaves: Iterable[Leaf],
    n_leaves: int | None,
    *,
    executor: Executor,
    shared_job: Shared[Job],
    n_workers: int,
    rank: Callable[[TaskKey], int],
    relay: Relay,
    layout: Layout | None,
    outcomes: dict[TaskKey, Outcome],
    record: Callable[[Iterable[Outcome]], None] | None = None,
    retries: int,
    time_limit: float | None = None,
    resources: Mapping[str, Mapping[str, float]] | None = None,
    temp_dir: str | None = None,
    largest_unit: int = LARGEST_UNIT,
    has_more: Callable[[], bool] | None = None,
    observe: Callable[[Event], None] = lambda event: None,
) -> Iterator[Run]:
    """Set up a run of leaves on an executor; at the end of the block what still runs is stopped.

    The block goes through the run, to its end or step by step. Outcomes are kept by key as they come.

    Parameters
    ----------
    job : Job
        What all leaves share.
    leaves : iterable of Leaf
        Drawn as needed, in the order in which they should start.
    n_leaves : int or None
        How many there are; None where nobody knows.
    executor : Executor
        Where they run.
    shared_job : Shared
        The job as published for the workers.
    n_workers : int
        How many leaves run at once.
    rank : callable
        The order of the leaves for the caller: 0, 1, 2, …, whatever the order in which they run.
    relay : Relay
        Passes on what leaves have said, by their rank; whoever made it finishes it.
    layout : Layout, optional
        Which leaves have first steps in common.
    outcomes : dict
        Is filled, so that what has finished is there however this ends.
    record : callable, optional
        Is given outcomes before they are counted, all that have arrived in one call.
    retries : int
        How often a leaf is run again whose worker was lost.
    time_limit : float, optional
        Seconds after which this returns with what has finished.
    resources : mapping of str to mapping of str to float, optional
        What the leaves of a model need, for an executor that places tasks by it.
    temp_dir : str, optional
        Where the mailbox may keep a file, on systems where it needs one.
    largest_unit : int
        Leaves that may be submitted together.
    has_more : callable, optional
        Says whether leaves are left to be drawn, where `n_leaves` counts something else.
    observe : callable
        Is told what happens, in this thread.

    Yields
    ------
    Run
        To be used in this thread, inside `in_caller`.
    """
    ledger = Ledger(outcomes, record, observe, rank, relay)
    run = Run(
        job=job,
        supply=Supply(
            iter(leaves),
            sys.maxsize if n_leaves is None else n_leaves,
            resources or {},
            outcomes,
            rank,
            layout,
            most_stems=n_workers + 1,
            cuts_branches=job.isolation == "none",
            asked=has_more,
        ),
        executor=executor,
        shared_job=shared_job,
        n_workers=n_workers,
        blame=Blame(retries),
        ledger=ledger,
        time_limit=time_limit,
        temp_dir=temp_dir,
        largest_unit=largest_unit,
    )
    if hasattr(signal, "siginterrupt"):
        # Libraries with a handler of their own (polars) leave it so that Ctrl-C ends no wait for a lock.
        signal.siginterrupt(signal.SIGINT, True)
    n_taken = len(outcomes)
    try:
        observe(RunStarted(n_leaves, n_workers, n_taken))
        run.begin()
        with _settled(run), in_use(executor), run.listening():
            yield run
    finally:
        observe(RunFinished())


@contextlib.contextmanager
def _settled(run: Run) -> Iterator[None]:
    """Record and tell what has finished, however the block ends, and once more where Ctrl-C stops that."""
    try:
        try:
            yield
        except KeyboardInterrupt:
            raise
        except BaseException:
            run.settle()
            raise
        else:
            run.settle()
    except KeyboardInterrupt:
        if run.job.isolation == "process":
            run.ledger.forget_interrupted()
        with in_haste():
            run.settle()
        raise


@contextlib.contextmanager
def in_caller(job: Job) -> Iterator[None]:
    """Have the caller's process be a worker's, and put it back afterwards, where tasks share it.

    In threads the tasks would see to it themselves, one by one; in a block around the whole run, what they
    leave behind is put back too.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(termination_heard())
        if job.isolation != "process":
            stack.enter_context(limit_caller(job.inner_threads))
            stack.enter_context(routed(job.ears, own_process=False))
        if job.isolation == "thread":  # elsewhere it is done after each task
            stack.enter_context(tidied())
        yield


@contextlib.contextmanager
def for_a_step(job: Job) -> Iterator[None]:
    """Be `in_caller` for one step of a run, between which the process is the caller's."""
    with in_caller(job) if job.isolation == "none" else termination_heard():
        yield
