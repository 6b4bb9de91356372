"""What anyfold runs on Ray's workers: calls, and the objects of Ray's store that they read.

A node's workers map one copy of an object, read-only, without copying it. A process keeps what the calls
that it runs need, and gives up what the present call does not.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple

import numpy as np
import ray

from anyfold._data.layout import ALIGNMENT
from anyfold._data.serialize import deserialize, serialize
from anyfold._mail.evidence import collect_evidence
from anyfold._mail.messages import NetworkAddress
from anyfold._mail.reporter import SilentReporter, reporter_for
from anyfold._worker.call import call, dumps_call, load_result
from anyfold.errors import SharedLost

__all__ = [
    "Need",
    "can_reach",
    "collect",
    "evidence_folder",
    "in_parts",
    "read",
    "restore",
    "run_call",
    "run_shared",
]

Parts = list[Any]
"""The pickle stream of an object, then each buffer that it refers to, as arrays of bytes."""


class Need(NamedTuple):
    """A shared object that a call needs."""

    key: str
    ref: Any
    """Ray's reference, inside a list, so that Ray does not read it for the call."""


def run_call(payload: bytes, needs: list[Need], sys_path: Sequence[str]) -> bytes:
    """Run a pickled call."""
    _take(needs, sys_path)
    return call(payload)


def run_shared(payload: bytes, needs: list[Need], sys_path: Sequence[str]) -> tuple[bytes, Parts | None]:
    """Run a pickled call whose result, in parts, is a return value of its own and stays in Ray's store."""
    _take(needs, sys_path)
    answer = call(payload)
    made: list[Parts] = []

    def split() -> None:
        made.append(in_parts(load_result(answer)))

    _split.set(split)
    answer = call(dumps_call(_run_split, (), {}))
    return answer, made[0] if made else None


_split: ContextVar[Any] = ContextVar("anyfold_split")


def _run_split() -> None:
    _split.get()()


def can_reach(address: NetworkAddress) -> bool:
    """Return whether this worker can connect to the caller's mailbox."""
    return not isinstance(reporter_for(address), SilentReporter)


def evidence_folder() -> str:
    """Return Ray's own folder of this session on this node."""
    node: Any = ray._private.worker._global_node
    return str(node.get_session_dir_path())


def collect(token: str, unit: int) -> str:
    """Return the stack that the worker of a unit has left on this node."""
    return collect_evidence(evidence_folder(), token, unit)


# ---- shared objects ---------------------------------------------------------------------------

_refs: dict[str, Any] = {}
_read: dict[str, Any] = {}


def _take(needs: list[Need], sys_path: Iterable[str]) -> None:
    sys.path += [folder for folder in sys_path if folder not in sys.path]
    wanted = {need.key for need in needs}
    for kept in (_refs, _read):
        for key in [key for key in kept if key not in wanted]:
            del kept[key]
    _refs.update({need.key: need.ref[0] for need in needs})


def read(key: str) -> Any:
    """Return a shared object that the present call needs.

    Raises
    ------
    SharedLost
        If it was released, or the node that held it is gone.
    """
    if key not in _read:
        if key not in _refs:
            raise SharedLost("shared data was released and can no longer be read; share it again")
        _read[key] = restore(_refs[key])
    return _read[key]


def restore(ref: Any) -> Any:
    """Read an object from Ray's store; its memory stays there."""
    try:
        stream, *buffers = ray.get(ref)
    except ray.exceptions.ObjectLostError as error:
        raise SharedLost(f"shared data can no longer be read: {error}") from error
    return deserialize(memoryview(stream), [_aligned(buffer).data for buffer in buffers])


def in_parts(obj: object) -> Parts:
    """Take an object apart into arrays that Ray stores without copying them into a pickle."""
    serialized = serialize(obj)
    return [_as_bytes(part) for part in (memoryview(serialized.stream), *serialized.buffers)]


def _as_bytes(part: memoryview) -> np.ndarray:
    return np.frombuffer(part, np.uint8) if part.nbytes else np.empty(0, np.uint8)


def _aligned(array: np.ndarray) -> np.ndarray:
    # What is small does not lie in the store; where numbers start in memory may change their sums.
    if array.ctypes.data % ALIGNMENT or array.flags.writeable:
        room = np.empty(array.nbytes + ALIGNMENT, np.uint8)
        start = -room.ctypes.data % ALIGNMENT
        copy = room[start : start + array.nbytes]
        copy[:] = array
        copy.flags.writeable = False
        return copy
    return array
