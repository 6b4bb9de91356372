"""Doing something when the interpreter ends, while threads still run."""

from __future__ import annotations

import atexit
import contextlib
import threading
from collections.abc import Callable
from multiprocessing import util

__all__ = ["at_interpreter_exit"]


def at_interpreter_exit(function: Callable[[], None]) -> None:
    """Call `function` at exit, last registered first, before threads are joined.

    `concurrent.futures` ends its own pools at the same point. `atexit` comes too late: by then the
    interpreter has waited for every thread, the ones that manage workers among them.
    """
    register = getattr(threading, "_register_atexit", atexit.register)
    with contextlib.suppress(RuntimeError):  # the end has begun already
        register(function)
    # A process of multiprocessing (or loky) joins its children before anything else, without asking them
    # to end; it forgets what it inherited when it was forked.
    _before_children_are_joined(function)
    util.register_after_fork(function, _before_children_are_joined)


def _before_children_are_joined(function: Callable[[], None]) -> None:
    util.Finalize(None, function, exitpriority=10)
