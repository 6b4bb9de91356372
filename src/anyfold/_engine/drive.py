"""The only loop that submits and gathers, the same for every backend.

    leaves ──> units ──submit──> executor ═══> worker
                 ▲                               │ started, done, closed   (mailbox)
                 │                               ▼
              the loop <──────── inbox <── future done

Everything that happens arrives in one inbox and is handled in this thread: nothing here needs a
lock, and nothing is polled. Between two events the thread sleeps.
"""

from __future__ import annotations

import contextlib
import queue
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import BrokenExecutor, CancelledError, Future
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from typing import Any

from anyfold._data.serialize import loads
from anyfold._engine.events import Event, RunFinished, RunStarted, TaskFinished, TaskStarted
from anyfold._engine.faults import Blame, lost_failure, timeout_failure
from anyfold._engine.relay import Relay
from anyfold._engine.sharing import share
from anyfold._engine.supply import Stem, Supply
from anyfold._engine.usage import in_use, in_use_elsewhere
from anyfold._mail.contact import WorkerInfo
from anyfold._mail.mailbox import LocalMailbox, SocketMailbox
from anyfold._mail.messages import Closed, Contact, Done, Report, Stack, Started
from anyfold._plan.prefix import Layout
from anyfold._plan.task import Failure, Leaf, Outcome, Place, TaskKey
from anyfold._plan.units import unit_size, window_size
from anyfold._worker.capture import routed
from anyfold._worker.execute import Job, run_stem, run_unit
from anyfold._worker.failures import failure_of
from anyfold._worker.threads import limit_caller
from anyfold._worker.tidying import tidied
from anyfold.errors import AnyfoldError, WorkerLostError, WorkerMismatchError, WorkerStartError
from anyfold.executors.base import Executor, Mailbox, Shared, capabilities_of, isolation_of

__all__ = ["drive"]

MOST_UNCOUNTED = 500
"""Outcomes that are recorded at once, where they come faster than they can be."""


@dataclass(frozen=True, slots=True)
class _Finished:
    """The future of a unit is done."""

    unit: int


@dataclass(slots=True)
class _Unit:
    """Leaves that were submitted together and run one after another on one worker."""

    leaves: tuple[Leaf, ...]
    stem: Stem | None = None
    """What is fitted for leaves that wait; such a unit has none of its own."""
    future: Future[Any] | None = None
    running: Leaf | None = None
    worker: int | None = None
    n_mailed: int = 0


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
    run = _Run(
        job=job,
        supply=Supply(
            iter(leaves), n_leaves, resources or {}, outcomes, rank, layout, most_stems=n_workers + 1
        ),
        executor=executor,
        shared_job=shared_job,
        n_workers=n_workers,
        blame=Blame(retries),
        observe=observe,
        outcomes=outcomes,
        record=record,
        relay=Relay(from_processes=job.isolation == "process"),
        deadline=None if time_limit is None else time.monotonic() + time_limit,
        temp_dir=temp_dir,
    )
    observe(RunStarted(n_leaves, n_workers))
    if hasattr(signal, "siginterrupt"):
        # Libraries with a handler of their own (polars) leave it so that Ctrl-C ends no wait for a lock.
        signal.siginterrupt(signal.SIGINT, True)
    try:
        with in_use(executor), run.listening(), _in_caller(job):
            run.to_the_end()
    except KeyboardInterrupt:
        run.forget_interrupted()
        raise
    finally:
        try:
            run.settle()
            run.relay.finish()
        finally:
            observe(RunFinished())
    return not run.out_of_time


def _was_interrupted(outcome: Outcome) -> bool:
    return outcome.failure is not None and outcome.failure.type_name == KeyboardInterrupt.__name__


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


