"""What a task says, known by a context variable: several threads may run tasks at once."""

from __future__ import annotations

import contextlib
import copy
import logging
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field

from anyfold._plan.task import RelayedWarning

__all__ = ["Said", "recorded", "said_now", "who_speaks"]


@dataclass(slots=True)
class Said:
    """What one task has said."""

    warnings: list[RelayedWarning] = field(default_factory=list)
    logs: list[logging.LogRecord] = field(default_factory=list)
    output: list[tuple[str, str]] = field(default_factory=list)
    """Name of the stream and text."""
    is_live: bool = False
    """Whether what is printed is seen at once as well."""
    around: Said | None = None
    """What the task says inside of which this one runs."""

    def lengths(self) -> tuple[int, int, int]:
        """Return how much has been said, for `since`."""
        return len(self.warnings), len(self.logs), len(self.output)

    def since(self, lengths: tuple[int, int, int]) -> Said:
        """Return what has been said after that."""
        n_warnings, n_logs, n_output = lengths
        return Said(self.warnings[n_warnings:], self.logs[n_logs:], self.output[n_output:])

    def extend(self, other: Said) -> None:
        """Say the same once more."""
        self.warnings += other.warnings
        self.logs += map(copy.copy, other.logs)
        self.output += other.output

    def clear(self) -> None:
        """Forget it, since the task is done once more."""
        self.warnings.clear()
        self.logs.clear()
        self.output.clear()


_said: ContextVar[Said | None] = ContextVar("anyfold_said", default=None)

who_speaks = _said.get
"""Returns what the task that runs here has said so far, None outside of tasks."""


def said_now() -> Said:
    """Return what the task that runs here has said so far."""
    return _said.get() or Said()


@contextlib.contextmanager
def recorded(*, is_live: bool = False) -> Iterator[Said]:
    """Collect what this task says; with `is_live`, what it prints is seen at once as well."""
    said = Said(is_live=is_live, around=_said.get())
    token = _said.set(said)
    try:
        yield said
    finally:
        _said.reset(token)
