"""What is told of a task that failed or warned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from anyfold._plan.task import REFIT, Outcome, Stage, TaskKey
from anyfold.errors import WorkerTraceback
from anyfold.results.payload import load

__all__ = ["FailureRecord", "WarningRecord", "failures_of", "warnings_of"]


@dataclass(frozen=True, slots=True, repr=False)
class FailureRecord:
    """One task that failed.

    Parameters
    ----------
    model : str
        Name of the model.
    fold : int
        Number of the fold, from 0; -1 for a fit on all data.
    parameters : Mapping
        Parameters of the model, by name.
    stage : {"data", "fit", "predict", "score", "worker", "result"}
        What was being done: ``"data"`` means that the data was being made on the worker, ``"worker"`` that
        the worker ended or ran out of time, ``"result"`` that what the task returned could not be sent back.
    type : str
        Name of the exception's type.
    message : str
        The exception's message.
    traceback : str
        The worker's traceback as text.
    pickled : bytes, default=None
        The exception as it was sent, for `exception`; None where it could not be pickled.

    Examples
    --------
    >>> FailureRecord("rf", 2, {}, "fit", "ValueError", "Input X contains NaN.", "Traceback …")
    FailureRecord(model='rf', fold=2, stage='fit', ValueError: Input X contains NaN.)
    """

    model: str
    fold: int
    parameters: Mapping[str, Any] = field(compare=False)
    stage: Stage
    type: str
    message: str
    traceback: str
    pickled: bytes | None = field(default=None, compare=False)

    def __repr__(self) -> str:
        first, *more = self.message.splitlines() or [""]
        shown = first if not more and len(first) <= 200 else f"{first[:200]} …"
        error = f"{self.type}: {shown}" if shown else self.type
        fold = "" if self.fold == REFIT else f"fold={self.fold}, "
        return f"FailureRecord(model={self.model!r}, {fold}stage={self.stage!r}, {error})"

    def exception(self) -> BaseException:
        """Return the original exception, with the worker's traceback as its cause.

        Returns
        -------
        BaseException
            Unpickled at each call; a `WorkerTraceback` where the original could not be pickled.

        Raises
        ------
        UnreadableResultError
            If it cannot be unpickled here.
        """
        told = WorkerTraceback(self.traceback)
        if self.pickled is None:
            return told
        error: BaseException = load(self.pickled, "exception", TaskKey(self.model, 0, self.fold))
        if error.__cause__ is None:
            error.__cause__ = told
        return error


@dataclass(frozen=True, slots=True)
class WarningRecord:
    """One warning that a task issued on its worker.

    Parameters
    ----------
    model : str
        Name of the model.
    fold : int
        Number of the fold, from 0; -1 for a fit on all data.
    category : type
        Class of the warning.
    message : str
        Its text.
    filename : str
        File that issued it, on the worker.
    lineno : int
        Line in that file.

    Examples
    --------
    >>> WarningRecord("rf", 2, UserWarning, "too few", "model.py", 3).message
    'too few'
    """

    model: str
    fold: int
    category: type[Warning]
    message: str
    filename: str
    lineno: int


def failures_of(outcome: Outcome, parameters: Mapping[str, Any]) -> tuple[FailureRecord, ...]:
    """Return the failure of a task, if there is one."""
    failure = outcome.failure
    if failure is None:
        return ()
    return (
        FailureRecord(
            outcome.key.model,
            outcome.key.fold,
            parameters,
            failure.stage,
            failure.type_name,
            failure.message,
            failure.traceback,
            failure.exception,
        ),
    )


def warnings_of(outcome: Outcome) -> tuple[WarningRecord, ...]:
    """Return the warnings of a task in the order in which it issued them."""
    model, fold = outcome.key.model, outcome.key.fold
    return tuple(
        WarningRecord(model, fold, told.category, told.message, told.filename, told.lineno)
        for told in outcome.warnings
    )
