"""How many items of a pickled list can be read, where not all can.

A pickle is a program for a machine with a stack. To find where each item begins nothing of it has to be run:
of every instruction it is known what it takes from the stack and what it leaves there (`pickletools`).
"""

from __future__ import annotations

import pickle
import pickletools
from bisect import bisect_left
from typing import Any

from anyfold._data.serialize import loads

__all__ = ["readable_items"]

FRAME_LENGTH = 9
"""Bytes of an instruction that says how long the next ones are, which is wrong where they are cut."""


def readable_items(data: bytes) -> list[Any]:
    """Return the items of a pickled list before the first that cannot be read.

    Parameters
    ----------
    data : bytes
        A list that has such an item, as `anyfold._data.serialize.dumps` makes it.

    Examples
    --------
    >>> from anyfold._data.serialize import dumps
    >>> class Trap:
    ...     def __reduce__(self):
    ...         return int, ("no number",)
    >>> readable_items(dumps([0, "one", [2], Trap(), 4]))
    [0, 'one', [2]]
    """
    first = _Prefixes(_without_frames(data))
    lengths = range(1, len(first))
    n_readable = bisect_left(lengths, True, key=lambda n_items: not _is_readable(first[n_items]))
    items: list[Any] = loads(first[n_readable])
    return items


def _is_readable(data: bytes) -> bool:
    try:
        loads(data)
    except Exception:
        return False
    return True


def _without_frames(data: bytes) -> bytes:
    frames = [at for code, _, at in pickletools.genops(data) if code.name == "FRAME" and at is not None]
    starts = [0, *(at + FRAME_LENGTH for at in frames)]
    return b"".join(data[start:end] for start, end in zip(starts, [*frames, len(data)], strict=True))


class _Prefixes:
    """The beginnings of a pickled list as lists of their own, each made when it is asked for."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._ends = _beginnings_of_items(data)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, n_items: int) -> bytes:
        """Return the list of the first items."""
        end, is_in_series = self._ends[n_items]
        return self._data[:end] + (pickle.APPENDS if is_in_series else b"") + pickle.STOP


def _beginnings_of_items(data: bytes) -> list[tuple[int, bool]]:
    """Return where each item begins, and whether as one of a series that is appended at once."""
    found: list[tuple[int, bool]] = []
    stack: list[tuple[int, bool]] = []
    """Where what is there begins, and whether it is a mark."""
    for code, _, at in pickletools.genops(data):
        assert at is not None
        takes, begins = code.stack_before, at
        if pickletools.markobject in takes:
            mark = next(index for index in reversed(range(len(stack))) if stack[index][1])
            begins = stack[mark][0]
            if code.name == "APPENDS" and mark == 1:
                found += [(start, True) for start, _ in stack[2:]]
            del stack[mark:]
            takes = takes[: takes.index(pickletools.markobject)]
        elif code.name == "APPEND" and len(stack) == 2:
            found.append((stack[1][0], False))
        if takes:
            begins = stack[-len(takes)][0]
            del stack[-len(takes) :]
        stack += [(begins, kind is pickletools.markobject) for kind in code.stack_after]
    return found
