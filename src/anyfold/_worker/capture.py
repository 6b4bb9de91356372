"""What a task says, by warnings, logging and print: recorded where it is said, returned with the outcome.

One hook serves all tasks that run at a time. It passes each message to the task that issued it, known by a
context variable, since several threads may run tasks at once; a message from elsewhere goes its usual way.
It may come and go in a worker's thread while the caller's own code runs: what that changes meanwhile stays.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import os
import sys
import threading
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TextIO

from anyfold._data.serialize import dumps
from anyfold._plan.task import RelayedWarning

__all__ = [
    "Ears",
    "Said",
    "portable_record",
    "recorded",
    "routed",
    "said_now",
    "the_callers_ears",
    "undisturbed",
]

Filters = tuple[tuple[Any, ...], ...]


@dataclass(frozen=True, slots=True)
class Ears:
    """What the caller wants to hear."""

    filters: Filters
    """Warning filters, as `warnings.filters` holds them."""
    levels: Mapping[str, int]
    """Level of each logger that has one of its own; the root logger's name is empty."""
    disabled: int
    """Level up to which logging is disabled altogether."""


@dataclass(slots=True)
class Said:
    """What one task has said."""

    warnings: list[RelayedWarning] = field(default_factory=list)
    logs: list[logging.LogRecord] = field(default_factory=list)
    output: list[tuple[str, str]] = field(default_factory=list)
    """Name of the stream and text."""
    is_live: bool = False
    """Whether what is printed is seen at once as well."""
    around: Said | None = None
    """What the task says inside of which this one runs."""

    def lengths(self) -> tuple[int, int, int]:
        """Return how much has been said, for `since`."""
        return len(self.warnings), len(self.logs), len(self.output)

    def since(self, lengths: tuple[int, int, int]) -> Said:
        """Return what has been said after that."""
        n_warnings, n_logs, n_output = lengths
        return Said(self.warnings[n_warnings:], self.logs[n_logs:], self.output[n_output:])

    def extend(self, other: Said) -> None:
        """Say the same once more."""
        self.warnings += other.warnings
        self.logs += map(copy.copy, other.logs)
        self.output += other.output

    def clear(self) -> None:
        """Forget it, since the task is done once more."""
        self.warnings.clear()
        self.logs.clear()
        self.output.clear()


_said: ContextVar[Said | None] = ContextVar("anyfold_said", default=None)


def said_now() -> Said:
    """Return what the task that runs here has said so far."""
    return _said.get() or Said()


def the_callers_ears() -> Ears:
    """Record what the caller wants to hear, for the workers to apply."""
    loggers = logging.Logger.manager.loggerDict.items()
    levels = {
        name: logger.level
        for name, logger in list(loggers)
        if isinstance(logger, logging.Logger) and logger.level
    }
    levels[""] = logging.getLogger().level
    return Ears(tuple(_heard_here(warnings.filters)), levels, logging.root.manager.disable)


@contextlib.contextmanager
def recorded(*, is_live: bool = False) -> Iterator[Said]:
    """Collect what this task says; with `is_live`, what it prints is seen at once as well."""
    said = Said(is_live=is_live, around=_said.get())
    token = _said.set(said)
    try:
        yield said
    finally:
        _said.reset(token)


_hook_lock = threading.RLock()
_hook_depth = 0
_hook: contextlib.ExitStack | None = None


