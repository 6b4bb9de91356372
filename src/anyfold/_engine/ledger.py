"""What has come of a run so far: outcomes by key, recorded first, and only then told."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from itertools import groupby
from operator import itemgetter

from anyfold._data.serialize import loads
from anyfold._engine.events import Event, TaskFinished
from anyfold._engine.relay import Relay
from anyfold._plan.task import Failure, LoggedMessage, Outcome, Place, TaskKey
from anyfold._worker.failures import failure_of

__all__ = ["Ledger"]

MOST_UNCOUNTED = 500
"""Outcomes that are recorded at once, where they come faster than they can be."""

GROUP_SECONDS = 0.01
"""How long an outcome may wait for others that are recorded with it, while no worker waits for that; what
took longer to compute is recorded as soon as nothing more has arrived."""


@dataclass(slots=True)
class Ledger:
    """The outcomes of a run, and what is to be done with each."""

    outcomes: dict[TaskKey, Outcome]
    """Is filled, so that what has finished is there however the run ends."""
    record: Callable[[Iterable[Outcome]], None] | None
    """Is given outcomes before they are counted, all that have arrived in one call."""
    observe: Callable[[Event], None]
    rank: Callable[[TaskKey], int]
    relay: Relay
    leaf_seconds: float | None = None
    """What a leaf takes, by those that came last."""
    _uncounted: dict[TaskKey, Outcome] = field(default_factory=dict)
    """Finished, and not yet recorded and told."""
    _due: float = 0.0
    """When these are to be recorded though more may come, by the monotonic clock."""
    _attempts: Counter[TaskKey] = field(default_factory=Counter)
    _places: dict[Place | None, Place | None] = field(default_factory=dict)

    def start(self, key: TaskKey) -> int:
        """Count an attempt and return how many there were."""
        self._attempts[key] += 1
        return self._attempts[key]

    def take(self, key: TaskKey, data: bytes) -> Outcome | None:
        """Enter what a worker has sent; None where there is an outcome already."""
        if key in self.outcomes:
            return None
        try:
            outcome: Outcome = loads(data)
        except Exception as error:
            outcome = Outcome(key, failure=failure_of("result", error))
        seconds = max(0.0, outcome.ended - outcome.started)
        self.leaf_seconds = seconds if self.leaf_seconds is None else 0.8 * self.leaf_seconds + 0.2 * seconds
        # What many outcomes have in common is kept once: there may be hundreds of thousands.
        place = self._places.setdefault(outcome.place, outcome.place)
        return self._enter(replace(outcome, key=key, place=place, attempts=self._times(key)))

    def fail(self, key: TaskKey, failure: Failure) -> Outcome | None:
        """Enter a failure that no worker has sent; None where there is an outcome already."""
        if key in self.outcomes:
            return None
        return self._enter(Outcome(key, failure=failure, attempts=self._times(key)))

    def _times(self, key: TaskKey) -> int:
        return max(1, self._attempts[key])

    def _enter(self, outcome: Outcome) -> Outcome:
        """Keep an outcome; where Ctrl-C comes in between all this can be done once more."""
        quiet = outcome
        if outcome.logs or outcome.output or outcome.parts:
            parts = tuple(replace(part, logs=(), output=()) for part in outcome.parts if part.warnings)
            messages = tuple(map(_message, outcome.logs))
            output = _joined(outcome.output)
            quiet = replace(outcome, logs=(), messages=messages, output=output, parts=parts)
        self.relay.take(self.rank(outcome.key), outcome)
        is_long = quiet.ended - quiet.started > GROUP_SECONDS
        due = time.monotonic() + (0.0 if is_long or self.record is None else GROUP_SECONDS)
        self._due = min(self._due, due) if self._uncounted else due
        self._uncounted[outcome.key] = quiet
        self.outcomes[outcome.key] = quiet
        self._attempts.pop(outcome.key, None)
        return quiet

    @property
    def may_wait(self) -> float | None:
        """Seconds for which what has finished may wait to be recorded with more; None where nothing waits."""
        return max(0.0, self._due - time.monotonic()) if self._uncounted else None

    @property
    def is_full(self) -> bool:
        """Whether it is time to settle, though more is coming."""
        return len(self._uncounted) >= MOST_UNCOUNTED

    def settle(self) -> None:
        """Record what has finished, and only then tell of it."""
        counted = list(self._uncounted.values())
        if counted and self.record is not None:
            self.record(counted)  # before they are forgotten here: it may be interrupted
        for outcome in counted:
            del self._uncounted[outcome.key]
            self.observe(TaskFinished(outcome))

    def forget_interrupted(self) -> None:
        """Take back what may be due to the caller's own Ctrl-C: a terminal sends it to workers as well."""
        for key in [key for key, outcome in self.outcomes.items() if _was_interrupted(outcome)]:
            del self.outcomes[key]
            self._uncounted.pop(key, None)


def _message(record: logging.LogRecord) -> LoggedMessage:
    text = record.getMessage()
    if record.exc_text:
        text = f"{text}\n{record.exc_text}"
    return LoggedMessage(record.name, record.levelno, text)


def _joined(output: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """Put together what was printed to the same stream without a break."""
    runs = groupby(output, key=itemgetter(0))
    return tuple((stream, "".join(text for _, text in pieces)) for stream, pieces in runs)


def _was_interrupted(outcome: Outcome) -> bool:
    return outcome.failure is not None and outcome.failure.type_name == KeyboardInterrupt.__name__
