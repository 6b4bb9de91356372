"""One run: what was submitted, what comes back, and what is done about it.

Everything that happens arrives in one inbox and is handled in one thread: nothing here needs a lock, and
nothing is polled. Between two events the thread sleeps.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, CancelledError, Future, wait
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any

from anyfold._engine.events import TaskStarted
from anyfold._engine.faults import Blame, lost_failure, timeout_failure, unsent_failure
from anyfold._engine.ledger import Ledger
from anyfold._engine.progress import Bar
from anyfold._engine.sharing import share
from anyfold._engine.supply import Stem, Supply
from anyfold._engine.usage import in_use_elsewhere
from anyfold._mail.contact import WorkerInfo
from anyfold._mail.mailbox import LocalMailbox, SocketMailbox
from anyfold._mail.messages import Closed, Contact, Done, Report, Stack, Started
from anyfold._plan.task import Failure, Leaf, Outcome, TaskKey
from anyfold._plan.units import LARGEST_UNIT, unit_size, window_size
from anyfold._worker.execute import Job, run_stem, run_unit
from anyfold._worker.failures import failure_of
from anyfold.errors import AnyfoldError, WorkerLostError, WorkerMismatchError, WorkerStartError
from anyfold.executors.base import Executor, Mailbox, Shared, capabilities_of, isolation_of

__all__ = ["Run"]

SOON = 0.5
"""Seconds within which a unit ends whose last leaf has an outcome, or that was stopped."""


@dataclass(frozen=True, slots=True)
class _Finished:
    """The future of a unit is done."""

    unit: int


@dataclass(frozen=True, slots=True)
class _More:
    """There is more to submit."""


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


@dataclass(slots=True)
class Run:
    """The state of one run; used by one thread."""

    job: Job
    supply: Supply
    executor: Executor
    shared_job: Shared[Job]
    n_workers: int
    blame: Blame
    ledger: Ledger
    time_limit: float | None
    """Seconds."""
    temp_dir: str | None
    largest_unit: int = LARGEST_UNIT
    """Leaves."""
    waiting: list[int] = field(default_factory=list)
    """Workers that go on when what they have sent is on record."""
    inbox: queue.SimpleQueue[Report | _Finished | _More] = field(default_factory=queue.SimpleQueue)
    mailbox: Mailbox | None = None
    units: dict[int, _Unit] = field(default_factory=dict)
    ids: Iterator[int] = field(default_factory=count)
    handled: Report | _Finished | _More | None = None
    """What was taken from the inbox last, as long as it is being seen to: a Ctrl-C may come in between."""
    finished: deque[int] = field(default_factory=deque)
    heard: bool = False
    """Whether a worker has reached the mailbox."""
    broken: Exception | None = None
    deadline: float | None = None
    """On the monotonic clock."""
    out_of_time: bool = False
    left_work: bool = False
    """Whether something still runs that nobody waits for and that cannot be stopped."""
    bar: Bar = field(default_factory=Bar)
    """Shows how far it is; for who goes through it by steps and wants nothing shown in between."""

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
        if self.ledger.record is not None and isinstance(self.mailbox, SocketMailbox):
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
        if self.handled is not None:
            self.inbox.put(self.handled)
        with contextlib.suppress(queue.Empty):
            while True:
                match self.inbox.get_nowait():
                    case Done(_, _, key, data):
                        self._record(key, data)
                    case _Finished(number):
                        self._take_along(self.units[number])

    def begin(self) -> None:
        """Have the time begin to count."""
        self.deadline = None if self.time_limit is None else time.monotonic() + self.time_limit

    def to_the_end(self) -> None:
        """Submit and gather until there is nothing left to wait for."""
        self.fill_window()
        while self.awaits():
            if not self.advance():
                return
        self.fail_the_rest()

    def advance(self) -> bool:
        """Wait for what happens next and see to it; False when the time is over."""
        left, may_wait = self._seconds_left(), self.ledger.may_wait
        if left == 0.0:  # looked at first: events may never cease to come
            self._hear_out()
            self.out_of_time = self._is_unfinished()
            return False
        is_grouping = may_wait is not None and (left is None or may_wait < left)
        try:
            event = self.inbox.get(timeout=may_wait if is_grouping else left)
        except queue.Empty:
            self.settle()
            return True
        self.handled = event
        self._handle(event)
        self.handled = None
        self._judge_finished()
        if self.job.isolation == "none" and self.inbox.empty():
            self.settle()  # the next unit runs right here, and its events come before anything else
        self.fill_window()
        if self.ledger.is_full or (self.inbox.empty() and (self.waiting or not self.ledger.may_wait)):
            self.settle()
        return True

    def _seconds_left(self) -> float | None:
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())

    def awaits(self) -> bool:
        """Return whether something was submitted whose outcome is still wanted."""
        if self.supply.cutoff is None:
            return bool(self.units)
        submitted = [unit.leaves for unit in self.units.values()]
        return any(
            self.supply.is_wanted(leaf) for leaves in (*submitted, *self.supply.again) for leaf in leaves
        )

    def _is_unfinished(self) -> bool:
        submitted = (leaf for unit in self.units.values() for leaf in unit.leaves)
        return self.supply.has_more() or any(map(self.supply.is_wanted, submitted))

    def wake(self) -> None:
        """Have `advance` look for more to submit; called from any thread."""
        self.inbox.put(_More())

    # ---- submitting ---------------------------------------------------------------------------

    def fill_window(self) -> None:
        """Submit as much as may be with the executor at once."""
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
        # Without word from the workers the guilty leaf of a lost unit would not be known; and what runs right
        # here keeps the loop from its work, so that nothing is recorded or told before the unit ends.
        if not self.heard or self.job.isolation == "none":
            return 1
        size = unit_size(self.supply.n_fresh, self.n_workers, self.ledger.leaf_seconds)
        return min(size, self.largest_unit)

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

    def _handle(self, event: Report | _Finished | _More) -> None:
        match event:
            case Started(worker, number, key):
                self.heard = True
                self.blame.unexplained.clear()
                self.blame.clear(key)
                attempt = self.ledger.start(key)
                if (unit := self.units.get(number)) is not None:
                    unit.worker = worker
                    unit.running = next((leaf for leaf in unit.leaves if leaf.key == key), None)
                self.ledger.observe(TaskStarted(key, attempt))
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
            if self.mailbox is not None and not self._has_all_mail(unit):
                # The result may overtake the mail: read what was sent before judging.
                self.mailbox.drain()
                with contextlib.suppress(queue.Empty):
                    while True:
                        self._handle(self.inbox.get_nowait())
            if unit.stem is None:
                self._judge(unit)
            else:
                self._judge_stem(unit.stem, unit)
            del self.units[number]

    def _has_all_mail(self, unit: _Unit) -> bool:
        future = unit.future
        assert future is not None
        if future.cancelled() or future.exception() is not None:
            return False
        return unit.stem is not None or bool(future.result()[0] == unit.n_mailed)

    def _judge(self, unit: _Unit) -> None:
        assert unit.future is not None
        try:
            unit.future.result()
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
            # The unit could not be run or read at all. Run alone, each leaf shows whether it is the reason.
            for leaf in unit.leaves:
                if self._taken_apart(leaf):
                    continue
                if len(unit.leaves) > 1:
                    self.supply.put_back([leaf])
                else:
                    self.fail(leaf, unsent_failure(leaf, error))
        else:
            self._take_along(unit)
            left = list(filter(self.supply.is_wanted, unit.leaves))
            if self._ended_early(unit):
                self.supply.put_back(left)
                return
            for leaf in left:
                lost_leaf = AnyfoldError("the executor reported its unit as done without an outcome of it")
                self.fail(leaf, failure_of("worker", lost_leaf))

    def _take_along(self, unit: _Unit) -> None:
        """Take the outcomes that no mail has brought, and that have come with the future of their unit."""
        future = unit.future
        assert future is not None
        if unit.stem is None and not future.cancelled() and future.exception() is None:
            for key, data in future.result()[1]:
                self.ledger.start(key)
                self._record(key, data)

    def _ended_early(self, unit: _Unit) -> bool:
        """Return whether a worker left leaves of a unit out since one of them had failed."""
        done = (self.ledger.outcomes.get(leaf.key) for leaf in unit.leaves)
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
        except WorkerLostError as lost:
            stack = None if lost.pid is None else self.blame.stacks.pop(lost.pid, None)
            stem.n_lost += 1
            if stack is not None:
                for leaf in self.supply.fell(stem):
                    seconds = self.job.timeout or 0.0
                    self.fail(leaf, timeout_failure(leaf.key, seconds, stack, leaf.parameters))
            elif stem.n_lost <= self.blame.retries:
                self.supply.to_fit.append(stem)
                return
        except (BrokenExecutor, CancelledError) as error:
            self._break(BrokenExecutor(str(error)) if isinstance(error, CancelledError) else error)
        except Exception:
            pass  # the leaves will say what is wrong
        self.supply.fitted(stem, shared)

    def _record(self, key: TaskKey, data: bytes) -> None:
        self.blame.unexplained.clear()  # a worker has done something; without a mailbox only this says so
        self._entered(self.ledger.take(key, data))

    def fail(self, leaf: Leaf, failure: Failure) -> None:
        """Enter a failure that no worker has sent."""
        self._entered(self.ledger.fail(leaf.key, failure))

    def _entered(self, outcome: Outcome | None) -> None:
        if outcome is None:
            return
        self.blame.clear(outcome.key)
        if self.job.stop_on_failure and outcome.failure is not None:
            self.supply.cut_off(outcome.key)
        self.supply.finished(outcome.key)

    def settle(self) -> None:
        """Record and tell what has finished; let workers go on that wait for it."""
        self.ledger.settle()
        if self.waiting and isinstance(self.mailbox, SocketMailbox):
            self.mailbox.recorded(self.waiting)
            self.waiting.clear()

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
        if guilty is None or self._taken_apart(guilty):
            return
        if stack is not None:
            seconds = self.job.timeout or 0.0
            self.fail(guilty, timeout_failure(guilty.key, seconds, stack, guilty.parameters))
        elif self.blame.may_retry(guilty.key):
            self.supply.put_back([guilty])
        else:
            attempts = self.blame.charges[guilty.key]
            self.fail(guilty, lost_failure(guilty.key, lost, attempts, guilty.parameters))

    def _taken_apart(self, leaf: Leaf) -> bool:
        """Have the parts of a leaf run one by one, if it has any: one of them is to blame."""
        parts = leaf.parts()
        for part in parts:
            self.supply.put_back([part])
        return bool(parts)

    def _is_ending(self, unit: _Unit) -> bool:
        """Return whether all that a unit was to do is done."""
        has_outcomes = all(leaf.key in self.ledger.outcomes for leaf in unit.leaves)
        return unit.future is not None and bool(unit.leaves) and has_outcomes

    def _break(self, error: Exception) -> None:
        """Remember that the executor can run nothing more."""
        if self.broken is None:
            self.broken = error

    def fail_the_rest(self) -> None:
        """Say of all that is left why it was not run, where the executor has broken."""
        error = self.broken
        if error is None:
            return
        told = str(error)
        if not isinstance(error, WorkerLostError):
            told = (
                f"the executor {type(self.executor).__name__} broke ({error!r}) and does not heal; what had "
                "finished is kept. The backends of anyfold replace lost workers: name one of them instead"
            )
        lost = WorkerLostError(told)
        failure = failure_of("worker", lost)
        for leaf in self.supply.drain():
            self.fail(leaf, failure)

    def _abandon(self) -> None:
        """Let go of what nobody waits for any more."""
        running = [unit for unit in self.units.values() if not _is_over(unit.future)]
        futures = [unit.future for unit in running if unit.future is not None]
        if all(map(self._is_ending, running)) and not wait(futures, SOON).not_done:
            return
        # Where another run uses the executor too, its work must not be stopped: ours ends with its leaf.
        self.left_work = "stop_running" not in capabilities_of(self.executor)
        if not self.left_work and not in_use_elsewhere(self.executor):
            # In a thread, where no second Ctrl-C can stop it half-way.
            stop = self.executor.stop_running  # type: ignore[attr-defined]
            stopping = threading.Thread(target=stop, name="anyfold-stop")
            stopping.start()
            stopping.join()
            wait(futures, SOON)  # until it has been stopped


def _is_over(future: Future[Any] | None) -> bool:
    return future is not None and (future.cancel() or future.done())
