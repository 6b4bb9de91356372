"""Maps a function over items on the engine, and gives the values out as they come.

inputs ──drawn as needed──> Items ──groups──> the engine ──> Returned ──> the caller
                              ▲                                 │
                              └────── what a group has left ────┘
"""

from __future__ import annotations

import contextlib
import os
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, islice
from typing import Any, Literal

from anyfold._data.readable import readable_items
from anyfold._data.serialize import dumps, loads
from anyfold._engine.drive import for_a_step, in_caller
from anyfold._engine.relay import issue_warnings
from anyfold._engine.run import Run
from anyfold._plan.groups import Group, ItemKey, group_size
from anyfold._plan.seeds import root_seed
from anyfold._plan.task import Failure, Leaf, Outcome, TaskKey
from anyfold._plan.units import LARGEST_UNIT
from anyfold._reply import exception_of
from anyfold._session import Workers, open_workers, working
from anyfold._worker.failures import failure_of
from anyfold._worker.mapping import Kept, Mapped
from anyfold.errors import AnyfoldError, TimeLimitError, UnreadableResultError, WorkerTraceback
from anyfold.executors._exit import at_interpreter_exit
from anyfold.executors.base import isolation_of
from anyfold.settings import Resolved

__all__ = ["Mapping", "ReturnAs", "Told", "index_of", "values_of"]

ReturnAs = Literal["list", "generator", "generator_unordered"]

START = 64
"""Items of a group when it is not known what they take; those that turn out to be long are given back."""

REMEMBERED = 100
"""Functions of which it is known what their items take."""

AHEAD = 8
"""Finished groups per worker that may wait to be given out before no more input is drawn."""


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
        seconds = (outcome.ended - outcome.started) / outcome.n_items
        if self.item_seconds is None or outcome.n_items > self.measured:
            # In a larger group, less of its time is due to what surrounds it.
            self.item_seconds, self.measured = seconds, outcome.n_items
        else:
            self.item_seconds = (self.item_seconds + seconds) / 2
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
        n_left = None
        if self._n_inputs is not None:
            given_back = sum(len(left.items) for left in returned.given_back)
            n_left = max(0, self._n_inputs - self._n_drawn) + given_back
        largest = max(self._largest, self._start, returned.measured)
        return group_size(
            n_left, self._n_workers, returned.item_seconds, returned.item_bytes, largest, self._start
        )

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


class _Remembered:
    """What items of a function took in earlier calls."""

    def __init__(self) -> None:
        self._known: OrderedDict[Any, tuple[float, int]] = OrderedDict()

    def recall(self, function: Callable[..., Any], returned: Returned) -> None:
        """Begin with what is known of a function."""
        if (known := self._known.get(_code_of(function))) is not None:
            returned.item_seconds, returned.measured = known

    def remember(self, function: Callable[..., Any], returned: Returned) -> None:
        """Keep what was measured."""
        if returned.item_seconds is not None:
            self._known[_code_of(function)] = returned.item_seconds, returned.measured
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)


_remembered = _Remembered()


def _innermost(function: Any) -> Any:
    """Return the function that a partial is made of."""
    while isinstance(function, partial):
        function = function.func
    return function


def _code_of(function: Any) -> Any:
    function = _innermost(function)
    return getattr(function, "__code__", None) or (type(function), getattr(function, "__name__", ""))


