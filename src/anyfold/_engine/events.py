"""What happens during a run, as values, and who is told of it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from anyfold._plan.task import Outcome, TaskKey
from anyfold.errors import AnyfoldWarning

__all__ = ["Event", "RunFinished", "RunStarted", "TaskFinished", "TaskStarted", "observer"]


@dataclass(frozen=True, slots=True)
class RunStarted:
    """A run begins.

    Attributes
    ----------
    n_tasks : int or None
        How many tasks, or items of a map, are to be run; None where nobody knows.
    n_workers : int
        How many run at once.
    n_taken : int
        How many more were taken from a journal; nothing is told of them.

    Examples
    --------
    >>> RunStarted(n_tasks=10, n_workers=2)
    RunStarted(n_tasks=10, n_workers=2, n_taken=0)
    """

    n_tasks: int | None
    n_workers: int
    n_taken: int = 0


@dataclass(frozen=True, slots=True)
class TaskStarted:
    """A worker begins a task.

    Attributes
    ----------
    key : TaskKey
        Which task: ``key.model``, the name of the model; ``key.fold``, from 0, or -1 for a fit on all data;
        ``key.candidate``, the number of a search's candidate from 1, otherwise 0.
    attempt : int
        1, and one more each time that a lost worker is the reason for running it again.

    Examples
    --------
    >>> TaskStarted(TaskKey("rf", 0, 2), attempt=1)
    TaskStarted(key=TaskKey(model='rf', candidate=0, fold=2), attempt=1)
    """

    key: TaskKey
    attempt: int


@dataclass(frozen=True, slots=True)
class TaskFinished:
    """A task has an outcome, good or bad; with a journal, it is on record by now.

    Attributes
    ----------
    outcome : Outcome
        What became of it: ``outcome.key``, as for `TaskStarted`; ``outcome.value``, for a fold its
        ``test`` and ``train`` scores, ``fit_time`` and ``score_time`` in seconds, or None;
        ``outcome.failure``, None or an error's ``type_name``, ``message``, ``traceback`` and ``stage``, which
        says what was being done; ``outcome.place``, the worker's ``host``, ``pid`` and ``thread``, None where
        it is not known; ``outcome.started`` and ``outcome.ended``, seconds since the epoch by the worker's
        clock; ``outcome.attempts``; ``outcome.warnings``.

    Examples
    --------
    >>> event = TaskFinished(Outcome(TaskKey("rf", 0, 2), started=10.0, ended=12.5))
    >>> str(event.outcome.key), event.outcome.ended - event.outcome.started
    ("model 'rf', fold 2", 2.5)
    """

    outcome: Outcome


@dataclass(frozen=True, slots=True)
class RunFinished:
    """A run ends, for whatever reason: all is done, time is over, Ctrl-C, an error.

    Examples
    --------
    >>> RunFinished()
    RunFinished()
    """


Event = RunStarted | TaskStarted | TaskFinished | RunFinished


def observer(listeners: Iterable[Callable[[Event], object]]) -> Callable[[Event], None]:
    """Return what tells everybody who wants to know; a callback that raises is not called again."""
    listeners = list(listeners)

    def tell(event: Event) -> None:
        for listener in list(listeners):
            try:
                listener(event)
            except Exception as error:
                listeners.remove(listener)
                warnings.warn(
                    f"the callback {listener!r} raised {type(error).__name__}: {error}; it is not called "
                    "again in this run",
                    AnyfoldWarning,
                    stacklevel=2,
                )

    return tell
