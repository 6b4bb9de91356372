"""Fits that draw from one generator of the whole process take place one at a time.

In two threads at once each would take random numbers that the other one is to have, and the seed of one
would be overwritten by the other's.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from typing import Any

from anyfold import _compat
from anyfold._worker.execute import depth

__all__ = ["alone_if_needed", "with_parts"]

_one_at_a_time: dict[int, threading.RLock] = {}
"""By depth: threads of a run inside of a task must not wait for that task."""


def alone_if_needed(*objects: Any) -> contextlib.AbstractContextManager[Any]:
    """Return what keeps other threads' fits away, if any of the objects is such an estimator."""
    if not any(map(_compat.draws_from_process, objects)):
        return contextlib.nullcontext()
    return _one_at_a_time.setdefault(depth(), threading.RLock())


def with_parts(obj: Any) -> Iterator[Any]:
    """Yield an object and, if it is an estimator, the values of all its parameters."""
    yield obj
    if hasattr(obj, "get_params") and not isinstance(obj, type):
        yield from obj.get_params(deep=True).values()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_one_at_a_time.clear)
