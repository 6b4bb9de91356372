"""``backend="auto"``: begins at once in the caller, and goes on with workers where that is worth their start.

    caller:   task ── task ── task ──┐ (workers are ready)
                │ more is left than     ├──> the rest, on workers
    scout:      └─ a start takes: start ─┘

While the caller computes, a second thread, the scout, starts workers as soon as it is worth it, and sees to
their tasks until the caller is free to do so. Each task is claimed by one side, once.
"""

from __future__ import annotations

import contextlib
import contextvars
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import sklearn

from anyfold._engine.choose import seconds_until_worth
from anyfold._engine.drive import in_caller
from anyfold._engine.events import Event, RunFinished, RunStarted, observer
from anyfold._engine.progress import progress_bar
from anyfold._engine.relay import Relay
from anyfold._engine.run import Run
from anyfold._engine.termination import termination_heard
from anyfold._plan.task import Leaf, TaskKey
from anyfold._running import Prepared, Surroundings, Terms, working
from anyfold._session import Choice, Workers
from anyfold.errors import UnpicklableModelError

__all__ = ["Auto"]

LATEST = 25
"""Tasks by which what is left is estimated."""


class Auto:
    """One run that chooses where it takes place.

    Parameters
    ----------
    prepare : callable
        Returns the work for certain workers.
    workers : Workers
        The caller itself.
    choice : Choice
        What else there is; is told what became of it.
    terms : Terms
        As for any run.
    n_tasks : int
        How many there are.
    """

    def __init__(
        self,
        prepare: Callable[[Workers], Prepared],
        workers: Workers,
        choice: Choice,
        terms: Terms,
        n_tasks: int,
    ) -> None:
        self._prepare = prepare
        self._workers = workers
        self._choice = choice
        self._terms = terms
        self._n_tasks = n_tasks
        self._n_here = 0
        self._claimed: set[TaskKey] = set()
        self._claiming = threading.Lock()
        self._surroundings = Surroundings.of_this_thread()
        self._relay = Relay(prints=True)
        bar = progress_bar(terms.settings.progress, terms.outcomes.values(), in_processes=False)
        self._told = _Told(observer([*terms.settings.callbacks, bar]), choice.n_workers)

    def run(self) -> None:
        """Run all tasks, here, elsewhere, or both."""
        scout = _Scout(self)
        try:
            with termination_heard(), scout:
                with self._working(self._workers, self._claims_of_caller(scout)) as here, in_caller(here.job):
                    here.to_the_end()
                elsewhere = scout.relieved()
                self._relay.is_held = False
                if elsewhere is not None:
                    if here.supply.cutoff is not None:
                        elsewhere.supply.cut_off_at(here.supply.cutoff)
                    with in_caller(elsewhere.job):
                        elsewhere.to_the_end()
        finally:
            self._relay.is_held = False
            self._relay.finish()
            self._told.end()
            self._choice.note(self._n_here, len(self._claimed) - self._n_here, scout.why_not)

    # ---- who does what ------------------------------------------------------------------------

    def _claims_of_caller(self, scout: _Scout) -> Callable[[Prepared], Iterator[Leaf]]:
        def leaves(prepared: Prepared) -> Iterator[Leaf]:
            for leaf in prepared.leaves:
                scout.task_ends()
                if scout.workers_are_ready:
                    return
                if self._claim(leaf.key):
                    self._n_here += 1
                    scout.task_begins(self._n_tasks - len(self._claimed))
                    yield leaf
            scout.task_ends()

        return leaves

    def _claims_of_workers(self, prepared: Prepared) -> Iterator[Leaf]:
        """Draw what nobody has begun, for workers."""
        return (leaf for leaf in prepared.leaves if self._claim(leaf.key))

    def _claim(self, key: TaskKey) -> bool:
        with self._claiming:
            if key in self._claimed:
                return False
            self._claimed.add(key)
            return True

    # ---- both runs ----------------------------------------------------------------------------

    def _working(
        self, workers: Workers, drawn: Callable[[Prepared], Iterator[Leaf]]
    ) -> contextlib.AbstractContextManager[Run]:
        prepared = self._prepare(workers)
        if workers is self._workers:
            # Drawn one by one: what begins alike is found in this process all the same.
            prepared = replace(prepared, layout=None)
        return working(
            replace(prepared, leaves=drawn(prepared)),
            self._terms,
            workers=workers,
            surroundings=self._surroundings,
            relay=self._relay,
            observe=self._told,
        )

    def elsewhere(self, workers: Workers) -> contextlib.AbstractContextManager[Run]:
        """Return the run on workers; in the scout's thread."""
        return self._working(workers, self._claims_of_workers)

    @property
    def choice(self) -> Choice:
        """What there is besides the caller."""
        return self._choice

    def hold(self) -> None:
        """Keep what tasks say for the caller's thread."""
        self._relay.is_held = True

    @property
    def surroundings(self) -> Surroundings:
        """What tasks take over."""
        return self._surroundings


