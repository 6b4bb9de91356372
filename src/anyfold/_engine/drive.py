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
import time
from collections.abc import Callable, Iterable, Iterator, Mapping

from anyfold._engine.events import Event, RunFinished, RunStarted
from anyfold._engine.faults import Blame
from anyfold._engine.ledger import Ledger
from anyfold._engine.relay import Relay
from anyfold._engine.run import Run
from anyfold._engine.supply import Supply
from anyfold._engine.usage import in_use
from anyfold._plan.prefix import Layout
from anyfold._plan.task import Leaf, Outcome, TaskKey
from anyfold._worker.capture import routed
from anyfold._worker.execute import Job
from anyfold._worker.threads import limit_caller
from anyfold._worker.tidying import tidied
from anyfold.executors.base import Executor, Shared

__all__ = ["drive"]


def drive(
    job: Job,
    leaves: Iterable[Leaf],
    n_leaves: int,
    *,
    executor: Executor,
    shared_job: Shared[Job],
    n_workers: int,
    rank: Callable[[TaskKey], int],
    layout: Layout | None,
    outcomes: dict[TaskKey, Outcome],
    record: Callable[[Iterable[Outcome]], None] | None = None,
    retries: int,
    time_limit: float | None = None,
    resources: Mapping[str, Mapping[str, float]] | None = None,
    temp_dir: str | None = None,
    observe: Callable[[Event], None] = lambda event: None,
) -> bool:
    """Run all leaves on an executor; their outcomes are kept by key as they come.

    Parameters
    ----------
    job : Job
        What all leaves share.
    leaves : iterable of Leaf
        Drawn as needed, in the order in which they should start.
    n_leaves : int
        How many there are.
    executor : Executor
        Where they run.
    shared_job : Shared
        The job as published for the workers.
    n_workers : int
        How many leaves run at once.
    rank : callable
        The order of the leaves for the caller: 0, 1, 2, …, whatever the order in which they run.
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
    observe : callable
        Is told what happens, in this thread.

    Returns
    -------
    bool
        Whether time was left.
    """
    relay = Relay(from_processes=job.isolation == "process")
    ledger = Ledger(outcomes, record, observe, rank, relay)
    run = Run(
        job=job,
        supply=Supply(
            iter(leaves), n_leaves, resources or {}, outcomes, rank, layout, most_stems=n_workers + 1
        ),
        executor=executor,
        shared_job=shared_job,
        n_workers=n_workers,
        blame=Blame(retries),
        ledger=ledger,
        deadline=None if time_limit is None else time.monotonic() + time_limit,
        temp_dir=temp_dir,
    )
    if hasattr(signal, "siginterrupt"):
        # Libraries with a handler of their own (polars) leave it so that Ctrl-C ends no wait for a lock.
        signal.siginterrupt(signal.SIGINT, True)
    n_taken = len(outcomes)
    try:
        observe(RunStarted(n_leaves, n_workers, n_taken))
        with in_use(executor), run.listening(), _in_caller(job):
            run.to_the_end()
    except KeyboardInterrupt:
        if job.isolation == "process":
            ledger.forget_interrupted()
        raise
    finally:
        try:
            run.settle()
            relay.finish()
        finally:
            observe(RunFinished())
    return not run.out_of_time


@contextlib.contextmanager
def _in_caller(job: Job) -> Iterator[None]:
    """Limit threads and route warnings once for the run where tasks share the caller's process."""
    if job.isolation == "process":
        yield
    else:
        streams = job.isolation == "thread"  # else the output is in order as it is
        with (
            limit_caller(job.inner_threads),
            routed(job.ears, own_process=False, streams=streams),
            tidied(),
        ):
            yield
