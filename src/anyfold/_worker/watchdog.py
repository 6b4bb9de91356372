"""Ends a worker whose task runs too long, and leaves the stack in which it hung as evidence.

The interpreter's own watchdog does it: a thread that needs no lock of the interpreter, so that even a
loop that never lets go of it is ended. There is one such watchdog in a process, which therefore runs one
leaf at a time.
"""

from __future__ import annotations

import contextlib
import faulthandler
import sys
from collections.abc import Iterator

from anyfold._mail.messages import LocalAddress, SocketAddress
from anyfold._mail.reporter import evidence_channel

__all__ = ["watched"]


@contextlib.contextmanager
def watched(seconds: float | None, address: LocalAddress | SocketAddress | None) -> Iterator[None]:
    """End this process when the block takes longer than so many seconds."""
    if seconds is None:
        yield
        return
    channel = evidence_channel(address) if isinstance(address, SocketAddress) else None
    evidence = sys.__stderr__.fileno() if channel is None and sys.__stderr__ is not None else channel
    faulthandler.dump_traceback_later(seconds, exit=True, file=evidence)  # type: ignore[arg-type]
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
