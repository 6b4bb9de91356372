"""Runs the items of a map on a worker, a group in one go."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count, islice, starmap
from typing import Any

from anyfold._data.kinds import is_readonly_error, private_copy
from anyfold._data.serialize import dumps, loads
from anyfold._plan.groups import LONGEST_GROUP, Group, ItemKey
from anyfold._plan.seeds import NESTED, seed_for
from anyfold._plan.task import Failure, Leaf, Outcome
from anyfold._worker.execute import Produced, seeding_runs
from anyfold._worker.failures import failure_of, is_the_callers
from anyfold._worker.logging_hook import portable_record
from anyfold._worker.said import said_now
from anyfold._worker.seeding import seed_globals
from anyfold.executors.base import Isolation

__all__ = ["Kept", "Mapped"]

AT_ONCE = 16
"""Calls between two looks at the clock, as long as they take no time."""

SHORT = 1e-4
"""Seconds of calls between two looks that are no time."""

Kept = dict[ItemKey, tuple[list[Any], BaseException | None]]
"""By group: its values, and the exception that ended it."""


@dataclass(frozen=True, slots=True)
class Mapped:
    """The work of calling a function with each item."""

    function: Callable[..., Any]
    spread: bool
    """Whether an item is a tuple of arguments, not the only one."""
    root_seed: int | None
    """Each item is seeded from it; None where groups are, with what nobody knows."""
    isolation: Isolation
    caller: int
    """Process id."""
    kept: Kept | None
    """Where values stay in the caller's own process, as they are."""

    def run(self, leaf: Leaf, *, writable: bool) -> Produced:
        """Call the function with one item after another, until one fails or the time is up."""
        assert isinstance(leaf, Group)
        assert isinstance(leaf.key, ItemKey)
        items = leaf.load
        if isinstance(items, bytes):
            try:
                items = loads(items)
            except Exception:
                if leaf.key.candidate == 1:
                    raise
                return Produced(None, n_items=0)  # one by one it will show which it is
        values, error, parts = self._called(leaf.key, items)
        if self.kept is not None:
            self.kept[leaf.key] = values, error
            failure = None if error is None else failure_of("fit", error)
            return Produced(None, failure=failure, n_items=len(values) + bool(failure), parts=parts)
        failure = None if error is None else failure_of("fit", error)
        try:
            data = dumps(values)
        except Exception:
            values, failure = _up_to_unpicklable(values)
            data = dumps(values)
        return Produced(data, failure=failure, n_items=len(values) + bool(failure), parts=parts)

    def _called(
        self, key: ItemKey, items: Sequence[Any]
    ) -> tuple[list[Any], BaseException | None, tuple[Outcome, ...]]:
        values: list[Any] = []
        notes = _Notes(values)
        said = said_now()
        said.warnings, said.logs, said.output = notes.warnings, notes.logs, notes.output
        # Runs inside of items that are not seeded must not have the seed of their group in common.
        with seeding_runs(None) if self.root_seed is None else contextlib.nullcontext():
            error = self._call_all(key.fold, items, values, notes)
        said.warnings, said.logs, said.output = [], [], []
        return values, error, notes.parts(key)

    def _call_all(
        self, first: int, items: Sequence[Any], values: list[Any], notes: _Notes
    ) -> BaseException | None:
        calls = self._calls(self.function, first, items)
        take, clock = values.extend, time.monotonic
        now = clock()
        ends = now + LONGEST_GROUP
        at_once = 1
        while True:
            try:
                while True:
                    wanted = len(values) + at_once
                    take(islice(calls, at_once))
                    if len(values) < wanted:
                        break
                    began, now = now, clock()
                    if now > ends:
                        return None
                    at_once = min(2 * at_once, AT_ONCE) if now - began < SHORT else 1
            except BaseException as error:
                if self.isolation == "none" and is_the_callers(error):
                    raise
                if self.kept is not None or not is_readonly_error(error):
                    return error
                notes.forget(len(values))
                failed = self._call_on_copies(first, items, values)
                if failed is not None or clock() > ends:
                    return failed
            else:
                # A function that raises StopIteration ends the loop as the end of items does.
                return (
                    None if len(values) == len(items) else RuntimeError("the function raised StopIteration")
                )

    def _calls(self, function: Callable[..., Any], first: int, items: Sequence[Any]) -> Iterator[Any]:
        if self.root_seed is not None:
            return map(partial(self._seeded, function), count(first), items)
        return starmap(function, items) if self.spread else map(function, items)

    def _seeded(self, function: Callable[..., Any], index: int, item: Any) -> Any:
        assert self.root_seed is not None
        if self.isolation == "none" or (self.isolation == "process" and os.getpid() != self.caller):
            seed_globals(self.root_seed, index)
        with seeding_runs(seed_for(self.root_seed, NESTED, index)):
            return function(*item) if self.spread else function(item)

    def _call_on_copies(self, first: int, items: Sequence[Any], values: list[Any]) -> BaseException | None:
        """Call the function once more, which has written to what is shared; return its error."""
        position = len(values)
        function, item = private_copy((self.function, items[position]))
        calls = self._calls(function, first + position, [item])
        try:
            values.extend(calls)
        except BaseException as error:
            return error
        return None


class _Noted(list[Any]):
    """What is said, and how many values there were at the time."""

    def __init__(self, values: list[Any]) -> None:
        super().__init__()
        self._values = values
        self.positions: list[int] = []

    def append(self, told: Any) -> None:
        self.positions.append(len(self._values))
        super().append(told)

    def by(self, position: int) -> tuple[Any, ...]:
        return tuple(told for told, at in zip(self, self.positions, strict=True) if at == position)

    def forget(self, position: int) -> None:
        kept = [(told, at) for told, at in zip(self, self.positions, strict=True) if at != position]
        self[:] = [told for told, _ in kept]
        self.positions[:] = [at for _, at in kept]


class _Notes:
    """Tells which item of a group has said what, by the values that were there before."""

    def __init__(self, values: list[Any]) -> None:
        self.warnings, self.logs, self.output = _Noted(values), _Noted(values), _Noted(values)

    def forget(self, position: int) -> None:
        """Forget what an item has said, which is called once more."""
        for noted in (self.warnings, self.logs, self.output):
            noted.forget(position)

    def parts(self, key: ItemKey) -> tuple[Outcome, ...]:
        """Return an outcome of each item that has said something."""
        talkers = {*self.warnings.positions, *self.logs.positions, *self.output.positions}
        return tuple(
            Outcome(
                replace(key, candidate=1, fold=key.fold + position),
                warnings=self.warnings.by(position),
                logs=tuple(map(portable_record, self.logs.by(position))),
                output=self.output.by(position),
            )
            for position in sorted(talkers)
        )


def _up_to_unpicklable(values: list[Any]) -> tuple[list[Any], Failure | None]:
    """Return the values before the first that cannot be pickled, and why it cannot."""
    for position, value in enumerate(values):
        try:
            dumps(value)
        except Exception as error:
            return values[:position], failure_of("result", error)
    return values, None
