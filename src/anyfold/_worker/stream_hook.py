"""Records what tasks print."""

from __future__ import annotations

import contextlib
import sys
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, TextIO

from anyfold._worker.said import who_speaks

__all__ = ["stream_hook"]


class _RoutedStream:
    """Stands in for a standard stream: a task's text goes to its record, all else to the stream."""

    def __init__(self, name: str, stream: TextIO) -> None:
        self._name = name
        self._stream = stream

    def write(self, text: str) -> int:
        said = who_speaks()
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
def stream_hook(name: str) -> Iterator[None]:
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