@dataclass
class Mapping:
    """One call of `parallel_map` or `parallel_starmap`."""

    function: Callable[..., Any]
    inputs: Iterator[Any]
    n_inputs: int | None
    spread: bool
    """Whether an item is a tuple of arguments."""
    settings: Resolved
    seed: Any
    """None where items are not seeded one by one."""
    return_as: ReturnAs
    given_out: list[Any] = field(default_factory=list)
    """All values in order, where a list is wanted."""
    _error: BaseException | None = None
    _engine: Run | None = None

    @property
    def name(self) -> str:
        """What the function is called."""
        function = _innermost(self.function)
        return str(getattr(function, "__name__", type(function).__name__))

    def to_list(self) -> list[Any]:
        """Return all values in order."""
        for values in self._chunks():
            self.given_out += values
        return self.given_out

    def one_by_one(self) -> Iterator[Any]:
        """Return what yields values as they come, in order or not; what cannot be used is refused now."""
        values = self._values()
        next(values)
        assert self._engine is not None
        _close_at_exit(values, type(self._engine.executor))
        return values

    def _values(self) -> Generator[Any]:
        with contextlib.closing(self._chunks()) as chunks:
            yield next(chunks)
            for values in chunks:
                yield from values

    def _chunks(self) -> Generator[list[Any]]:
        with open_workers(self.settings) as workers:
            in_process = isolation_of(workers.executor) != "process"
            kept: Kept | None = {} if in_process else None
            returned = Returned(kept, ordered=self.return_as != "generator_unordered")
            try:
                yield from self._run(workers, returned, kept)
            except GeneratorExit:
                if self._engine is not None and self._engine.left_work:
                    raise
                return  # nothing runs any more: the workers may stay warm
            except KeyboardInterrupt as interrupt:
                finished = {**dict(enumerate(self.given_out)), **returned.finished()}
                interrupt.result = finished  # type: ignore[attr-defined]
                interrupt.add_note(
                    f"{len(finished)} items had finished: their values are in the result attribute of this "
                    "exception, by index"
                )
                raise
        # Behind the block, which ends workers that an exception leaves.
        if self._error is not None:
            raise self._error

    def _run(self, workers: Workers, returned: Returned, kept: Kept | None) -> Iterator[list[Any]]:
        whole = self.return_as == "list"
        alone = self.settings.timeout is not None
        isolation = isolation_of(workers.executor)
        items = Items(
            self.name,
            self.inputs,
            None if isolation == "none" else self.n_inputs,  # there is nobody to share them with
            workers.n_workers,
            returned,
            packed=kept is None,
            alone=alone,
            ahead=None if whole else AHEAD * workers.n_workers,
        )
        if whole:
            _remembered.recall(self.function, returned)
        root = root_seed(self.seed)
        seeded = None if self.seed is None else root
        with contextlib.ExitStack() as stack:
            run = stack.enter_context(
                working(
                    Mapped(self.function, self.spread, seeded, isolation, os.getpid(), kept),
                    items,
                    self.n_inputs,
                    workers=workers,
                    settings=self.settings,
                    root_seed=root,
                    stop_on_failure=True,
                    outcomes=returned,
                    record=None,
                    rank=index_of,
                    largest_unit=LARGEST_UNIT if alone else 1,
                    has_more=items.has_more,
                    keeps_data=False,
                )
            )
            self._engine = run
            items.refuse = run.fail
            if whole:
                stack.enter_context(in_caller(run.job))
            else:
                run.bar.hide()
                yield []  # all is checked, and nothing was drawn
                run.begin()
            step = _nowhere if whole else for_a_step
            told = Told()
            more = True
            while more and self._error is None:
                run.bar.show()
                with step(run.job):
                    more = _proceed(run, returned, whole=whole)
                if not whole:
                    run.bar.hide()
                while returned.can_give_out and self._error is None:
                    outcome = returned.give_out()
                    told.take(outcome)
                    values, self._error = returned.values_of(outcome)
                    yield values
                if not whole:
                    told.issue()
        told.issue()
        _remembered.remember(self.function, returned)
        if self._error is None:
            self._error = items.error or (self._out_of_time(returned) if run.out_of_time else None)

    def _out_of_time(self, returned: Returned) -> TimeLimitError:
        error = TimeLimitError(
            f"time_limit={self.settings.time_limit:g} seconds were over before all items had finished; the "
            "values of those that had are in the result attribute of this exception, by index"
        )
        error.result = {**dict(enumerate(self.given_out)), **returned.finished()}
        return error


_open: weakref.WeakSet[Generator[Any]] = weakref.WeakSet()


_closed_first: set[type] = set()
"""Kinds of executors that end at exit behind the generators that use them."""


def _close_at_exit(values: Generator[Any], executor: type) -> None:
    """Have a generator that is left open closed at exit, while there can still be threads."""
    _open.add(values)
    if executor not in _closed_first:
        _closed_first.add(executor)
        at_interpreter_exit(_close_open)


def _close_open() -> None:
    for values in list(_open):
        with contextlib.suppress(ValueError):  # it is at work in another thread
            values.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_open.clear)  # they are the parent's


def _proceed(run: Run, returned: Returned, *, whole: bool) -> bool:
    """Go on until there is something to give out, or all; return whether there may be more."""
    run.fill_window()
    while not run.inbox.empty() or whole or not returned.can_give_out:
        if run.inbox.empty() and not run.awaits():
            run.fail_the_rest()
            return False
        if not run.advance():
            return False
    return True


@contextlib.contextmanager
def _nowhere(_: object) -> Iterator[None]:
    yield


def index_of(key: TaskKey) -> int:
    """Return the index of the first item of a group."""
    return key.fold


class Told:
    """Warnings of what was given out: each distinct one is issued again once in a run."""

    def __init__(self) -> None:
        self._known: set[Any] = set()
        self._outcomes: list[Outcome] = []

    def take(self, outcome: Outcome) -> None:
        """Take what items have warned of."""
        if outcome.warnings or outcome.parts:
            self._outcomes.append(outcome)

    def issue(self) -> None:
        """Issue what is new."""
        parts = [part for outcome in self._outcomes for part in outcome.parts or (outcome,)]
        self._outcomes.clear()
        new = [
            replace(part, warnings=tuple(told for told in part.warnings if told not in self._known))
            for part in parts
        ]
        self._known.update(told for part in new for told in part.warnings)
        issue_warnings(new)
