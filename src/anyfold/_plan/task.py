"""The values that travel between the plan, the engine, the workers and the results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from logging import LogRecord
from typing import Any, ClassVar, Literal, Self

__all__ = [
    "REFIT",
    "Failure",
    "FitCost",
    "FoldScores",
    "Leaf",
    "LoggedMessage",
    "Outcome",
    "Place",
    "RelayedWarning",
    "TaskKey",
]

REFIT = -1
"""The ``fold`` of a fit on all data."""

Stage = Literal["data", "fit", "predict", "score", "worker", "result"]


class Compact:
    """Pickled as a call with its fields: smaller and quicker than what `dataclasses` does for slots."""

    __slots__ = ()
    __match_args__: ClassVar[tuple[str, ...]]

    def __reduce__(self) -> tuple[type[Self], tuple[Any, ...]]:
        return type(self), tuple([getattr(self, name) for name in self.__match_args__])


@dataclass(frozen=True, slots=True, order=True)
class TaskKey(Compact):
    """What identifies a result: never a position, never an order of arrival."""

    model: str
    candidate: int
    """Of a search, from 1 on; 0 where there is only the model as it was given."""
    fold: int

    def __str__(self) -> str:
        where = "refit" if self.fold == REFIT else f"fold {self.fold}"
        candidate = f", candidate {self.candidate}" if self.candidate else ""
        return f"model {self.model!r}{candidate}, {where}"

    @classmethod
    def names(cls, model: str, folds: Sequence[int]) -> str:
        """Name several of one model."""
        if list(folds) == [REFIT]:
            return f"model {model!r}, refit"
        noun = "fold" if len(folds) == 1 else "folds"
        return f"model {model!r}, {noun} {', '.join(map(str, sorted(folds)))}"


@dataclass(frozen=True, slots=True)
class Leaf(Compact):
    """One task, the smallest thing that runs: small enough to be sent with every unit."""

    key: TaskKey
    parameters: Mapping[str, Any] | None = None

    def parts(self) -> Sequence[Leaf]:
        """Return what it can be taken apart into, where it stands for several things."""
        return ()


@dataclass(frozen=True, slots=True)
class Place(Compact):
    """Where an outcome was computed."""

    host: str
    pid: int
    thread: str


@dataclass(frozen=True, slots=True)
class RelayedWarning(Compact):
    """A warning that a task issued on a worker."""

    category: type[Warning]
    message: str
    filename: str
    lineno: int


@dataclass(frozen=True, slots=True)
class LoggedMessage:
    """What is kept of a logging record: no more than a text, since records may hold anything."""

    logger: str
    level: int
    message: str
    """With the traceback, where there is one."""


@dataclass(frozen=True, slots=True)
class Failure(Compact):
    """Why a task has no result: an error of the model, or of the worker that ran it."""

    stage: Stage
    type_name: str
    message: str
    traceback: str
    exception: bytes | None = None
    """The pickled original exception; None where it cannot be pickled."""


@dataclass(frozen=True, slots=True)
class FoldScores(Compact):
    """What one model achieved on one fold."""

    test: Mapping[str, float]
    train: Mapping[str, float] | None
    fit_time: float
    """Seconds."""
    score_time: float
    """Seconds."""
    n_shared: int = field(default=0, compare=False)
    """How many steps were taken fitted from other tasks."""
    saved_time: float = field(default=0.0, compare=False)
    """Seconds that this saved; they count in the other times all the same."""


@dataclass(frozen=True, slots=True)
class FitCost:
    """What it took to fit one model on all of its data."""

    data_time: float
    """Seconds until the data was there."""
    fit_time: float
    """Seconds."""
    peak_memory: float
    """Bytes by which the worker's resident memory grew at most; NaN where that cannot be known."""


@dataclass(frozen=True, slots=True)
class Outcome(Compact):
    """What became of one task; compact, since the caller holds all of them."""

    key: TaskKey
    value: Any = None
    """What the task returned, such as a `FoldScores` or a `FitCost`; None where it failed."""
    failure: Failure | None = None
    warnings: tuple[RelayedWarning, ...] = ()
    logs: tuple[LogRecord, ...] = ()
    """As the task made them; passed on, and kept as `messages`."""
    messages: tuple[LoggedMessage, ...] = ()
    output: tuple[tuple[str, str], ...] = ()
    """Name of the stream and text of what was printed, in order."""
    payload: bytes | None = None
    """Pickled extras that are asked for by name: fitted estimator, predictions."""
    place: Place | None = None
    started: float = 0.0
    """Seconds since the epoch, by the worker's clock."""
    ended: float = 0.0
    attempts: int = field(default=1, compare=False)
    """How often the task was started, lost workers included."""
    n_items: int = 1
    """How many items of a map it stands for."""
    parts: tuple[Outcome, ...] = ()
    """Of these, the ones that had something to say."""
