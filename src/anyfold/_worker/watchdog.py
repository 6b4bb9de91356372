"""Ends a worker whose task runs too long, and leaves the stack in which it hung as evidence.

The interpreter's own watchdog does it: a thread that needs no lock of the interpreter, so that even a
loop that never lets go of it is ended. There is one such watchdog in a process, which therefore runs one
leaf at a time.

A fork of the caller cannot use it: where the caller's own watchdog was armed, its thread is missing there,
and whoever arms or cancels it waits for that thread for ever. There the alarm clock of the process does it,
whose signal the interpreter answers with the same stack, again without its lock.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from anyfold._mail.evidence import EvidenceAddress
from anyfold._mail.messages import LocalAddress, SocketAddress
from anyfold._mail.reporter import evidence_channel

__all__ = ["reset_alarm", "watched"]


@contextlib.contextmanager
def watched(
    seconds: float | None, address: LocalAddress | SocketAddress | EvidenceAddress | None, unit: int = 0
) -> Iterator[None]:
    """End this process when the block takes longer than so many seconds."""
    if seconds is None:
        yield
        return
    with _channel(address, unit) as channel:
        evidence = sys.__stderr__.fileno() if channel is None and sys.__stderr__ is not None else channel
        if _is_fork:
            with _alarm(seconds, evidence):
                yield
            return
        faulthandler.dump_traceback_later(seconds, exit=True, file=evidence)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()


def _channel(address: object, unit: int) -> contextlib.AbstractContextManager[Any]:
    """Return where the stack shall be written to, None for a process whose caller takes none."""
    if isinstance(address, EvidenceAddress):
        return address.channel(unit)
    return contextlib.nullcontext(evidence_channel(address) if isinstance(address, SocketAddress) else None)


@dataclass(frozen=True, slots=True)
class _Alarm:
    due: float
    """On the monotonic clock."""
    evidence: Any

    def set(self) -> None:
        faulthandler.unregister(signal.SIGALRM)
        _handle_alarm(signal.SIG_DFL)  # comes second, and ends the process
        faulthandler.register(signal.SIGALRM, file=self.evidence, chain=True)
        signal.setitimer(signal.ITIMER_REAL, max(1e-6, self.due - time.monotonic()))


_set: _Alarm | None = None
_is_fork = False
"""Whether this process is a fork of one that has loaded this module."""


@contextlib.contextmanager
def _alarm(seconds: float, evidence: Any) -> Iterator[None]:
    global _set
    before = signal.getsignal(signal.SIGALRM)
    _set = _Alarm(time.monotonic() + seconds, evidence)
    _set.set()
    try:
        yield
    finally:
        _set = None
        reset_alarm()
        faulthandler.unregister(signal.SIGALRM)
        _handle_alarm(before)


def _handle_alarm(handler: Any) -> None:
    # Only the main thread can, and nobody knows how to put back what is not Python's.
    if handler is not None and signal.getsignal(signal.SIGALRM) != handler:
        signal.signal(signal.SIGALRM, handler)


def reset_alarm() -> None:
    """Stop the alarm clock of this process, or set it as it was before the task changed it."""
    if _set is None:
        signal.setitimer(signal.ITIMER_REAL, 0)
    else:
        _set.set()


def _note_fork() -> None:
    global _is_fork, _set
    _is_fork, _set = True, None


os.register_at_fork(after_in_child=_note_fork)
