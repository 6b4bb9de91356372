"""Doing something when the interpreter ends, while threads still run."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable

__all__ = ["at_interpreter_exit"]


def at_interpreter_exit(function: Callable[[], None]) -> None:
    """Call `function` at exit, last registered first, before threads are joined.

    `concurrent.futures` ends its own pools at the same point. `atexit` comes too late: by then the
    interpreter has waited for every thread, the ones that manage workers among them.
    """
    register = getattr(threading, "_register_atexit", atexit.register)
    register(function)