def _forget_in_child() -> None:
    # The hook stays in a fork, where nobody would take it down; a run there sets its own on top.
    global _hook_lock, _hook_depth, _hook
    _hook_lock, _hook_depth, _hook = threading.RLock(), 0, None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Have the hook neither come nor go, for what replaces the filters for a while."""
    with _hook_lock:
        yield


@contextlib.contextmanager
def routed(ears: Ears, *, own_process: bool) -> Iterator[None]:
    """Record what tasks say in this process; entered by several threads at once, the first sets the hook.

    Parameters
    ----------
    ears : Ears
        What the caller wants to hear.
    own_process : bool
        Whether this process is a worker, which takes over the caller's levels of logging.
    """
    global _hook_depth, _hook
    with _hook_lock:
        _hook_depth += 1
        if _hook_depth == 1:
            _hook = contextlib.ExitStack()
            _hook.enter_context(_warnings_hook(ears.filters))
            _hook.enter_context(_logging_hook())
            if own_process:
                _take_over_levels(ears)
            for name in ("stdout", "stderr"):
                _hook.enter_context(_stream_hook(name))
    try:
        yield
    finally:
        with _hook_lock:
            _hook_depth -= 1
            if _hook_depth == 0 and _hook is not None:
                _hook.close()
                _hook = None


# ---- warnings -----------------------------------------------------------------------------------------


class _Never(Warning):
    """Issued by nobody."""


class _InTask:
    """The message of a warning filter that holds inside of tasks only."""

    def __init__(self, message: Any) -> None:
        self.message = message

    @property
    def pattern(self) -> str:
        """What it matches, for scikit-learn, which makes filters of filters inside of tasks."""
        if self.message is None or isinstance(self.message, str):
            return self.message or ""
        return str(self.message.pattern)

    def match(self, text: str) -> bool:
        """Return whether a task says this."""
        if _said.get() is None:
            return False
        if self.message is None or isinstance(self.message, str):
            return self.message in (None, text)
        return bool(self.message.match(text))


@contextlib.contextmanager
def _warnings_hook(filters: Filters) -> Iterator[None]:
    """Apply the caller's filters to what tasks say, and record what passes them.

    What the caller ignores is ignored, what it turns into an error is an error inside the task;
    everything else is recorded each time: whether it is *shown* once or always is decided when the
    caller issues it again.
    """
    ours: list[Any] = [
        (action if action in ("ignore", "error") else "always", _InTask(message), category, module, line)
        for action, message, category, module, line in filters
    ]
    ours.append(("always", _InTask(None), Warning, None, 0))
    listed: Any = warnings.filters
    listed[:0] = ours
    # Any public call makes the interpreter forget what it has already shown.
    warnings.filterwarnings("always", category=_Never)
    _remove([("always", None, _Never, None, 0)], listed)
    if not isinstance(warnings.showwarning, _Route):
        warnings.showwarning = _Route(warnings.showwarning)
    try:
        yield
    finally:
        # The caller may have come into a block of `catch_warnings` meanwhile, or left one.
        _remove(ours, listed)
        _remove(ours, warnings.filters)
        if isinstance(warnings.showwarning, _Route):
            warnings.showwarning = warnings.showwarning.show


def _remove(entries: list[Any], listed: Any) -> None:
    for entry in entries:
        with contextlib.suppress(ValueError):
            listed.remove(entry)


def _heard_here(filters: Any) -> Iterator[tuple[Any, ...]]:
    """Return filters without what holds for other tasks than the one that runs here, if any."""
    for entry in filters:
        action, message, *rest = entry
        if not isinstance(message, _InTask):
            yield entry
        elif _said.get() is not None:
            yield (action, message.message, *rest)


class _Route:
    """Stands in for `warnings.showwarning`."""

    def __init__(self, show: Any) -> None:
        self.show = show

    def __call__(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        said = _said.get()
        if said is None:
            self.show(message, category, filename, lineno, file, line)
        else:
            said.warnings.append(RelayedWarning(category, str(message), filename, lineno))


# ---- logging ------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _logging_hook() -> Iterator[None]:
    """Record what loggers would pass to their handlers: the caller's handlers will get it."""
    usual = logging.Logger.callHandlers

    def call_handlers(logger: logging.Logger, record: logging.LogRecord) -> None:
        said = _said.get()
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


def _take_over_levels(ears: Ears) -> None:
    logging.disable(ears.disabled)
    for name in _taken_over - set(ears.levels):
        logging.getLogger(name).setLevel(logging.NOTSET)
    for name, level in ears.levels.items():
        logging.getLogger(name).setLevel(level)
    _taken_over.clear()
    _taken_over.update(ears.levels)


_taken_over: set[str] = set()
"""Loggers whose level an earlier run has set in this worker."""


# ---- print --------------------------------------------------------------------------------------------


class _RoutedStream:
    """Stands in for a standard stream: a task's text goes to its record, all else to the stream."""

    def __init__(self, name: str, stream: TextIO) -> None:
        self._name = name
        self._stream = stream

    def write(self, text: str) -> int:
        said = _said.get()
        while said is not None:
            said.output.append((self._name, text))
            if not said.is_live:
                return len(text)
            said = said.around
        return self._stream.write(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


_routed_streams: OrderedDict[tuple[str, int], _RoutedStream] = OrderedDict()
_MOST_ROUTED = 32


def _routed_stream(name: str, stream: TextIO) -> _RoutedStream:
    """Return what stands in for a stream, which lives on: a `print` in another thread may still use it.

    In CPython 3.11 `print` holds no reference to the stream that it writes to.
    """
    key = name, id(stream)
    found = _routed_streams.pop(key, None)
    if found is None or found._stream is not stream:
        found = _RoutedStream(name, stream)
    _routed_streams[key] = found
    while len(_routed_streams) > _MOST_ROUTED:
        _routed_streams.popitem(last=False)
    return found


@contextlib.contextmanager
def _stream_hook(name: str) -> Iterator[None]:
    stream = getattr(sys, name)
    if isinstance(stream, _RoutedStream):
        stream = stream._stream  # it was put back by the caller's own code
    if stream is None:
        yield
        return
    routed_stream = _routed_stream(name, stream)
    setattr(sys, name, routed_stream)
    try:
        yield
    finally:
        if getattr(sys, name) is routed_stream:
            setattr(sys, name, stream)
