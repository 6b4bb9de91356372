"""Turns an exception of a task into a value that can travel."""

from __future__ import annotations

import traceback

from anyfold._data.serialize import dumps
from anyfold._plan.task import Failure, Stage

__all__ = ["failure_of"]


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
    exception: bytes | None
    try:
        exception = dumps(error)
    except Exception:
        exception = None
    return Failure(stage, type(error).__name__, message, text, exception)
