"""Who is to blame when a worker is lost, and who is run again.

The mailbox tells which leaf each worker was running and the order in which connections ended. An
executor that replaces single workers names the process that died; a pool that breaks as a whole
takes its other workers down *after* the guilty one, so that the first connection that ended is the
culprit's. Everybody else in such an incident is run again and not charged, the leaves first of all that
the pool had queued and nobody had started.

Where no worker was running anything, a leaf may have ended one by being read: those that were queued
are suspects. Each is run again alone, and is charged when its worker ends without a word once more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from anyfold._plan.pickling import culprit_among
from anyfold._plan.task import Failure, Leaf, TaskKey
from anyfold._worker.failures import failure_of
from anyfold.errors import TaskTimeoutError, UnpicklableModelError, WorkerLostError

__all__ = ["Blame", "lost_failure", "timeout_failure"]

MOST_UNEXPLAINED = 5
"""Incidents in a row with no leaf started between them, before the run gives up."""


@dataclass
class Blame:
    """What is known about lost workers in one run."""

    retries: int
    pids: dict[int, int] = field(default_factory=dict)
    """Process id by worker."""
    stacks: dict[int, str] = field(default_factory=dict)
    """Stack by process id, of workers that were ended because their leaf ran too long."""
    closed: list[int] = field(default_factory=list)
    """Workers whose connection ended, in that order."""
    charges: Counter[TaskKey] = field(default_factory=Counter)
    unexplained: set[object] = field(default_factory=set)
    """Incidents since a leaf was last started, in which units were lost that had started nothing."""
    suspects: set[TaskKey] = field(default_factory=set)
    """Leaves that may have ended a worker before it could say that it had begun with them."""
    _explained: dict[object, bool] = field(default_factory=dict)
    _culprits: dict[object, int | None] = field(default_factory=dict)

    def is_guilty(self, worker: int | None, lost: WorkerLostError, running: Iterable[int]) -> bool:
        """Return whether the leaf that ran on this worker is the one to charge.

        Parameters
        ----------
        worker : int or None
            The worker that ran the leaf; None where there is no mailbox, so that nothing more is known.
        lost : WorkerLostError
            What the executor says.
        running : iterable of int
            All workers that were running a leaf.
        """
        if worker is None or (lost.pid is None and lost.incident is None):
            return True
        if lost.pid is not None and worker in self.pids:
            return self.pids[worker] == lost.pid
        if lost.incident not in self._culprits:
            candidates = set(running)
            first = next((closed for closed in self.closed if closed in candidates), None)
            self._culprits[lost.incident] = first
        culprit = self._culprits[lost.incident]
        return culprit is None or culprit == worker

    def explains(self, lost: WorkerLostError, running: Sequence[int]) -> bool:
        """Return whether a worker that was running a leaf is the cause of an incident.

        Parameters
        ----------
        lost : WorkerLostError
            What the executor says of a unit; the answer is the same for all units of its incident.
        running : sequence of int
            All workers that were running a leaf.
        """
        if lost.incident is None:
            return False
        if lost.incident not in self._explained:
            self._explained[lost.incident] = any(self.is_guilty(worker, lost, running) for worker in running)
        return self._explained[lost.incident]

    def suspect(self, leaves: Sequence[Leaf], lost: WorkerLostError, heard: bool) -> Leaf | None:
        """Return the leaf of a lost unit whose worker has said nothing, if it is to be charged.

        Parameters
        ----------
        leaves : sequence of Leaf
            Those of the unit.
        lost : WorkerLostError
            What the executor says of it.
        heard : bool
            Whether workers can reach the mailbox. Where none can, and units are lost one by one, the
            executor's word is all there is.
        """
        keys = {leaf.key for leaf in leaves}
        if len(leaves) == 1 and (keys <= self.suspects or not (heard or lost.incident is not None)):
            return leaves[0]
        self.suspects |= keys
        return None

    def clear(self, key: TaskKey) -> None:
        """Take a leaf off the suspects: its worker has spoken."""
        self.suspects.discard(key)

    def accuse(self, worker: int | None, lost: WorkerLostError) -> None:
        """Settle that this worker, which was ended for its hung leaf, is the culprit of an incident."""
        if lost.incident is not None:
            self._culprits[lost.incident] = worker

    def hung_in(self, worker: int | None) -> str | None:
        """Return the stack in which a worker hung when its time was up, None for any other end."""
        return None if worker is None else self.stacks.pop(self.pids.get(worker, -1), None)

    def may_retry(self, key: TaskKey) -> bool:
        """Charge a leaf for a lost worker and return whether it may be run once more."""
        self.charges[key] += 1
        return self.charges[key] <= self.retries

    def note_unexplained(self, lost: WorkerLostError) -> None:
        """Count a loss that no leaf can be blamed for; give up when nothing is started between them."""
        self.unexplained.add(object() if lost.incident is None else lost.incident)
        if len(self.unexplained) > MOST_UNEXPLAINED:
            raise WorkerLostError(
                f"{len(self.unexplained)} times in a row workers ended without starting a task, the last "
                f"time with: {lost}. Something ends workers as such: look at memory limits and at what the "
                "models' modules do when they are imported",
                lost.pid,
                lost.exitcode,
            ) from lost


def lost_failure(
    key: TaskKey, lost: WorkerLostError, attempts: int, parameters: Mapping[str, object] | None
) -> Failure:
    """Return the failure of a leaf whose worker was lost more often than retries allow."""
    with_parameters = f", parameters {dict(parameters)!r}" if parameters else ""
    times = "once" if attempts == 1 else f"{attempts} times"
    message = f"{key}{with_parameters}: the worker that ran it ended {times}: {lost}"
    return failure_of("worker", WorkerLostError(message, lost.pid, lost.exitcode))


def timeout_failure(
    key: TaskKey, seconds: float, stack: str, parameters: Mapping[str, object] | None
) -> Failure:
    """Return the failure of a leaf that ran too long, with the stack in which it hung."""
    with_parameters = f", parameters {dict(parameters)!r}" if parameters else ""
    message = f"{key}{with_parameters}: ran longer than timeout={seconds:g} seconds and was stopped"
    failure = failure_of("worker", TaskTimeoutError(message))
    return replace(failure, traceback=f"{message}, in\n{_task_first(stack)}")


def _task_first(stack: str) -> str:
    r"""Put the thread that ran the task before those that help it.

    Examples
    --------
    >>> dump = "Timeout (0:00:01)!\nThread 1:\n  in wait\n\nThread 2:\n  in fit\n  in run_leaf\n"
    >>> print(_task_first(dump))
    Thread 2:
      in fit
      in run_leaf
    <BLANKLINE>
    Thread 1:
      in wait
    """
    if stack.startswith("Timeout ("):
        stack = stack.partition("\n")[2]
    threads = stack.strip().split("\n\n")
    return "\n\n".join(sorted(threads, key=lambda thread: " in run_leaf" not in thread))


def unsent_failure(leaf: Leaf, error: Exception) -> Failure:
    """Return the failure of a leaf that could not be sent, or whose outcome could not be read."""
    name = culprit_among(leaf.parameters or {}) if leaf.key.candidate else None
    if name is not None:
        unsent = UnpicklableModelError(
            f"parameter {name!r} of {leaf.key} cannot be sent to a worker: {error}"
        )
        unsent.__cause__ = error
        error = unsent
    return failure_of("worker", error)