@dataclass(slots=True)
class _Run:
    """The state of one run; used by one thread."""

    job: Job
    supply: Supply
    executor: Executor
    shared_job: Shared[Job]
    n_workers: int
    blame: Blame
    observe: Callable[[Event], None]

    outcomes: dict[TaskKey, Outcome]
    record: Callable[[Iterable[Outcome]], None] | None
    deadline: float | None
    """On the monotonic clock."""
    relay: Relay
    temp_dir: str | None
    uncounted: list[Outcome] = field(default_factory=list)
    """Finished, and not yet recorded and told."""
    waiting: list[int] = field(default_factory=list)
    """Workers that go on when what they have sent is on record."""
    inbox: queue.SimpleQueue[Report | _Finished] = field(default_factory=queue.SimpleQueue)
    mailbox: Mailbox | None = None
    units: dict[int, _Unit] = field(default_factory=dict)
    ids: Iterator[int] = field(default_factory=count)
    finished: deque[int] = field(default_factory=deque)
    attempts: Counter[TaskKey] = field(default_factory=Counter)
    places: dict[Place | None, Place | None] = field(default_factory=dict)
    leaf_seconds: float | None = None
    heard: bool = False
    """Whether a worker has reached the mailbox."""
    broken: Exception | None = None
    out_of_time: bool = False

    # ---- the loop -----------------------------------------------------------------------------

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Open the mailbox; at the end stop what still runs and close it."""
        if "mailbox" in capabilities_of(self.executor):
            self.mailbox = self.executor.open_mailbox(self.inbox.put)  # type: ignore[attr-defined]
        elif isolation_of(self.executor) == "process":
            self.mailbox = SocketMailbox(self.inbox.put, self.temp_dir)
        else:
            self.mailbox = LocalMailbox(self.inbox.put)
        if self.mailbox.address is None:
            self.supply.layout = None  # units have one leaf, wherever that runs
        if self.record is not None and isinstance(self.mailbox, SocketMailbox):
            self.mailbox.expect_records()
        try:
            yield
        finally:
            try:
                if self.units:
                    self._hear_out()
            finally:
                try:
                    if self.units:
                        self._abandon()
                finally:
                    self.supply.release()
                    self.mailbox.close()

    def _hear_out(self) -> None:
        """Take what workers have sent by now, though nobody waits for the rest."""
        assert self.mailbox is not None
        self.mailbox.drain()
        with contextlib.suppress(queue.Empty):
            while True:
                event = self.inbox.get_nowait()
                if isinstance(event, Done):
                    self._record(event.key, event.outcome)

    def forget_interrupted(self) -> None:
        """Take back what may be due to the caller's own Ctrl-C: a terminal sends it to workers as well."""
        if self.job.isolation != "process":
            return
        for key in [key for key, outcome in self.outcomes.items() if _was_interrupted(outcome)]:
            del self.outcomes[key]
        self.uncounted = [outcome for outcome in self.uncounted if not _was_interrupted(outcome)]

    def to_the_end(self) -> None:
        """Submit and gather until there is nothing left to wait for."""
        self._fill_window()
        while self._awaited():
            try:
                event = self.inbox.get(timeout=self._seconds_left())
            except queue.Empty:
                self.out_of_time = True
                return
            self._handle(event)
            self._judge_finished()
            self._fill_window()
            if self.inbox.empty() or len(self.uncounted) >= MOST_UNCOUNTED:
                self.settle()
        if self.broken is not None:
            self._fail_the_rest(self.broken)

    def _seconds_left(self) -> float | None:
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())

    def _awaited(self) -> bool:
        if self.supply.cutoff is None:
            return bool(self.units)
        submitted = [unit.leaves for unit in self.units.values()]
        return any(
            self.supply.is_wanted(leaf) for leaves in (*submitted, *self.supply.again) for leaf in leaves
        )

    # ---- submitting ---------------------------------------------------------------------------

    def _fill_window(self) -> None:
        window = 1 if self.job.isolation == "none" else window_size(self.n_workers)
        while self.broken is None and len(self.units) < window and not self._must_wait():
            if leaves := self.supply.take(self._unit_size()):
                self._submit(leaves)
            elif (stem := self.supply.next_stem()) is not None:
                self._submit_stem(stem)
            else:
                break
            if self.job.isolation == "none":
                break  # what ran inline has reported by now; look at it before the next unit

    def _must_wait(self) -> bool:
        """Return whether a leaf that is suspected to end its worker runs, or is the next to run, alone."""
        suspects = self.blame.suspects
        if not (suspects and self.units):
            return False
        submitted = (unit.leaves for unit in self.units.values())
        return any(
            leaf.key in suspects for leaves in (*submitted, *self.supply.next_again()) for leaf in leaves
        )

    def _unit_size(self) -> int:
        # Without word from the workers the guilty leaf of a lost unit would not be known.
        return unit_size(self.supply.n_fresh, self.n_workers, self.leaf_seconds) if self.heard else 1

    def _submit(self, leaves: tuple[Leaf, ...]) -> None:
        number = next(self.ids)
        unit = self.units[number] = _Unit(leaves)
        stem = self.supply.stem_of(leaves[0])
        given = () if stem is None or stem.shared is None else (stem.shared,)
        arguments = number, leaves, self._address(), *given
        if not self._hand_over(unit, number, self._submitter(leaves[0]), run_unit, *arguments):
            self.supply.put_back(leaves)

    def _submit_stem(self, stem: Stem) -> None:
        number = next(self.ids)
        unit = self.units[number] = _Unit((), stem)
        given = None if stem.parent is None else stem.parent.shared
        submit: Any = self._submitter(stem.example)
        if self._shares_by_itself(stem):
            submit = self.executor.submit_shared  # type: ignore[attr-defined]
        arguments = stem.example, len(stem.path), self._address(), given
        self._hand_over(unit, number, submit, run_stem, *arguments)

    def _hand_over(self, unit: _Unit, number: int, submit: Any, work: Any, *arguments: Any) -> bool:
        try:
            unit.future = submit(work, self.shared_job, *arguments)
        except (BrokenExecutor, RuntimeError) as error:  # broken, or shut down by its owner
            del self.units[number]
            self._break(error)
            return False
        unit.future.add_done_callback(lambda _: self.inbox.put(_Finished(number)))
        return True

    def _submitter(self, leaf: Leaf) -> Any:
        if needs := self.supply.needs(leaf):
            return partial(self.executor.submit_with_resources, needs)  # type: ignore[attr-defined]
        return self.executor.submit

    def _address(self) -> Any:
        return None if self.mailbox is None else self.mailbox.address

    def _shares_by_itself(self, stem: Stem) -> bool:
        return "share" in capabilities_of(self.executor) and not self.supply.needs(stem.example)

    # ---- gathering ----------------------------------------------------------------------------

    def _handle(self, event: Report | _Finished) -> None:
        match event:
            case Started(worker, number, key):
                self.heard = True
                self.blame.unexplained.clear()
                self.blame.clear(key)
                self.attempts[key] += 1
                if (unit := self.units.get(number)) is not None:
                    unit.worker = worker
                    unit.running = next((leaf for leaf in unit.leaves if leaf.key == key), None)
                self.observe(TaskStarted(key, self.attempts[key]))
            case Done(worker, number, key, data, waits):
                if waits:
                    self.waiting.append(worker)
                if (unit := self.units.get(number)) is not None:
                    if unit.running is not None and unit.running.key == key:
                        key = unit.running.key  # the same object for as long as the outcome lives
                    unit.running = None
                    unit.n_mailed += 1
                self._record(key, data)
            case Contact(worker, info):
                self.blame.pids[worker] = info.pid
                if differences := info.differences(WorkerInfo.of_this_process()):
                    raise WorkerMismatchError(
                        f"the worker {info.pid} on {info.host} would compute other numbers: "
                        f"{'; '.join(differences)}. Install the same versions in both places"
                    )
            case Closed(worker):
                self.blame.closed.append(worker)
            case Stack(pid, text):
                self.blame.stacks[pid] = text
            case _Finished(number):
                self.finished.append(number)

    def _judge_finished(self) -> None:
        while self.finished:
            number = self.finished.popleft()
            unit = self.units[number]
            if unit.stem is not None:
                self._judge_stem(unit.stem, unit)
                del self.units[number]
                continue
            if self.mailbox is not None and not self._has_all_mail(unit):
                # The result may overtake the mail: read what was sent before judging.
                self.mailbox.drain()
                with contextlib.suppress(queue.Empty):
                    while True:
                        self._handle(self.inbox.get_nowait())
            self._judge(unit)
            del self.units[number]

    def _has_all_mail(self, unit: _Unit) -> bool:
        future = unit.future
        assert future is not None
        if future.cancelled() or future.exception() is not None:
            return False
        return bool(future.result()[0] == unit.n_mailed)

    def _judge(self, unit: _Unit) -> None:
        assert unit.future is not None
        try:
            _, unsent = unit.future.result()
        except WorkerStartError as error:
            self.supply.put_back(unit.leaves)
            self._break(error)
        except WorkerLostError as lost:
            self._lost(unit, lost)
        except BrokenExecutor as error:
            self.supply.put_back(unit.leaves)
            self._break(error)
        except CancelledError as error:
            self.supply.put_back(unit.leaves)
            self._break(BrokenExecutor(f"the executor cancelled work that it had accepted: {error!r}"))
        except Exception as error:
            # The unit could not be run or read at all: no leaf of it is to blame.
            for leaf in unit.leaves:
                self._fail(leaf, failure_of("worker", error))
        else:
            for key, data in unsent:
                self.attempts[key] += 1
                self._record(key, data)
            left = list(filter(self.supply.is_wanted, unit.leaves))
            if self._ended_early(unit):
                self.supply.put_back(left)
                return
            for leaf in left:
                lost_leaf = AnyfoldError("the executor reported its unit as done without an outcome of it")
                self._fail(leaf, failure_of("worker", lost_leaf))

    def _ended_early(self, unit: _Unit) -> bool:
        """Return whether a worker left leaves of a unit out since one of them had failed."""
        done = (self.outcomes.get(leaf.key) for leaf in unit.leaves)
        return self.job.stop_on_failure and any(outcome and outcome.failure for outcome in done)

    def _judge_stem(self, stem: Stem, unit: _Unit) -> None:
        """Give fitted steps to those who wait for them; where there are none, they fit them themselves."""
        assert unit.future is not None
        shared: Shared[Any] | None = None
        try:
            made = unit.future.result()
            if self._shares_by_itself(stem):
                shared = made
            elif made is not None:
                shared = share(self.executor, made, self.temp_dir)
        except WorkerLostError:
            stem.n_lost += 1
            if stem.n_lost <= self.blame.retries:
                self.supply.to_fit.append(stem)
                return
        except (BrokenExecutor, CancelledError) as error:
            self._break(BrokenExecutor(str(error)) if isinstance(error, CancelledError) else error)
        except Exception:
            pass  # the leaves will say what is wrong
        self.supply.fitted(stem, shared)

    def _record(self, key: TaskKey, data: bytes) -> None:
        if key in self.outcomes:
            return
        try:
            outcome: Outcome = loads(data)
        except Exception as error:
            outcome = Outcome(key, failure=failure_of("result", error))
        # What many outcomes have in common is kept once: there may be hundreds of thousands.
        place = self.places.setdefault(outcome.place, outcome.place)
        self._keep(replace(outcome, key=key, place=place, attempts=max(1, self.attempts[key])))
        seconds = max(0.0, outcome.ended - outcome.started)
        self.leaf_seconds = seconds if self.leaf_seconds is None else 0.8 * self.leaf_seconds + 0.2 * seconds

    def _fail(self, leaf: Leaf, failure: Failure) -> None:
        if leaf.key not in self.outcomes:
            self._keep(Outcome(leaf.key, failure=failure, attempts=max(1, self.attempts[leaf.key])))

    def _keep(self, outcome: Outcome) -> None:
        quiet = outcome if not (outcome.logs or outcome.output) else replace(outcome, logs=(), output=())
        self.outcomes[outcome.key] = quiet
        self.blame.clear(outcome.key)
        if self.job.stop_on_failure and outcome.failure is not None:
            self.supply.cut_off(outcome.key)
        self.uncounted.append(quiet)
        self.relay.take(self.supply.rank(outcome.key), outcome)
        self.supply.finished(outcome.key)

    def settle(self) -> None:
        """Record what has finished, and only then tell of it."""
        counted = list(self.uncounted)
        if counted and self.record is not None:
            self.record(counted)  # before they are forgotten here: it may be interrupted
        del self.uncounted[: len(counted)]
        if self.waiting and isinstance(self.mailbox, SocketMailbox):
            self.mailbox.recorded(self.waiting)
            self.waiting.clear()
        for outcome in counted:
            self.observe(TaskFinished(outcome))

    # ---- losses -------------------------------------------------------------------------------

    def _lost(self, unit: _Unit, lost: WorkerLostError) -> None:
        """Charge the leaf that was running, if it is the guilty one, and run the others again."""
        guilty = unit.running
        running = [u.worker for u in self.units.values() if u.running is not None and u.worker is not None]
        explained = self.blame.explains(lost, running)
        stack = self.blame.hung_in(unit.worker)
        if stack is not None:
            self.blame.accuse(unit.worker, lost)
        elif guilty is not None:
            if not self.blame.is_guilty(unit.worker, lost, running):
                guilty = None
        elif not explained:
            if unit.worker is None:
                guilty = self.blame.suspect(unit.leaves, lost, self.heard)
            if guilty is None or not self.heard:
                try:
                    self.blame.note_unexplained(lost)
                except WorkerLostError as hopeless:
                    self._break(hopeless)
        others = [leaf for leaf in unit.leaves if leaf is not guilty]
        are_suspects = unit.worker is None and not explained
        for leaves in [[leaf] for leaf in others] if are_suspects else [others]:
            self.supply.put_back(leaves)
        if guilty is None:
            return
        if stack is not None:
            seconds = self.job.timeout or 0.0
            self._fail(guilty, timeout_failure(guilty.key, seconds, stack, guilty.parameters))
        elif self.blame.may_retry(guilty.key):
            self.supply.put_back([guilty])
        else:
            attempts = self.blame.charges[guilty.key]
            self._fail(guilty, lost_failure(guilty.key, lost, attempts, guilty.parameters))

    def _break(self, error: Exception) -> None:
        """Remember that the executor can run nothing more."""
        if self.broken is None:
            self.broken = error

    def _fail_the_rest(self, error: Exception) -> None:
        told = str(error)
        if not isinstance(error, WorkerLostError):
            told = (
                f"the executor {type(self.executor).__name__} broke ({error!r}) and does not heal; what had "
                "finished is kept. The backends of anyfold replace lost workers: name one of them instead"
            )
        lost = WorkerLostError(told)
        failure = failure_of("worker", lost)
        for leaf in self.supply.drain():
            self._fail(leaf, failure)

    def _abandon(self) -> None:
        """Let go of what nobody waits for any more."""
        running = [unit for unit in self.units.values() if unit.future is None or not unit.future.cancel()]
        # Where another run uses the executor too, its work must not be stopped: ours ends with its leaf.
        if (
            running
            and "stop_running" in capabilities_of(self.executor)
            and not in_use_elsewhere(self.executor)
        ):
            # In a thread, where no second Ctrl-C can stop it half-way.
            stop = self.executor.stop_running  # type: ignore[attr-defined]
            stopping = threading.Thread(target=stop, name="anyfold-stop")
            stopping.start()
            stopping.join()
