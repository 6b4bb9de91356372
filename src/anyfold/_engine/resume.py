"""What one run takes from a journal and writes to it."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping

from anyfold._engine.journal import Journal, Terms
from anyfold._plan.content import ContentKey, JournalUse
from anyfold._plan.task import Outcome, TaskKey

__all__ = ["Resumption"]


class Resumption:
    """One run beside a journal.

    Parameters
    ----------
    journal : Journal
        Stays open as long as the run lasts.
    keys : mapping of TaskKey to ContentKey
        All tasks of the run.
    terms : Terms
        What the run wants of each outcome.

    Attributes
    ----------
    taken : dict of TaskKey to Outcome
        What was there already and need not be computed.
    """

    def __init__(self, journal: Journal, keys: Mapping[TaskKey, ContentKey], terms: Terms) -> None:
        self._journal = journal
        self._keys = keys
        self._terms = terms
        self._lock = threading.RLock()  # Ctrl-C may leave it taken, and the same thread records once more
        self.taken = journal.lookup(keys, terms)

    def record(self, outcomes: Iterable[Outcome]) -> None:
        """Write down what has finished; when this returns it survives the death of the process."""
        finished = [(self._keys[outcome.key], outcome) for outcome in outcomes]
        with self._lock:  # two runs may be at work on the same tasks
            self._journal.record(finished, self._terms)

    @property
    def use(self) -> JournalUse:
        """What the journal did for this run so far."""
        wanted = ["fitted estimators"] * self._terms.estimators + ["predictions"] * self._terms.predictions
        told = f"{' and '.join(wanted)} are not kept in a journal: all tasks were computed"
        return JournalUse(
            path=str(self._journal.path),
            taken=frozenset(self.taken),
            untrusted={
                task.model: content.reason for task, content in self._keys.items() if content.digest is None
            },
            reason=told if wanted else "",
            stopped=self._journal.stopped,
        )
