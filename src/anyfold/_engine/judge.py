"""What follows from the end of a unit: outcomes to enter, leaves to run again, failures to tell."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import BrokenExecutor, CancelledError, Future
from dataclasses import dataclass
from typing import Any

from anyfold._engine.faults import Blame, lost_failure, timeout_failure, unsent_failure
from anyfold._engine.ledger import Ledger
from anyfold._engine.sharing import share
from anyfold._engine.supply import Stem, Supply
from anyfold._mail.network import SilentMailbox
from anyfold._plan.task import Failure, Leaf, Outcome, TaskKey
from anyfold._worker.execute import Job
from anyfold._worker.failures import failure_of
from anyfold.errors import AnyfoldError, WorkerLostError, WorkerStartError
from anyfold.executors.base import Executor, Shared, capabilities_of

__all__ = ["Judge", "Unit"]


@dataclass(slots=True)
class Unit:
    """Leaves that were submitted together and run one after another on one worker."""

    leaves: tuple[Leaf, ...]
    stem: Stem | None = None
    """What is fitted for leaves that wait; such a unit has none of its own."""
    future: Future[Any] | None = None
    running: Leaf | None = None
    worker: int | None = None
    n_mailed: int = 0
    number: int = 0


@dataclass(slots=True)
class Judge:
    """Enters what has finished, and decides on the rest; used by one thread."""

    job: Job
    supply: Supply
    executor: Executor
    blame: Blame
    ledger: Ledger
    units: Mapping[int, Unit]
    """All that have been submitted and have not been judged."""
    temp_dir: str | None
    heard: bool = False
    """Whether a worker has reached the mailbox."""
    silent: SilentMailbox | None = None
    """What there is instead of a mailbox where no worker can reach one."""
    broken: Exception | None = None
    """Why the executor can run nothing more."""

    # ---- outcomes -----------------------------------------------------------------------------

    def record(self, key: TaskKey, data: bytes) -> None:
        """Enter an outcome that a worker has sent."""
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

    def take_along(self, unit: Unit) -> None:
        """Take the outcomes that no mail has brought, and that have come with the future of their unit."""
        future = unit.future
        assert future is not None
        if unit.stem is None and not future.cancelled() and future.exception() is None:
            for key, data in future.result()[1]:
                self.ledger.start(key)
                self.record(key, data)

    # ---- units --------------------------------------------------------------------------------

    def judge(self, unit: Unit) -> None:
        """See to all leaves of a unit whose future is done and whose mail has been read."""
        if unit.stem is None:
            self._judge_leaves(unit)
        else:
            self._judge_stem(unit.stem, unit)

    def _judge_leaves(self, unit: Unit) -> None:
        assert unit.future is not None
        try:
            unit.future.result()
        except WorkerStartError as error:
            self.supply.put_back(unit.leaves)
            self.give_up(error)
        except WorkerLostError as lost:
            self.lost(unit, lost)
        except BrokenExecutor as error:
            self.supply.put_back(unit.leaves)
            self.give_up(error)
        except CancelledError as error:
            self.supply.put_back(unit.leaves)
            self.give_up(BrokenExecutor(f"the executor cancelled work that it had accepted: {error!r}"))
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
            self.take_along(unit)
            left = list(filter(self.supply.is_wanted, unit.leaves))
            if self._ended_early(unit):
                self.supply.put_back(left)
                return
            for leaf in left:
                lost_leaf = AnyfoldError("the executor reported its unit as done without an outcome of it")
                self.fail(leaf, failure_of("worker", lost_leaf))

    def _ended_early(self, unit: Unit) -> bool:
        """Return whether a worker left leaves of a unit out since one of them had failed."""
        done = (self.ledger.outcomes.get(leaf.key) for leaf in unit.leaves)
        return self.job.stop_on_failure and any(outcome and outcome.failure for outcome in done)

    def _judge_stem(self, stem: Stem, unit: Unit) -> None:
        """Give fitted steps to those who wait for them; where there are none, they fit them themselves."""
        assert unit.future is not None
        shared: Shared[Any] | None = None
        try:
            made = unit.future.result()
            if self.shares_by_itself(stem):
                shared = made
            elif made is not None:
                shared = share(self.executor, made, self.temp_dir)
        except WorkerLostError as lost:
            stack = None if lost.pid is None else self.blame.stacks.pop(lost.pid, None)
            stem.n_lost += 1
            if stack is not None:
                for leaf in self.supply.fell(stem):
                    self._timed_out(leaf, stack)
            elif stem.n_lost <= self.blame.retries:
                self.supply.to_fit.append(stem)
                return
        except (BrokenExecutor, CancelledError) as error:
            self.give_up(BrokenExecutor(str(error)) if isinstance(error, CancelledError) else error)
        except Exception:
            pass  # the leaves will say what is wrong
        self.supply.fitted(stem, shared)

    def shares_by_itself(self, stem: Stem) -> bool:
        """Return whether the executor leaves what a stem has made with its workers."""
        return "share" in capabilities_of(self.executor) and not self.supply.needs(stem.example)

    # ---- losses -------------------------------------------------------------------------------

    def lost(self, unit: Unit, lost: WorkerLostError) -> None:
        """Charge the leaf that was running, if it is the guilty one, and run the others again."""
        guilty = unit.running
        running = [u.worker for u in self.units.values() if u.running is not None and u.worker is not None]
        explained = self.blame.explains(lost, running)
        stack = self.blame.hung_in(unit.worker)
        if self.silent is not None and self.job.timeout is not None:
            stack = self.silent.stack_of(unit.number)
            guilty = unit.leaves[0] if stack is not None else None
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
                    self.give_up(hopeless)
        self._put_back_others(unit, guilty, are_suspects=unit.worker is None and not explained)
        if guilty is None or self._taken_apart(guilty):
            return
        if stack is not None:
            self._timed_out(guilty, stack)
        elif self.blame.may_retry(guilty.key):
            self.supply.put_back([guilty])
        else:
            attempts = self.blame.charges[guilty.key]
            self.fail(guilty, lost_failure(guilty.key, lost, attempts, guilty.parameters))

    def _put_back_others(self, unit: Unit, guilty: Leaf | None, *, are_suspects: bool) -> None:
        others = [leaf for leaf in unit.leaves if leaf is not guilty]
        for leaves in [[leaf] for leaf in others] if are_suspects else [others]:
            self.supply.put_back(leaves)

    def _timed_out(self, leaf: Leaf, stack: str) -> None:
        seconds = self.job.timeout or 0.0
        self.fail(leaf, timeout_failure(leaf.key, seconds, stack, leaf.parameters))

    def _taken_apart(self, leaf: Leaf) -> bool:
        """Have the parts of a leaf run one by one, if it has any: one of them is to blame."""
        parts = leaf.parts()
        for part in parts:
            self.supply.put_back([part])
        return bool(parts)

    # ---- executors that break -----------------------------------------------------------------

    def give_up(self, error: Exception) -> None:
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
        failure = failure_of("worker", WorkerLostError(told))
        for leaf in self.supply.drain():
            self.fail(leaf, failure)
