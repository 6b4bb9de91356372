"""One call of a map: it opens the workers, goes through the run, and gives the values out as they come."""

from __future__ import annotations

import contextlib
import os
import weakref
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from anyfold._engine.drive import for_a_step, in_caller
from anyfold._engine.relay import Told
from anyfold._engine.run import Run
from anyfold._items import Items, Returned, index_of
from anyfold._plan.seeds import root_seed
from anyfold._plan.units import LARGEST_UNIT
from anyfold._running import Prepared, Terms, working
from anyfold._session import Workers, open_workers
from anyfold._worker.mapping import Kept, Mapped
from anyfold.errors import TimeLimitError
from anyfold.executors._exit import at_interpreter_exit
from anyfold.executors.base import isolation_of
from anyfold.settings import Resolved

__all__ = ["Mapping", "ReturnAs"]

ReturnAs = Literal["list", "generator", "generator_unordered"]

REMEMBERED = 100
"""Functions of which it is known what their items take."""

AHEAD = 8
"""Finished groups per worker that may wait to be given out before no more input is drawn."""


class _Remembered:
    """What items of a function took in earlier calls."""

    def __init__(self) -> None:
        self._known: OrderedDict[Any, tuple[float, int, float]] = OrderedDict()

    def recall(self, function: Callable[..., Any], returned: Returned) -> None:
        """Begin with what is known of a function."""
        if (known := self._known.get(_code_of(function))) is not None:
            returned.item_seconds, returned.measured, returned.item_bytes = known

    def remember(self, function: Callable[..., Any], returned: Returned) -> None:
        """Keep what was measured."""
        if returned.item_seconds is not None:
            known = returned.item_seconds, returned.measured, returned.item_bytes
            self._known[_code_of(function)] = known
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
                    Prepared(
                        Mapped(self.function, self.spread, seeded, isolation, os.getpid(), kept),
                        items,
                        self.n_inputs,
                        largest_unit=LARGEST_UNIT if alone else 1,
                    ),
                    Terms(self.settings, root, True, returned, None, index_of),
                    workers=workers,
                    has_more=items.has_more,
                    keeps_data=False,
                )
            )
            self._engine = run
            items.refuse = run.judge.fail
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
            run.judge.fail_the_rest()
            return False
        if not run.advance():
            return False
    return True


@contextlib.contextmanager
def _nowhere(_: object) -> Iterator[None]:
    yield
