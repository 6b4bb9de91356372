"""The bar that long work shows by itself: what it says, and when it is seen."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from anyfold._engine.events import Event, RunFinished, RunStarted, TaskFinished, TaskStarted
from anyfold._engine.surfaces import Surface, surface_for
from anyfold._plan.task import FoldScores, Outcome
from anyfold._worker.execute import inside_worker

__all__ = ["Bar", "Standing", "progress_bar"]

SHORT_RUN = 2.0
"""Seconds before a bar shows by itself."""

SHORT_WAIT = 0.2
"""Seconds before a bar that was hidden shows again."""

NAN = float("nan")
Place = tuple[str, int]
"""A model, or one of its candidates."""


class Standing:
    """Which model or candidate is ahead so far, by the mean of the first metric.

    All run on one fold before the next begins. Compared are those that have run on all folds but the one that
    is under way; one that failed on a fold is out.

    Examples
    --------
    >>> from anyfold._plan.task import TaskKey
    >>> standing = Standing([])
    >>> for model, fold, score in [("rf", 0, 0.5), ("nb", 0, 0.75), ("rf", 1, 1.0), ("nb", 1, 0.25)]:
    ...     standing.add(Outcome(TaskKey(model, 0, fold), FoldScores({"auc": score}, None, 0.0, 0.0)))
    ...     print(standing.told())
    best auc 0.5 (rf)
    best auc 0.75 (nb)
    best auc 0.75 (rf)
    best auc 0.75 (rf)
    """

    def __init__(self, outcomes: Iterable[Outcome]) -> None:
        self._sums: dict[Place, tuple[int, float]] = {}
        self._most = 0
        self._metric = ""
        for outcome in outcomes:
            self.add(outcome)

    def add(self, outcome: Outcome) -> None:
        """Take note of a task that has finished."""
        place = outcome.key.model, outcome.key.candidate
        value = outcome.value
        if outcome.failure is not None:
            self._sums[place] = 0, NAN
        elif isinstance(value, FoldScores) and value.test:
            self._metric, score = next(iter(value.test.items()))
            n_folds, total = self._sums.get(place, (0, 0.0))
            self._sums[place] = n_folds + 1, total + float(score)
            self._most = max(self._most, n_folds + 1)

    def told(self) -> str:
        """Say who is ahead; empty where nobody is."""
        best, leader = -math.inf, None
        for place, (n_folds, total) in list(self._sums.items()):  # another thread may add to it
            if n_folds >= max(1, self._most - 1) and total / n_folds > best:
                best, leader = total / n_folds, place
        if leader is None:
            return ""
        model, candidate = leader
        return f"best {self._metric} {best:.4g} ({f'candidate {candidate}' if candidate else model})"


@dataclass(slots=True)
class State:
    """How far a run is."""

    standing: Standing
    n_tasks: int | None = 0
    """Those included that were taken from a journal; None where nobody knows."""
    n_taken: int = 0
    n_done: int = 0
    n_failed: int = 0
    n_workers: int = 1
    began: float = 0.0
    """On the monotonic clock, as all times here."""
    working: float | None = None
    """When the first task began; workers had to start before."""
    heard: float = 0.0
    """When something was last heard."""
    ended: bool = False

    def seconds_left(self, now: float) -> float | None:
        """Return how long the rest will take if it goes on like this; None before anything is done."""
        n_here = self.n_done - self.n_taken
        if not n_here or self.n_tasks is None:
            return None
        n_left = self.n_tasks - self.n_done
        running = min(self.n_workers, n_left) / 2  # each of them is half done, on average
        since = self.began if self.working is None else self.working
        estimate = (self.heard - since) / (n_here + running) * (n_left - running)
        return max(0.0, estimate - (now - self.heard))

    def __str__(self) -> str:
        now = time.monotonic()
        parts = [f"{self.n_done}{'' if self.n_tasks is None else f'/{self.n_tasks}'} tasks"]
        if self.n_failed:
            parts.append(f"{self.n_failed} failed")
        if self.n_taken:
            parts.append(f"{self.n_taken} from the journal")
        if self.ended:
            parts.append(f"{_clock(now - self.began)} in all")
        elif (left := self.seconds_left(now)) is not None:
            parts.append(f"{_clock(left)} left")
        if best := self.standing.told():
            parts.append(best)
        return ", ".join(parts)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


class Bar:
    """Is told what happens in a run; this one shows nothing of it."""

    def __call__(self, event: Event) -> None:
        pass

    def hide(self) -> None:
        """Leave the caller's screen as it was, while nobody waits for the run."""

    def show(self) -> None:
        """Be seen again, where somebody waits."""


