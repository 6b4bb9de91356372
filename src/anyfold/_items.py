"""The items of a map: how they go to the engine in groups, and how their values come back in order.

inputs ──drawn as needed──> Items ──groups──> the engine ──> Returned ──> values
                              ▲                                 │
                              └────── what a group has left ────┘
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any

from anyfold._data.readable import readable_items
from anyfold._data.serialize import dumps, loads
from anyfold._plan.groups import SHORTEST_GROUP, Group, ItemKey, group_size
from anyfold._plan.task import Failure, Leaf, Outcome, TaskKey
from anyfold._reply import exception_of
from anyfold._worker.failures import failure_of
from anyfold._worker.mapping import Kept
from anyfold.errors import AnyfoldError, UnreadableResultError, WorkerTraceback

__all__ = ["Items", "Returned", "index_of", "values_of"]

START = 64
"""Items of a group when it is not known what they take; those that turn out to be long are given back."""


@dataclass(slots=True)
class Left:
    """Items that are still to be done of a group."""

    first: int
    """Index of the first one."""
    items: deque[Any]
    alone: bool
    """Whether each has to go by itself, since one of them is not like the others."""

    def take(self, size: int) -> tuple[int, list[Any]]:
        """Return the first items and the index of the first."""
        first = self.first
        taken = [self.items.popleft() for _ in range(min(1 if self.alone else size, len(self.items)))]
        self.first += len(taken)
        return first, taken


class Returned(dict[TaskKey, Outcome]):
    """The outcomes of groups until they are given out; what was given out counts as there.

    Parameters
    ----------
    kept : dict, optional
        Where values are that never left the caller's process.
    ordered : bool
        Whether values are given out in the order of their items.
    """

    def __init__(self, kept: Kept | None, *, ordered: bool) -> None:
        super().__init__()
        self.groups: dict[TaskKey, Group] = {}
        """Those that may be given back."""
        self.given_back: deque[Left] = deque()
        """What is left to do of some."""
        self.failed = False
        self.item_seconds: float | None = None
        self.item_bytes = 0.0
        self.measured = 0
        """Items of the largest group that was measured."""
        self._kept = kept
        self._ordered = ordered
        self._next = 0
        """All items before this one were given out."""
        self._ready: dict[int, Outcome] = {}
        """By the index of the first item."""
        self._before_their_turn: dict[int, int] = {}
        """How many items were given out from these on."""

    def __contains__(self, key: object) -> bool:
        assert isinstance(key, TaskKey)
        return super().__contains__(key) or key.fold < self._next or key.fold in self._before_their_turn

    def __setitem__(self, key: TaskKey, outcome: Outcome) -> None:
        super().__setitem__(key, outcome)
        group = self.groups.pop(key, None)
        if outcome.failure is not None:
            self.failed = True
        elif group is not None and outcome.n_items < key.candidate:
            left = deque(islice(group.items, outcome.n_items, None))
            self.given_back.append(Left(key.fold + outcome.n_items, left, alone=not outcome.n_items))
        if outcome.n_items:
            self._ready[key.fold] = outcome
            self._measure(outcome)

    def _measure(self, outcome: Outcome) -> None:
        if outcome.failure is not None or outcome.ended <= outcome.started:
            return
        elapsed = outcome.ended - outcome.started
        seconds = elapsed / outcome.n_items
        if self.item_seconds is None or outcome.n_items > self.measured:
            # In a larger group, less of its time is due to what surrounds it.
            self.item_seconds, self.measured = seconds, outcome.n_items
        elif elapsed > SHORTEST_GROUP:
            self.item_seconds = (self.item_seconds + seconds) / 2
        else:
            # A group that is over at once says no more than what an item takes at most.
            self.item_seconds = min(self.item_seconds, seconds)
        if isinstance(outcome.value, bytes):
            self.note_bytes(len(outcome.value) / outcome.n_items)

    def note_bytes(self, n_bytes: float) -> None:
        """Take note of what an item has in bytes."""
        self.item_bytes = max(n_bytes, (self.item_bytes + n_bytes) / 2)

    @property
    def n_ready(self) -> int:
        """How many groups wait to be given out."""
        return len(self._ready)

    @property
    def can_give_out(self) -> bool:
        """Whether `give_out` has something."""
        return self._next in self._ready if self._ordered else bool(self._ready)

    def give_out(self) -> Outcome:
        """Return the next outcome and forget it."""
        first = self._next if self._ordered else next(iter(self._ready))
        outcome = self._ready.pop(first)
        self.pop(outcome.key, None)
        self._before_their_turn[first] = outcome.n_items
        while (n_items := self._before_their_turn.pop(self._next, None)) is not None:
            self._next += n_items
        return outcome

    def values_of(self, outcome: Outcome) -> tuple[list[Any], BaseException | None]:
        """Return the values of a group, and the exception that ended it."""
        return values_of(outcome, self._kept)

    def finished(self) -> dict[int, Any]:
        """Return by index the values that were not given out."""
        found: dict[int, Any] = {}
        for first, outcome in sorted(self._ready.items()):
            found.update(enumerate(self.values_of(outcome)[0], first))
        return found


def values_of(outcome: Outcome, kept: Kept | None) -> tuple[list[Any], BaseException | None]:
    """Return the values of a group, and the exception that ended it, with a note that names the item."""
    values: list[Any] = []
    error: BaseException | None = None
    assert isinstance(outcome.key, ItemKey)
    if kept is not None and outcome.key in kept:
        values, error = kept.pop(outcome.key)
    else:
        if isinstance(outcome.value, bytes):
            try:
                values = loads(outcome.value)
            except Exception as unreadable:
                values = readable_items(outcome.value)
                key = replace(outcome.key, candidate=1, fold=outcome.key.fold + len(values))
                error = UnreadableResultError(f"{key}: what came back cannot be read here")
                error.__cause__ = unreadable
                return values, error
        if outcome.failure is not None:
            error = _original(outcome.failure)
    if error is not None:
        if not isinstance(error, Exception):
            # SystemExit would end the caller's program without a word; an interrupt is the user's own.
            told, error = error, AnyfoldError(f"the function raised {error!r}, which is no Exception")
            error.__cause__ = told
        error.add_note(f"raised by {replace(outcome.key, candidate=1, fold=outcome.key.fold + len(values))}")
    return values, error


def _original(failure: Failure) -> BaseException:
    error = exception_of(failure)
    if error.__cause__ is None and failure.exception is not None:
        error.__cause__ = WorkerTraceback(failure.traceback)
    return error


class Items:
    """Draws inputs as the engine asks for them and puts them into groups.

    Parameters
    ----------
    name : str
        Of the function.
    inputs : iterator
        Of items.
    n_inputs : int or None
        How many there are, where it is known.
    n_workers : int
        Who share them.
    returned : Returned
        What has come back.
    packed : bool
        Whether items travel to other processes.
    alone : bool
        Whether each item is a group.
    ahead : int or None
        Finished groups that may wait to be given out; None where all are wanted at once.
    """

    def __init__(
        self,
        name: str,
        inputs: Iterator[Any],
        n_inputs: int | None,
        n_workers: int,
        returned: Returned,
        *,
        packed: bool,
        alone: bool,
        ahead: int | None,
    ) -> None:
        self.error: Exception | None = None
        """What the inputs raised, to be raised behind the last item that was drawn."""
        self.refuse: Callable[[Leaf, Failure], None]
        """Is told of an item that cannot be sent; set by who has the run."""
        self._name = name
        self._inputs = inputs
        self._n_inputs = n_inputs
        self._n_workers = n_workers
        self._returned = returned
        self._pack = self._packed if packed else None
        self._alone = alone
        self._ahead = ahead
        self._n_drawn = 0
        self._largest = 1
        self._start = 1 if ahead is not None else START

    def __iter__(self) -> Iterator[Leaf]:
        return self

    def __next__(self) -> Leaf:
        """Return the next group; there may be more later, where there is none now."""
        returned = self._returned
        while returned.given_back:
            left = returned.given_back[0]
            first, items = left.take(self._size())
            if not left.items:
                returned.given_back.popleft()
            if (group := self._group(first, items)) is not None:
                return group
        if returned.failed or self.error is not None or self._is_far_ahead():
            raise StopIteration
        items = self._drawn(self._size())
        if not items:
            raise StopIteration
        first, self._n_drawn = self._n_drawn, self._n_drawn + len(items)
        self._largest = max(self._largest, len(items))
        return self._group(first, items) or next(self)

    def has_more(self) -> bool:
        """Return whether an item is left; where nobody knows how many there are, one is drawn to see."""
        if self._returned.given_back:
            return True
        if self._n_inputs is not None:
            return self._n_drawn < self._n_inputs
        following = self._drawn(1)
        self._inputs = chain(following, self._inputs)
        return bool(following)

    def _drawn(self, size: int) -> list[Any]:
        items: list[Any] = []
        if self.error is None:
            try:
                items.extend(islice(self._inputs, size))
            except Exception as error:
                self.error = error
        return items

    def _is_far_ahead(self) -> bool:
        return self._ahead is not None and self._returned.n_ready >= self._ahead

    def _size(self) -> int:
        returned = self._returned
        if self._alone or not (returned.item_bytes or self._pack is None):
            return 1  # the first one shows how large they are
        if self._pack is not None and not self._n_drawn:
            self._look_at_the_first(self._pack)
        n_left = None
        if self._n_inputs is not None:
            given_back = sum(len(left.items) for left in returned.given_back)
            n_left = max(0, self._n_inputs - self._n_drawn) + given_back
        largest = max(self._largest, self._start, returned.measured)
        return group_size(
            n_left, self._n_workers, returned.item_seconds, returned.item_bytes, largest, self._start
        )

    def _look_at_the_first(self, pack: Callable[[Sequence[Any]], bytes]) -> None:
        """See whether items are larger than those of an earlier call of the function."""
        following = self._drawn(1)
        self._inputs = chain(following, self._inputs)
        with contextlib.suppress(Exception):  # it will be named when it is its turn
            pack(following)

    def _group(self, first: int, items: list[Any]) -> Group | None:
        """Make a group; where an item cannot be sent, they will go one by one up to that, which fails."""
        key = ItemKey(self._name, len(items), first)
        try:
            group = Group.of(key, items, self._pack)
        except Exception as error:
            if len(items) > 1:
                self._returned.given_back.appendleft(Left(first, deque(items), alone=True))
            else:
                wanted = [left for left in self._returned.given_back if left.first < first]
                self._returned.given_back = deque(wanted)
                self.refuse(Leaf(key), failure_of("worker", error))
            return None
        if len(items) > 1:
            self._returned.groups[key] = group
        return group

    def _packed(self, items: Sequence[Any]) -> bytes:
        data = dumps(items)
        self._returned.note_bytes(len(data) / len(items))
        return data


def index_of(key: TaskKey) -> int:
    """Return the index of the first item of a group."""
    return key.fold
