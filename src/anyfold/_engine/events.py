"""What happens during a run, as values, and the progress bar that is drawn from them."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from anyfold._plan.task import Outcome, TaskKey
from anyfold.errors import AnyfoldWarning

__all__ = ["Event", "RunFinished", "RunStarted", "TaskFinished", "TaskStarted", "observer"]


@dataclass(frozen=True, slots=True)
class RunStarted:
    """A run begins."""

    n_tasks: int
    n_workers: int


@dataclass(frozen=True, slots=True)
class TaskStarted:
    """A worker begins a task."""

    key: TaskKey
    attempt: int


@dataclass(frozen=True, slots=True)
class TaskFinished:
    """A task has an outcome, good or bad."""

    outcome: Outcome


@dataclass(frozen=True, slots=True)
class RunFinished:
    """A run ends, for whatever reason."""


Event = RunStarted | TaskStarted | TaskFinished | RunFinished


def observer(
    callbacks: Sequence[Callable[[Event], object]], progress: bool | None
) -> Callable[[Event], None]:
    """Return what tells everybody who wants to know; a callback that raises is not called again."""
    listeners: list[Callable[[Event], object]] = [*callbacks, progress_observer(progress)]

    def tell(event: Event) -> None:
        for listener in list(listeners):
            try:
                listener(event)
            except Exception as error:
                listeners.remove(listener)
                warnings.warn(
                    f"the callback {listener!r} raised {type(error).__name__}: {error}; it is not called "
                    "again in this run",
                    AnyfoldWarning,
                    stacklevel=2,
                )

    return tell


SHORT_RUN = 2.0
"""Seconds before a bar shows by itself."""


def progress_observer(progress: bool | None) -> Callable[[Event], None]:
    """Return what draws the bar: always, never, or with None on a terminal for runs that last."""
    if progress is False or (progress is None and not sys.stderr.isatty()):
        return lambda event: None
    return _Bar(delay=0.0 if progress else SHORT_RUN)


class _Bar:
    """A bar with done/total, failures and time left, on standard error."""

    def __init__(self, delay: float) -> None:
        self._delay = delay
        self._started = time.monotonic()
        self._n_tasks = self._n_done = self._n_failed = 0
        self._bar: Any = None
        self._task: Any = None

    def __call__(self, event: Event) -> None:
        match event:
            case RunStarted(n_tasks, _):
                self._n_tasks = n_tasks
                self._started = time.monotonic()
            case TaskFinished(outcome):
                self._n_done += 1
                self._n_failed += outcome.failure is not None
                self._draw()
            case RunFinished() if self._bar is not None:
                self._bar.stop()

    def _draw(self) -> None:
        if self._bar is None and time.monotonic() - self._started >= self._delay:
            self._show()
        if self._bar is not None:
            failed = f", {self._n_failed} failed" if self._n_failed else ""
            self._bar.update(self._task, completed=self._n_done, failed=failed)

    def _show(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._bar = Progress(
            TextColumn("anyfold"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("tasks{task.fields[failed]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._task = self._bar.add_task("", total=self._n_tasks, failed="")
        self._bar.start()
