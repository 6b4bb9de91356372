"""SIGTERM, as batch systems send it, ends a run as Ctrl-C does."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from anyfold._worker.execute import inside_worker
from anyfold.errors import Terminated

__all__ = ["termination_heard"]


@contextlib.contextmanager
def termination_heard() -> Iterator[None]:
    """Have SIGTERM raise `Terminated` in the caller, for the length of a run.

    Where the program handles the signal itself that is left to it; so is what a worker does, which is
    not asked but ended.
    """
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or inside_worker() or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    caller = os.getpid()

    def terminate(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)  # the second one ends the process at once
        if os.getpid() != caller:  # a fork of it, which never asked for this
            os.kill(os.getpid(), number)
        raise Terminated

    signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is terminate:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
