"""Time limits that show where everything stood, and waiting for what is seen from outside."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

__all__ = ["FAREWELL", "PATIENCE", "TimeLimitExceeded", "time_limit", "wait_until", "wait_until_gone"]

PATIENCE = 60.0
"""Seconds after which something that should happen is taken for one that never will."""

FAREWELL = 60.0
"""Seconds after which something that should be gone is taken for one that stays."""

GRACE = 30.0
"""Seconds that a test has to clean up once its time is over, before the process is ended."""


class TimeLimitExceeded(AssertionError):
    """A test did not end; the message shows the stacks of all threads."""


@contextlib.contextmanager
def time_limit(seconds: float, what: str) -> Iterator[None]:
    """Fail with the stacks of all threads after a time; end the process where even that does not help.

    Parameters
    ----------
    seconds : float
        The limit.
    what : str
        What it is the limit of, for the message.
    """
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        with _last_resort(seconds):
            yield
        return

    def expire(number: int, frame: FrameType | None) -> None:
        raise TimeLimitExceeded(
            f"{what} did not end within {seconds:g} s; this is where it stood\n{stacks()}"
        )

    handler = signal.signal(signal.SIGALRM, expire)
    begun = time.monotonic()
    outer, interval = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        with _last_resort(seconds + GRACE):
            yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if outer:  # a limit of whoever runs the tests
            signal.setitimer(signal.ITIMER_REAL, max(0.001, outer - (time.monotonic() - begun)), interval)


@contextlib.contextmanager
def _last_resort(seconds: float) -> Iterator[None]:
    # Not faulthandler.dump_traceback_later: in a forked worker its lock would never be free, and the
    # worker could not use it for time limits of its own.
    timer = threading.Timer(seconds, _end_process)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _end_process() -> None:
    if sys.__stderr__ is not None:
        sys.__stderr__.write(f"a test did not end, even after its time was over\n{stacks()}")
        sys.__stderr__.flush()
    os._exit(1)


def stacks() -> str:
    """Return the stacks of all threads of this process as text."""
    with tempfile.TemporaryFile("w+") as file:
        faulthandler.dump_traceback(file, all_threads=True)
        file.seek(0)
        return file.read()


def wait_until(
    condition: Callable[[], object], what: str | Callable[[], str], seconds: float | None = None
) -> None:
    """Wait for something that other processes or threads bring about; fail where it does not come.

    Parameters
    ----------
    condition : callable
        Asked again and again.
    what : str or callable
        What it is, for the message, or what says so when the time is over.
    seconds : float, optional
        How long to wait; by default `PATIENCE`.
    """
    seconds = PATIENCE if seconds is None else seconds
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            told = what if isinstance(what, str) else what()
            raise AssertionError(f"waited {seconds:g} s in vain for {told}")
        time.sleep(0.005)


def wait_until_gone(left: Callable[[], Sequence[object]], whose: str) -> None:
    """Wait for the end of what something has left; fail where it stays.

    Parameters
    ----------
    left : callable
        Returns what is still there; asked again and again.
    whose : str
        Who left it, for the message.
    """
    wait_until(lambda: not left(), lambda: f"the end of what {whose} has left: {left()}", FAREWELL)
