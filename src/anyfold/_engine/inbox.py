"""Where all that happens in a run arrives: nothing is lost when Ctrl-C comes while it is taken out."""

from __future__ import annotations

import contextlib
import queue
import time
from collections import deque
from typing import Generic, TypeVar

__all__ = ["Inbox"]

T = TypeVar("T")


class Inbox(Generic[T]):
    """A queue from many threads to one, which drops what is first only when it has been seen to.

    A queue of the standard library gives an element up before its caller has it: a signal may come between.
    """

    def __init__(self) -> None:
        self._events: deque[T] = deque()
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()

    def put(self, event: T) -> None:
        """Add what has happened."""
        self._events.append(event)
        self._bell.put(None)

    def first(self, timeout: float | None = None) -> T:
        """Wait for something to happen and return it; it stays.

        Raises
        ------
        queue.Empty
            If nothing has happened in so many seconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._events:
            self._bell.get(timeout=None if deadline is None else max(0.0, deadline - time.monotonic()))
        return self._events[0]

    def drop(self) -> None:
        """Take out what is first."""
        self._events.popleft()
        with contextlib.suppress(queue.Empty):
            self._bell.get_nowait()

    def empty(self) -> bool:
        """Return whether all has been seen to."""
        return not self._events
