"""Turns an exception of a task into a value that can travel."""

from __future__ import annotations

import signal
import traceback
from typing import Any

from anyfold._data.serialize import dumps, loads
from anyfold._plan.task import Failure, Stage

__all__ = ["failure_of", "is_the_callers"]


def is_the_callers(error: BaseException) -> bool:
    """Return whether an exception that ends a task in the caller's own thread is meant for the program.

    That is Ctrl-C, and the ``sys.exit`` of a handler that the program has for some other signal; a model that
    calls ``sys.exit`` itself has failed.
    """
    if not isinstance(error, SystemExit):
        return isinstance(error, KeyboardInterrupt)
    handlers = {getattr(signal.getsignal(number), "__code__", None) for number in signal.valid_signals()}
    return any(frame.f_code in handlers for frame, _ in traceback.walk_tb(error.__traceback__))


def failure_of(stage: Stage, error: BaseException) -> Failure:
    """Keep type, message, traceback and, where it can be pickled, the exception itself."""
    try:
        message = str(error)
    except Exception as broken:
        message = f"<{type(error).__name__} whose str() raised {type(broken).__name__}>"
    try:
        text = "".join(traceback.format_exception(error))
    except Exception:
        text = "".join(traceback.format_tb(error.__traceback__)) + f"{type(error).__name__}: {message}\n"
    return Failure(stage, type(error).__name__, message, text, _pickled(error))


def _pickled(error: BaseException) -> bytes | None:
    """Pickle an exception, in whichever way it can be read again."""
    # Many exceptions cannot be made again from their args alone, as pickle does it.
    for thing in (error, _Rebuilt(error)):
        try:
            data = dumps(thing)
            loads(data)
        except Exception:
            continue
        return data
    return None


class _Rebuilt:
    """Is pickled as an exception that is made without its ``__init__``."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __reduce__(self) -> Any:
        return _rebuild, (type(self._error), self._error.args, self._error.__dict__)


def _rebuild(cls: type[BaseException], args: tuple[Any, ...], state: dict[str, Any]) -> BaseException:
    error = cls.__new__(cls, *args)
    error.__dict__.update(state)
    return error
