"""Whether rows are worth giving to several workers, and into how many parts.

A model's own call is never to be slower by more than a tenth. So nothing is tried unless there are so many
rows that trying costs little; what a call costs is then measured on some of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

__all__ = [
    "FEW_ROWS",
    "FIRST_LOOK",
    "SECOND_LOOK",
    "WORTH_SPLITTING",
    "CallCost",
    "Look",
    "Outlook",
    "is_worth_a_look",
    "numbers_kept",
    "partitions_worth",
]

MANY_ROWS = 1 << 17
"""From so many on a look costs less than a tenth of them all: beside its rows a call takes up to some ms with
column transformers and some ten ms with forests, against 0.4 and 7 microseconds for a row."""

FEW_ROWS = 1 << 11
HEAVY = 1 << 27
"""Rows times numbers that a model keeps: neighbours, support vectors and the like look at most of the numbers
for each row, so that this many are some tenths of a second."""

FIRST_LOOK = 32
"""One row of so many: enough that what a call costs beside its rows does not pass for theirs."""

SECOND_LOOK = 128
"""One row of so many, to tell the one from the other."""

WORTH_SPLITTING = 1.0
"""Seconds of the model's own call below which no split could save what it costs."""

START_SECONDS = 3.0
"""What it takes to start workers, with what they import."""

BYTES_PER_SECOND = 5e8
"""At which data and models are sent."""

HANDING_OUT = 0.05
"""Seconds of a run that has nothing to do."""

CLEARLY = 0.8
"""Share of the model's own time that a split must be expected to need at most."""

PARTITION_SECONDS = 0.1
PARTITIONS_PER_WORKER = 4


@dataclass(frozen=True, slots=True)
class Look:
    """What a call for some of the rows took."""

    n_rows: int
    wall: float
    """Seconds."""
    cpu: float
    """Seconds of all threads."""

    @property
    def seconds(self) -> float:
        """What it would have taken if nobody else had used the processors."""
        return min(self.wall, self.cpu)

    @property
    def cores(self) -> float:
        """Processors that it kept busy by itself, at least 1."""
        return max(1.0, self.cpu / max(self.wall, 1e-9))


@dataclass(frozen=True, slots=True)
class CallCost:
    """What calls of one method cost."""

    fixed: float
    """Seconds of a call, however few rows it has."""
    per_row: float
    """Seconds."""
    cores: float
    """Processors that the call keeps busy by itself."""

    @classmethod
    def of(cls, larger: Look, smaller: Look) -> CallCost:
        """Conclude from two looks."""
        per_row = max(0.0, larger.seconds - smaller.seconds) / (larger.n_rows - smaller.n_rows)
        return cls(max(0.0, larger.seconds - per_row * larger.n_rows), per_row, larger.cores)

    def seconds(self, n_rows: int) -> float:
        """Return what the model's own call takes."""
        return self.fixed + self.per_row * n_rows


@dataclass(frozen=True, slots=True)
class Outlook:
    """What awaits a run."""

    n_workers: Callable[[], int]
    are_there: Callable[[], bool]
    """Return whether the workers have been started already; takes some milliseconds."""
    takes_long: bool = False
    """Whether counting the workers means connecting to a cluster, for up to some tenths of a second."""


def is_worth_a_look(n_rows: int, n_numbers: int) -> bool:
    """Return whether there are so many rows that trying some costs next to nothing."""
    return n_rows >= MANY_ROWS or (n_rows >= FEW_ROWS and n_rows * n_numbers >= HEAVY)


def partitions_worth(
    cost: CallCost, n_rows: int, n_bytes: int, outlook: Outlook, inner_threads: int
) -> int | None:
    """Return into how many parts to split; None where the model's own call is about as fast.

    Parameters
    ----------
    cost : CallCost
        Measured in the caller's process, with the threads that are used there.
    n_rows : int
        All rows.
    n_bytes : int
        What workers must be sent.
    outlook : Outlook
        Who would do it.
    inner_threads : int
        Threads that each of them may use.
    """
    own = cost.seconds(n_rows)
    if own < WORTH_SPLITTING:
        return None
    beside = (0.0 if outlook.are_there() else START_SECONDS) + HANDING_OUT + n_bytes / BYTES_PER_SECOND
    if beside >= CLEARLY * own or (n_workers := outlook.n_workers()) < 2:
        return None
    work = cost.per_row * n_rows * max(1.0, cost.cores / inner_threads)
    at_least = max(PARTITION_SECONDS, 10 * cost.fixed)
    at_most = PARTITIONS_PER_WORKER * n_workers
    n_partitions = max(n_workers, min(int(work / at_least), at_most))
    split = beside + (work + n_partitions * cost.fixed) / n_workers
    return n_partitions if split < CLEARLY * own else None


def numbers_kept(model: Any) -> int:
    """Count the numbers in the arrays of a fitted model, those of the models that it consists of included."""
    counted: set[int] = set()

    def count(obj: Any, depth: int) -> int:
        if id(obj) in counted or depth > 5:
            return 0
        if hasattr(obj, "get_params") and hasattr(obj, "__dict__"):
            counted.add(id(obj))
            return total(vars(obj).values(), depth)
        if isinstance(obj, list | tuple) and len(obj) < 1000:
            return total(obj, depth)
        size = getattr(obj, "size", 0)
        return size if isinstance(size, int) else 0

    def total(objects: Iterable[Any], depth: int) -> int:
        return sum(count(each, depth + 1) for each in objects)

    return count(model, 0)
