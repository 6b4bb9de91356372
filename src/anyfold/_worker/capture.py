"""Warnings of tasks: recorded where they are issued, returned with the outcome.

One hook serves a whole run. It passes each warning to the task that issued it, known by a context
variable, since several threads may run tasks at once; a warning from elsewhere goes its usual way.
"""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, TextIO

from anyfold._plan.task import RelayedWarning

__all__ = ["Filters", "current_filters", "recorded_warnings", "routed_warnings"]

Filters = tuple[tuple[Any, ...], ...]
"""Warning filters as `warnings.filters` holds them."""

_record: ContextVar[list[RelayedWarning] | None] = ContextVar("anyfold_warnings", default=None)


def current_filters() -> Filters:
    """Return the caller's warning filters, for the workers to apply."""
    return tuple(warnings.filters)


@contextlib.contextmanager
def recorded_warnings() -> Iterator[list[RelayedWarning]]:
    """Collect the warnings that this task issues."""
    record: list[RelayedWarning] = []
    token = _record.set(record)
    try:
        yield record
    finally:
        _record.reset(token)


_hook_lock = threading.RLock()
_hook_depth = 0
_hook: contextlib.ExitStack | None = None


@contextlib.contextmanager
def routed_warnings(filters: Filters) -> Iterator[None]:
    """Apply the caller's filters in this process and record what passes them.

    What the caller ignores is ignored, what it turns into an error is an error inside the task;
    everything else is recorded each time: whether it is *shown* once or always is decided when the
    caller issues it again, in task order. Entered by several threads at once, the first one sets the
    hook and the last one takes it down.
    """
    global _hook_depth, _hook
    with _hook_lock:
        _hook_depth += 1
        if _hook_depth == 1:
            _hook = contextlib.ExitStack()
            _hook.enter_context(warnings.catch_warnings())
            _install(filters)
    try:
        yield
    finally:
        with _hook_lock:
            _hook_depth -= 1
            if _hook_depth == 0 and _hook is not None:
                _hook.close()
                _hook = None


def _install(filters: Filters) -> None:
    warnings.resetwarnings()
    warnings.simplefilter("always")
    for action, message, category, module, line in reversed(filters):
        kept = action if action in ("ignore", "error") else "always"
        warnings.filters.insert(0, (kept, message, category, module, line))  # type: ignore[attr-defined]
    # Any public call makes the interpreter forget what it has already shown.
    warnings.filterwarnings("always", category=_Never)
    warnings.showwarning = _route(warnings.showwarning)


class _Never(Warning):
    """Issued by nobody."""


def _route(show: Any) -> Any:
    def showwarning(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        record = _record.get()
        if record is None:
            show(message, category, filename, lineno, file, line)
        else:
            record.append(RelayedWarning(category, str(message), filename, lineno))

    return showwarning
