"""Futures that are done already, and futures that follow another executor's."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future, InvalidStateError
from typing import Any

from anyfold._worker.call import Answer

__all__ = ["FollowingFuture", "failed_future", "run_inline", "settle"]

_logger = logging.getLogger("anyfold.executors")


def failed_future(error: BaseException) -> Future[Any]:
    """Return a future that is done and raises `error`."""
    future: Future[Any] = Future()
    future.set_running_or_notify_cancel()
    future.set_exception(error)
    return future


def settle(future: Future[Any], answer: Answer) -> None:
    """Resolve a future on a thread that must survive whatever its callbacks do."""
    try:
        if answer.exception is None:
            future.set_result(answer.value)
        else:
            future.set_exception(answer.exception)
    except InvalidStateError:
        pass  # somebody resolved it by hand
    except BaseException:
        # An Exception of a callback is logged by the future itself; the rest comes here.
        _logger.exception("a callback of %r raised", future)


def run_inline(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Future[Any]:
    """Call the function here and now; ``KeyboardInterrupt`` and ``SystemExit`` are the caller's own."""
    try:
        result = fn(*args, **kwargs)
    except Exception as error:
        return failed_future(error)
    future: Future[Any] = Future()
    future.set_running_or_notify_cancel()
    future.set_result(result)
    return future


class FollowingFuture(Future[Any]):
    """A future that ends as another one does, once its result has been translated.

    Parameters
    ----------
    inner : Future
        The future of the executor that does the work.
    read : callable
        Turns the finished inner future, which was not cancelled, into an `Answer`.
    """

    def __init__(self, inner: Future[Any], read: Callable[[Future[Any]], Answer]) -> None:
        super().__init__()
        self._inner: Future[Any] | None = inner
        self._read: Callable[[Future[Any]], Answer] | None = read
        inner.add_done_callback(self._follow)

    def cancel(self) -> bool:
        """Cancel the work; False where it runs or is done."""
        inner = self._inner
        if inner is not None and not inner.cancel():
            return False
        return super().cancel()

    def running(self) -> bool:
        """Return whether the other executor says that the work runs."""
        inner = self._inner
        return inner is not None and inner.running()

    def _follow(self, inner: Future[Any]) -> None:
        read, self._read = self._read, None
        if inner.cancelled() or read is None:
            super().cancel()
            self.set_running_or_notify_cancel()
        else:
            try:
                answer = read(inner)
            except Exception as error:
                answer = Answer(None, error)
            settle(self, answer)
        self._inner = None
