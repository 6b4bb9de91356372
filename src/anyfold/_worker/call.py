"""How one call travels to a worker and its answer back: bytes in, bytes out.

Everything is pickled with cloudpickle, so that what is defined in a script, a notebook or inside a
function travels too. Where a result or an exception cannot make the journey, the caller learns what it
was and where it came from.
"""

from __future__ import annotations

import io
import pickle
import traceback
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import cloudpickle

from anyfold._worker.boot import interrupts_ignored, watch_driver
from anyfold.errors import UnreadableResultError, WorkerTraceback

__all__ = ["Answer", "call", "call_watching", "dumps_call", "load_answer", "load_result"]

_PROTOCOL = 5
_RESULT = b"R"
_ERROR = b"E"


class Answer(NamedTuple):
    """What a call came to: a value, or the exception that it raised."""

    value: Any
    exception: BaseException | None


class _Error(NamedTuple):
    """An exception on its way to the caller."""

    type_name: str
    message: str
    traceback: str
    pickled: bytes | None
    """The original exception; None where it cannot be pickled."""
    obstacle: str
    """Why it cannot."""


def dumps_call(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes:
    """Pickle a call, wherever its function is defined.

    Raises
    ------
    Exception
        Whatever pickling raises, with a note that names the function.
    """
    try:
        return _dumps((fn, args, dict(kwargs)))
    except Exception as error:
        error.add_note(f"anyfold: while pickling a call of {_name_of(fn)} for a worker")
        raise


def call(payload: bytes | bytearray) -> bytes:
    """Run a pickled call on a worker and return the pickled answer; raises nothing.

    ``SystemExit`` and ``KeyboardInterrupt`` of the function are answers like any other exception: they
    must not end the worker.
    """
    try:
        fn, args, kwargs = pickle.loads(payload)
    except BaseException as error:
        error.add_note("anyfold: while a worker was unpickling the call")
        return _dump_error(error)
    try:
        result = fn(*args, **kwargs)
    except BaseException as error:
        return _dump_error(error)
    try:
        return _dumps(result, kind=_RESULT)
    except BaseException as error:
        what = f"the result of {_name_of(fn)}, of type {_qualified(type(result))}"
        return _dump_error(
            UnreadableResultError(f"{what}, cannot be pickled: {_describe(error)}"), cause=error
        )


def call_watching(payload: bytes, driver_pid: int) -> bytes:
    """Like `call`, in a process that anyfold did not start; it ends with its caller, on the same host."""
    watch_driver(driver_pid)
    with interrupts_ignored():
        return call(payload)


def load_answer(data: bytes | bytearray | memoryview) -> Answer:
    """Unpickle what `call` returned; raises nothing."""
    kind, body = bytes(data[:1]), memoryview(data)[1:]
    if kind == _RESULT:
        try:
            return Answer(pickle.loads(body), None)
        except Exception as error:
            failure = UnreadableResultError(
                f"a worker's result cannot be unpickled by the caller: {_describe(error)}"
            )
            failure.__cause__ = error
            return Answer(None, failure)
    return Answer(None, _load_error(_Error(*pickle.loads(body))))


def load_result(data: bytes | bytearray | memoryview) -> Any:
    """Return what the call returned, or raise what it raised, `WorkerTraceback` being the cause."""
    value, exception = load_answer(data)
    if exception is not None:
        raise exception
    return value


def _dump_error(error: BaseException, cause: BaseException | None = None) -> bytes:
    shown = cause if cause is not None else error
    # The first frame is the one of `call`, which is of no interest to anybody.
    frames = shown.__traceback__.tb_next if shown.__traceback__ is not None else None
    text = "".join(traceback.format_exception(type(shown), shown, frames))
    pickled, obstacle = None, ""
    try:
        pickled = _dumps(error)
    except BaseException as reason:
        obstacle = _describe(reason)
    answer = _Error(_qualified(type(error)), _message(error), text, pickled, obstacle)
    return _ERROR + pickle.dumps(tuple(answer), protocol=_PROTOCOL)


def _load_error(error: _Error) -> BaseException:
    exception: Any = None
    obstacle = error.obstacle
    if error.pickled is not None:
        try:
            exception = pickle.loads(error.pickled)
        except Exception as reason:
            obstacle = _describe(reason)
    if not isinstance(exception, BaseException):
        exception = UnreadableResultError(
            f"{error.type_name}: {error.message}\n(raised on a worker; the exception itself could not be "
            f"sent to the caller: {obstacle or 'it unpickles to something else'})"
        )
    exception.__cause__ = WorkerTraceback(error.traceback)
    return exception  # type: ignore[no-any-return]


def _dumps(obj: object, kind: bytes = b"") -> bytes:
    # Writing the marker first spares a copy of what may be a large result.
    buffer = io.BytesIO()
    buffer.write(kind)
    cloudpickle.CloudPickler(buffer, protocol=_PROTOCOL).dump(obj)
    return buffer.getvalue()


def _name_of(fn: object) -> str:
    return getattr(fn, "__qualname__", None) or _qualified(type(fn))


def _qualified(cls: type) -> str:
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return "(its message cannot be shown)"


def _describe(error: BaseException) -> str:
    return f"{_qualified(type(error))}: {_message(error)}"
