"""Executors around the one under test: they reorder what it completes and record what it is given."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from anyfold.executors.base import capabilities_of, isolation_of

__all__ = ["Recording", "Reordering"]


class _Around:
    """Passes everything on."""

    def __init__(self, executor: Any) -> None:
        self.inner = executor
        self.isolation = isolation_of(executor)
        self.capabilities = capabilities_of(executor)
        self.max_workers = getattr(executor, "max_workers", None)

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = self.inner.submit(fn, *args, **kwargs)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Leave the executor under test to whoever made it."""

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *error: object) -> None:
        self.shutdown()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


class Recording(_Around):
    """Keeps what a function says of each task that is submitted."""

    def __init__(self, executor: Any, look: Callable[[Any, Any, Any], Any]) -> None:
        super().__init__(executor)
        self._look = look
        self.recorded: list[Any] = []

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.recorded.append(self._look(fn, args, kwargs))
        return super().submit(fn, *args, **kwargs)


class Silent:
    """A mailbox that nobody writes to: outcomes then travel with the results of the futures."""

    address = None

    def drain(self) -> None:
        """Return: there is nothing to wait for."""

    def close(self) -> None:
        """Return: there is nothing to close."""


class Reordering(_Around):
    """Holds results back until every task that was given is done, and hands them out in another order.

    It has a mailbox that nobody writes to, so that outcomes come in the order of the futures.

    Parameters
    ----------
    executor : Executor
        Does the work.
    seed : int or None
        Of a random order; None is the reverse of the order of submission.
    """

    def __init__(self, executor: Any, seed: int | None = None) -> None:
        super().__init__(executor)
        self.capabilities |= {"mailbox"}
        self._random = None if seed is None else random.Random(seed)
        self._lock = threading.Lock()
        self._held: list[tuple[Future[Any], Future[Any]]] = []

    def open_mailbox(self, deliver: Callable[[Any], None]) -> Silent:
        """Return a mailbox in which nothing arrives."""
        return Silent()

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        outer: Future[Any] = Future()
        with self._lock:
            inner = super().submit(fn, *args, **kwargs)
            self._held.append((inner, outer))
        inner.add_done_callback(lambda _: self._release())
        return outer

    def _release(self) -> None:
        with self._lock:
            if not all(inner.done() for inner, _ in self._held):
                return
            ready, self._held = self._held, []
        if self._random is None:
            ready.reverse()
        else:
            self._random.shuffle(ready)
        for inner, outer in ready:
            if not outer.set_running_or_notify_cancel():
                continue
            error = inner.exception() if not inner.cancelled() else RuntimeError("cancelled")
            if error is None:
                outer.set_result(inner.result())
            else:
                outer.set_exception(error)
