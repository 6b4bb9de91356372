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
from concurrent.futures import BrokenExecutor, Future, wait
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any

from anyfold._engine.events import TaskStarted
from anyfold._engine.faults import Blame
from anyfold._engine.inbox import Inbox
from anyfold._engine.judge import Judge, Unit
from anyfold._engine.ledger import Ledger
from anyfold._engine.progress import Bar
from anyfold._engine.supply import Stem, Supply
from anyfold._engine.usage import in_use_elsewhere
from anyfold._mail.contact import WorkerInfo
from anyfold._mail.mailbox import LocalMailbox, SocketMailbox
from anyfold._mail.messages import Closed, Contact, Done, Report, Stack, Started
from anyfold._mail.network import SilentMailbox
from anyfold._plan.task import Leaf
from anyfold._plan.units import LARGEST_UNIT, unit_size, window_size
from anyfold._worker.execute import Job, run_stem, run_unit
from anyfold.errors import WorkerMismatchError
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
    inbox: Inbox[Report | _Finished | _More] = field(default_factory=Inbox)
    mailbox: Mailbox | None = None
    units: dict[int, Unit] = field(default_factory=dict)
    judge: Judge = field(init=False)
    ids: Iterator[int] = field(default_factory=count)
    finished: deque[int] = field(default_factory=deque)
    deadline: float | None = None
    """On the monotonic clock."""
    out_of_time: bool = False
    left_work: bool = False
    """Whether something still runs that nobody waits for and that cannot be stopped."""
    bar: Bar = field(default_factory=Bar)
    """Shows how far it is; for who goes through it by steps and wants nothing shown in between."""

    def __post_init__(self) -> None:
        self.judge = Judge(
            self.job, self.supply, self.executor, self.blame, self.ledger, self.units, self.temp_dir
        )

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
        if self.mailbox.address is None or isinstance(self.mailbox, SilentMailbox):
            self.supply.layout = None  # units have one leaf, wherever that runs
        if isinstance(self.mailbox, SilentMailbox):
            self.judge.silent = self.mailbox
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
        while not self.inbox.empty():
            match self.inbox.first():
                case Done(_, _, key, data):
                    self.judge.record(key, data)
                case _Finished(number):
                    self.judge.take_along(self.units[number])
            self.inbox.drop()

    def begin(self) -> None:
        """Have the time begin to count."""
        self.deadline = None if self.time_limit is None else time.monotonic() + self.time_limit

    def to_the_end(self) -> None:
        """Submit and gather until there is nothing left to wait for."""
        self.fill_window()
        while self.awaits():
            if not self.advance():
                return
        self.judge.fail_the_rest()

    def advance(self) -> bool:
        """Wait for what happens next and see to it; False when the time is over."""
        left, may_wait = self._seconds_left(), self.ledger.may_wait
        if left == 0.0:  # looked at first: events may never cease to come
            self._hear_out()
            self.out_of_time = self._is_unfinished()
            return False
        is_grouping = may_wait is not None and (left is None or may_wait < left)
        try:
            event = self.inbox.first(may_wait if is_grouping else left)
        except queue.Empty:
            self.settle()
            return True
        self._handle(event)
        self.inbox.drop()  # only now: Ctrl-C may come in between
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
        while self.judge.broken is None and len(self.units) < window and not self._must_wait():
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
        if not self.judge.heard or self.job.isolation == "none":
            return 1
        size = unit_size(self.supply.n_fresh, self.n_workers, self.ledger.leaf_seconds)
        return min(size, self.largest_unit)

    def _submit(self, leaves: tuple[Leaf, ...]) -> None:
        number = next(self.ids)
        unit = self.units[number] = Unit(leaves, number=number)
        stem = self.supply.stem_of(leaves[0])
        given = () if stem is None or stem.shared is None else (stem.shared,)
        arguments = number, leaves, self._address(), *given
        if not self._hand_over(unit, number, self._submitter(leaves[0]), run_unit, *arguments):
            self.supply.put_back(leaves)

    def _submit_stem(self, stem: Stem) -> None:
        number = next(self.ids)
        unit = self.units[number] = Unit((), stem)
        given = None if stem.parent is None else stem.parent.shared
        submit: Any = self._submitter(stem.example)
        if self.judge.shares_by_itself(stem):
            submit = self.executor.submit_shared  # type: ignore[attr-defined]
        arguments = stem.example, len(stem.path), self._address(), given
        self._hand_over(unit, number, submit, run_stem, *arguments)

    def _hand_over(self, unit: Unit, number: int, submit: Any, work: Any, *arguments: Any) -> bool:
        try:
            unit.future = submit(work, self.shared_job, *arguments)
        except (BrokenExecutor, RuntimeError) as error:  # broken, or shut down by its owner
            del self.units[number]
            self.judge.give_up(error)
            return False
        unit.future.add_done_callback(lambda _: self.inbox.put(_Finished(number)))
        return True

    def _submitter(self, leaf: Leaf) -> Any:
        if needs := self.supply.needs(leaf):
            return partial(self.executor.submit_with_resources, needs)  # type: ignore[attr-defined]
        return self.executor.submit

    def _address(self) -> Any:
        return None if self.mailbox is None else self.mailbox.address

    # ---- gathering ----------------------------------------------------------------------------

    def _handle(self, event: Report | _Finished | _More) -> None:
        match event:
            case Started(worker, number, key):
                self.judge.heard = True
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
                self.judge.record(key, data)
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
                while not self.inbox.empty():
                    self._handle(self.inbox.first())
                    self.inbox.drop()
            self.judge.judge(unit)
            del self.units[number]

    def _has_all_mail(self, unit: Unit) -> bool:
        future = unit.future
        assert future is not None
        if future.cancelled() or future.exception() is not None:
            return False
        return unit.stem is not None or bool(future.result()[0] == unit.n_mailed)

    def settle(self) -> None:
        """Record and tell what has finished; let workers go on that wait for it."""
        self.ledger.settle()
        if self.waiting and isinstance(self.mailbox, SocketMailbox):
            self.mailbox.recorded(self.waiting)
            self.waiting.clear()

    # ---- the end ------------------------------------------------------------------------------

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

    def _is_ending(self, unit: Unit) -> bool:
        """Return whether all that a unit was to do is done."""
        has_outcomes = all(leaf.key in self.ledger.outcomes for leaf in unit.leaves)
        return unit.future is not None and bool(unit.leaves) and has_outcomes


def _is_over(future: Future[Any] | None) -> bool:
    return future is not None and (future.cancel() or future.done())
