"""What the backends have in common: futures that follow other futures, pools that heal, foreign executors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

from anyfold.errors import InvalidSettingError

__all__ = ["check_max_workers", "failed_future", "run_inline"]


def check_max_workers(max_workers: int) -> int:
    """Return the number of workers, or raise `InvalidSettingError` where it is none."""
    if not isinstance(max_workers, int) or isinstance(max_workers, bool) or max_workers < 1:
        raise InvalidSettingError(f"max_workers={max_workers!r} is not a positive integer")
    return max_workers


def failed_future(error: BaseException) -> Future[Any]:
    """Return a future that is done and raises `error`."""
    future: Future[Any] = Future()
    future.set_running_or_notify_cancel()
    future.set_exception(error)
    return future


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
