"""Whether rows are worth giving to several workers, and into how many parts.

A model's own call is never to be slower by more than a tenth. So nothing is tried unless there are so many
rows that trying costs little; what a call costs is then measured on some of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

__all__ = ["CallCost", "Outlook", "looks", "numbers_kept", "partitions_worth"]

MANY_ROWS = 1 << 16
"""From so many on, what a call costs beside its rows is little against them: some ms with column
transformers, some ten ms with forests, measured against microseconds per row."""

FEW_ROWS = 1 << 11
HEAVY = 1 << 27
"""Rows times numbers that a model keeps: neighbours, support vectors and the like look at most of the numbers
for each row, so that this many are some tenths of a second."""

LOOKED_AT = 128
"""The first look takes one row of so many, the second one twice as many."""

WORTH_SPLITTING = 0.5
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
class CallCost:
    """What calls of one method cost."""

    fixed: float
    """Seconds of a call, however few rows it has."""
    per_row: float
    """Seconds."""
    cores: float
    """Processors that the call keeps busy by itself."""

    @classmethod
    def of(cls, n_rows: int, first: float, second: float, cores: float) -> CallCost:
        """Conclude from the seconds of two looks, the second one at twice as many rows."""
        per_row = max(0.0, second - first) / n_rows
        return cls(max(0.0, first - per_row * n_rows), per_row, max(1.0, cores))

    def seconds(self, n_rows: int) -> float:
        """Return what the model's own call takes."""
        return self.fixed + self.per_row * n_rows


@dataclass(frozen=True, slots=True)
class Outlook:
    """What awaits a run."""

    n_workers: int
    are_there: bool
    """Whether the workers have been started already."""


def looks(n_rows: int, n_numbers: int) -> int:
    """Return how many rows the first look should take; 0 where there are too few to try anything."""
    if n_rows >= MANY_ROWS or (n_rows >= FEW_ROWS and n_rows * n_numbers >= HEAVY):
        return n_rows // LOOKED_AT
    return 0


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
    if own < WORTH_SPLITTING or outlook.n_workers < 2:
        return None
    work = cost.per_row * n_rows * max(1.0, cost.cores / inner_threads)
    at_least = max(PARTITION_SECONDS, 10 * cost.fixed)
    at_most = PARTITIONS_PER_WORKER * outlook.n_workers
    n_partitions = max(outlook.n_workers, min(int(work / at_least), at_most))
    split = (
        (0.0 if outlook.are_there else START_SECONDS)
        + HANDING_OUT
        + n_bytes / BYTES_PER_SECOND
        + (work + n_partitions * cost.fixed) / outlook.n_workers
    )
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