def progress_bar(progress: bool | None, outcomes: Iterable[Outcome], *, in_processes: bool) -> Bar:
    """Return what shows how far a run is: always, never, or with None where somebody sees it.

    Parameters
    ----------
    progress : bool or None
        None shows it on a terminal and in a notebook, when a run lasts, and not where ``CI`` is set.
    outcomes : iterable of Outcome
        What is known before the run.
    in_processes : bool
        Whether tasks run in processes of their own.
    """
    hidden = progress is False or inside_worker()
    surface = None if hidden else surface_for(asked_for=bool(progress), in_processes=in_processes)
    if surface is None:
        return Bar()
    return _Progress(surface, State(Standing(outcomes)), delay=0.0 if progress else SHORT_RUN)


_one_at_a_time = threading.Lock()
"""Held by the run that is shown; others that run in other threads meanwhile are not."""


class _Progress(Bar):
    """Shows a run from some seconds on, whether or not anything has finished by then."""

    def __init__(self, surface: Surface, state: State, delay: float) -> None:
        self._surface = surface
        self._state = state
        self._delay = delay
        self._timer: threading.Timer | None = None
        self._is_shown = False
        self._was_seen = False
        self._was_hidden = False

    def __call__(self, event: Event) -> None:
        state = self._state
        match event:
            case RunStarted():
                state.n_tasks = None if event.n_tasks is None else event.n_tasks + event.n_taken
                state.n_done = state.n_taken = event.n_taken
                state.n_workers = event.n_workers
                state.began = state.heard = time.monotonic()
                self._show_soon(self._delay)
            case TaskStarted() if state.working is None:
                state.working = time.monotonic()
            case TaskFinished(outcome):
                state.n_done += outcome.n_items
                state.n_failed += outcome.failure is not None
                state.heard = time.monotonic()
                state.standing.add(outcome)
                if self._is_shown:
                    self._surface.update()
            case RunFinished():
                self._end()

    def hide(self) -> None:
        self._forget_timer()
        if self._is_shown:
            self._close(self._surface.hide)
        self._was_hidden = True

    def show(self) -> None:
        if self._was_hidden:
            self._was_hidden = False
            self._show_soon(max(SHORT_WAIT, self._state.began + self._delay - time.monotonic()))

    def _show_soon(self, seconds: float) -> None:
        if not seconds:
            self._show()
            return
        self._timer = threading.Timer(seconds, self._show)
        self._timer.daemon = True
        self._timer.name = "anyfold-progress"
        self._timer.start()

    def _show(self) -> None:
        if _one_at_a_time.acquire(blocking=False):
            try:
                self._surface.open(self._state)
            except BaseException:
                _one_at_a_time.release()
                raise
            self._is_shown = self._was_seen = True

    def _forget_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer.join()
            self._timer = None

    def _end(self) -> None:
        self._forget_timer()
        self._state.ended = True
        if self._was_seen and not self._is_shown:
            self._show()  # for its last line
        if self._is_shown:
            self._close(self._surface.close)

    def _close(self, close: Callable[[], None]) -> None:
        self._is_shown = False
        try:
            close()
        finally:
            _one_at_a_time.release()
