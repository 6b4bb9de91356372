"""What is told of a task that failed or warned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from anyfold._plan.task import REFIT, Outcome, Stage, TaskKey
from anyfold.errors import WorkerTraceback
from anyfold.results.payload import load

__all__ = [
    "FailureRecord",
    "LoggedRecord",
    "OutputRecord",
    "WarningRecord",
    "failures_of",
    "logs_of",
    "output_of",
    "warnings_of",
]


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


@dataclass(frozen=True, slots=True)
class LoggedRecord:
    """One message that a task logged on its worker.

    Parameters
    ----------
    model : str
        Name of the model.
    fold : int
        Number of the fold, from 0; -1 for a fit on all data.
    logger : str
        Name of the logger.
    level : int
        As `logging` counts levels: 20 is INFO, 30 is WARNING.
    message : str
        Its text, with the traceback where there is one.

    Examples
    --------
    >>> LoggedRecord("rf", 2, "forest", 20, "tree 7 is grown").message
    'tree 7 is grown'
    """

    model: str
    fold: int
    logger: str
    level: int
    message: str


@dataclass(frozen=True, slots=True)
class OutputRecord:
    r"""What a task printed to one stream, until it printed to the other.

    Parameters
    ----------
    model : str
        Name of the model.
    fold : int
        Number of the fold, from 0; -1 for a fit on all data.
    stream : {"stdout", "stderr"}
        Where it was printed.
    text : str
        With the ends of its lines.

    Examples
    --------
    >>> OutputRecord("rf", 2, "stdout", "tree 7 is grown\n").stream
    'stdout'
    """

    model: str
    fold: int
    stream: str
    text: str


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


def logs_of(outcome: Outcome) -> tuple[LoggedRecord, ...]:
    """Return what a task logged, in order."""
    model, fold, kept = outcome.key.model, outcome.key.fold, outcome.messages
    return tuple(LoggedRecord(model, fold, told.logger, told.level, told.message) for told in kept)


def output_of(outcome: Outcome) -> tuple[OutputRecord, ...]:
    """Return what a task printed, in order."""
    return tuple(OutputRecord(outcome.key.model, outcome.key.fold, *printed) for printed in outcome.output)