class _Scout:
    """Watches the caller at work from a thread of its own, and starts workers when that is worth it."""

    def __init__(self, auto: Auto) -> None:
        self._auto = auto
        self._changed = threading.Condition()
        self._n_left = 0
        self._taken: deque[float] = deque(maxlen=LATEST)
        self._begun: float | None = None
        self._is_over = False
        self._are_ready = False
        self._run: Run | None = None
        self._error: BaseException | None = None
        self._stack = contextlib.ExitStack()
        self._thread: threading.Thread | None = None
        self.why_not: str | None = None
        """Why work could not be given to workers."""

    # ---- told by the caller -------------------------------------------------------------------

    def task_begins(self, n_left: int) -> None:
        """Note that the caller begins a task, and how many nobody has begun."""
        self._n_left, self._begun = n_left, time.monotonic()
        if self._thread is None and n_left:
            context = contextvars.copy_context()
            self._thread = threading.Thread(target=context.run, args=(self._watch,), name="anyfold-scout")
            self._thread.start()

    def task_ends(self) -> None:
        """Note that the caller has finished what it had begun."""
        if self._begun is not None:
            self._taken.append(time.monotonic() - self._begun)
            self._begun = None
            if self._seconds_until_worth() == 0.0:
                self._notify()

    @property
    def workers_are_ready(self) -> bool:
        """Whether the caller need not compute any more."""
        return self._are_ready

    def relieved(self) -> Run | None:
        """End the scout's watch and return the run that it has begun, for the caller to go on with."""
        self._end_watch()
        if self._error is not None:
            raise self._error
        return self._run

    def _end_watch(self) -> None:
        with self._changed:
            self._is_over = True
            self._changed.notify()
        if self._run is not None:
            self._run.wake()
        if self._thread is not None:
            self._thread.join()

    def __enter__(self) -> _Scout:
        return self

    def __exit__(self, *exc_info: Any) -> bool | None:
        try:
            self._end_watch()  # once more, where Ctrl-C has ended the first
        finally:
            ending = self._stack.__exit__(*exc_info)
        return ending

    # ---- in the scout's thread ----------------------------------------------------------------

    def _watch(self) -> None:
        try:
            if self._waits_until_worth():
                with sklearn.config_context(**self._auto.surroundings.sklearn_config):
                    self._serve()
        except UnpicklableModelError as error:
            self.why_not = str(error)
        except BaseException as error:
            self._error = error

    def _waits_until_worth(self) -> bool:
        # What the caller finishes meanwhile can only put it off, unless the caller says otherwise.
        with self._changed:
            while not self._is_over:
                pause = self._seconds_until_worth()
                if pause == 0.0:
                    return True
                self._changed.wait(pause)
        return False

    def _seconds_until_worth(self) -> float | None:
        begun = self._begun
        running = 0.0 if begun is None else time.monotonic() - begun
        return seconds_until_worth(self._n_left, self._taken, running, self._auto.choice.start_seconds)

    def _serve(self) -> None:
        auto, choice = self._auto, self._auto.choice
        started = time.monotonic()
        workers = self._stack.enter_context(choice.lend())
        first = workers.executor.submit(_nothing)
        for _ in range(workers.n_workers - 1):
            workers.executor.submit(_nothing)
        first.add_done_callback(self._notify)
        with self._changed:
            while not (self._is_over or first.done()):
                self._changed.wait()
            if not first.done():
                return
        first.result()
        choice.started_in(time.monotonic() - started)
        auto.hold()
        run = self._stack.enter_context(auto.elsewhere(workers))
        self._run = run
        self._are_ready = True
        run.fill_window()
        while not self._is_over and run.awaits():
            if not run.advance():
                return

    def _notify(self, _: Future[Any] | None = None) -> None:
        with self._changed:
            self._changed.notify()


def _nothing() -> None:
    """Show that a worker is there."""


class _Told:
    """Tells of both runs as of one, in the caller's thread."""

    def __init__(self, tell: Callable[[Event], None], n_workers: int) -> None:
        self._tell = tell
        self._n_workers = n_workers
        self._thread = threading.get_ident()
        self._held: deque[Event] = deque()
        self._has_begun = False

    def __call__(self, event: Event) -> None:
        match event:
            case RunStarted():
                if not self._has_begun:
                    self._has_begun = True
                    self._held.append(replace(event, n_workers=self._n_workers))
            case RunFinished():
                pass
            case _:
                self._held.append(event)
        if threading.get_ident() == self._thread:
            self._give_out()

    def _give_out(self) -> None:
        while self._held:
            self._tell(self._held.popleft())

    def end(self) -> None:
        """Tell that all has ended."""
        self._give_out()
        self._tell(RunFinished())
