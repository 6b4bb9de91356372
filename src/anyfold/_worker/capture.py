"""Has what tasks say recorded in a process, wherever it is said: by warnings, logging or print.

One hook serves all tasks that run at a time. It passes each message to the task that issued it; a message
from elsewhere goes its usual way. It may come and go in a worker's thread while the caller's own code runs:
what that changes meanwhile stays.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from anyfold._compat import filters_left_alone
from anyfold._worker.logging_hook import logging_hook, take_over_levels
from anyfold._worker.said import who_speaks
from anyfold._worker.stream_hook import stream_hook
from anyfold._worker.warning_hook import Filters, heard_here, warnings_hook

__all__ = ["Ears", "routed", "the_callers_ears", "undisturbed"]


@dataclass(frozen=True, slots=True)
class Ears:
    """What the caller wants to hear."""

    filters: Filters
    """Warning filters, as `warnings.filters` holds them."""
    levels: Mapping[str, int]
    """Level of each logger that has one of its own; the root logger's name is empty."""
    disabled: int
    """Level up to which logging is disabled altogether."""


def the_callers_ears() -> Ears:
    """Record what the caller wants to hear, for the workers to apply."""
    loggers = logging.Logger.manager.loggerDict.items()
    levels = {
        name: logger.level
        for name, logger in list(loggers)
        if isinstance(logger, logging.Logger) and logger.level
    }
    levels[""] = logging.getLogger().level
    return Ears(tuple(heard_here(warnings.filters)), levels, logging.root.manager.disable)


_hook_lock = threading.RLock()
_hook_depth = 0
_hook: contextlib.ExitStack | None = None


def _forget_in_child() -> None:
    # The hook stays in a fork, where nobody would take it down; a run there sets its own on top.
    global _hook_lock, _hook_depth, _hook
    _hook_lock, _hook_depth, _hook = threading.RLock(), 0, None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Have the hook neither come nor go, for what replaces the filters for a while."""
    with _hook_lock:
        yield


@contextlib.contextmanager
def routed(ears: Ears, *, own_process: bool) -> Iterator[None]:
    """Record what tasks say in this process; entered by several threads at once, the first sets the hook.

    Parameters
    ----------
    ears : Ears
        What the caller wants to hear.
    own_process : bool
        Whether this process is a worker, which takes over the caller's levels of logging.
    """
    global _hook_depth, _hook
    with _hook_lock:
        _hook_depth += 1
        if _hook_depth == 1:
            _hook = contextlib.ExitStack()
            _hook.enter_context(warnings_hook(ears.filters))
            _hook.enter_context(filters_left_alone(who_speaks))
            _hook.enter_context(logging_hook())
            if own_process:
                take_over_levels(ears.levels, ears.disabled)
            for name in ("stdout", "stderr"):
                _hook.enter_context(stream_hook(name))
    try:
        yield
    finally:
        with _hook_lock:
            _hook_depth -= 1
            if _hook_depth == 0 and _hook is not None:
                _hook.close()
                _hook = None
