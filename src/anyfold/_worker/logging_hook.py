"""Records what tasks log, by the caller's levels."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping

from anyfold._data.serialize import dumps
from anyfold._worker.said import who_speaks

__all__ = ["logging_hook", "portable_record", "take_over_levels"]


@contextlib.contextmanager
def logging_hook() -> Iterator[None]:
    """Record what loggers would pass to their handlers: the caller's handlers will get it."""
    usual = logging.Logger.callHandlers

    def call_handlers(logger: logging.Logger, record: logging.LogRecord) -> None:
        said = who_speaks()
        if said is None:
            usual(logger, record)
        else:
            said.logs.append(_rendered(record))

    logging.Logger.callHandlers = call_handlers  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        if logging.Logger.callHandlers is call_handlers:
            logging.Logger.callHandlers = usual  # type: ignore[method-assign]


def _rendered(record: logging.LogRecord) -> logging.LogRecord:
    record.msg, record.args = record.getMessage(), None
    if record.exc_info:
        record.exc_text = record.exc_text or logging.Formatter().formatException(record.exc_info)
        record.exc_info = None
    return record


def portable_record(record: logging.LogRecord) -> logging.LogRecord:
    """Return a record that can be pickled: this one, or one without the attributes that stand in the way."""
    if _can_be_pickled(record):
        return record
    kept = {name: value for name, value in vars(record).items() if _can_be_pickled(value)}
    return logging.makeLogRecord(kept)


def _can_be_pickled(value: object) -> bool:
    try:
        dumps(value)
    except Exception:
        return False
    return True


def take_over_levels(levels: Mapping[str, int], disabled: int) -> None:
    """Have loggers be as quiet as the caller's, in a process that is a worker's own."""
    logging.disable(disabled)
    for name in _taken_over - set(levels):
        logging.getLogger(name).setLevel(logging.NOTSET)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    _taken_over.clear()
    _taken_over.update(levels)


_taken_over: set[str] = set()
"""Loggers whose level an earlier run has set in this worker."""
