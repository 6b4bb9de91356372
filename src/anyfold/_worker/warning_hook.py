"""Records the warnings that tasks issue and the caller's filters let pass."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any, TextIO

from anyfold._plan.task import RelayedWarning
from anyfold._worker.said import who_speaks

__all__ = ["Filters", "heard_here", "warnings_hook"]

Filters = tuple[tuple[Any, ...], ...]


class _Never(Warning):
    """Issued by nobody."""


class _InTask:
    """The message of a warning filter that holds inside of tasks only."""

    def __init__(self, message: Any) -> None:
        self.message = message

    @property
    def pattern(self) -> str:
        """What it matches, for scikit-learn, which makes filters of filters inside of tasks."""
        if self.message is None or isinstance(self.message, str):
            return self.message or ""
        return str(self.message.pattern)

    def match(self, text: str) -> bool:
        """Return whether a task says this."""
        if who_speaks() is None:
            return False
        if self.message is None or isinstance(self.message, str):
            return self.message in (None, text)
        return bool(self.message.match(text))


@contextlib.contextmanager
def warnings_hook(filters: Filters) -> Iterator[None]:
    """Apply the caller's filters to what tasks say, and record what passes them.

    What the caller ignores is ignored, what it turns into an error is an error inside the task;
    everything else is recorded each time: whether it is *shown* once or always is decided when the
    caller issues it again.
    """
    ours: list[Any] = [
        (action if action in ("ignore", "error") else "always", _InTask(message), category, module, line)
        for action, message, category, module, line in filters
    ]
    ours.append(("always", _InTask(None), Warning, None, 0))
    listed: Any = warnings.filters
    listed[:0] = ours
    # Any public call makes the interpreter forget what it has already shown.
    warnings.filterwarnings("always", category=_Never)
    _remove([("always", None, _Never, None, 0)], listed)
    if not isinstance(warnings.showwarning, _Route):
        warnings.showwarning = _Route(warnings.showwarning)
    try:
        yield
    finally:
        # The caller may have come into a block of `catch_warnings` meanwhile, or left one.
        _remove(ours, listed)
        _remove(ours, warnings.filters)
        if isinstance(warnings.showwarning, _Route):
            warnings.showwarning = warnings.showwarning.show


def _remove(entries: list[Any], listed: Any) -> None:
    for entry in entries:
        with contextlib.suppress(ValueError):
            listed.remove(entry)


def heard_here(filters: Any) -> Iterator[tuple[Any, ...]]:
    """Return filters without what holds for other tasks than the one that runs here, if any."""
    for entry in filters:
        action, message, *rest = entry
        if not isinstance(message, _InTask):
            yield entry
        elif who_speaks() is not None:
            yield (action, message.message, *rest)


class _Route:
    """Stands in for `warnings.showwarning`."""

    def __init__(self, show: Any) -> None:
        self.show = show

    def __call__(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        said = who_speaks()
        if said is None:
            self.show(message, category, filename, lineno, file, line)
        else:
            said.warnings.append(RelayedWarning(category, str(message), filename, lineno))
