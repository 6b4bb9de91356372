"""What a process keeps of fitted steps: what each call of a transformer came to, within a bound of memory."""

from __future__ import annotations

import os
import threading
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from anyfold._data.cache import Cache
from anyfold._data.kinds import arrays_of
from anyfold._data.sizes import nbytes_of
from anyfold._plan.canonical import Encoder
from anyfold._plan.code_identity import CodeIdentities
from anyfold._worker.said import Said

__all__ = [
    "NOT_SHARED",
    "Kept",
    "Key",
    "Made",
    "forget_steps",
    "refuse",
    "set_steps_limit",
    "settings",
    "size_of",
    "store",
    "take_made",
    "unshareable",
]


@dataclass(slots=True)
class _Settings:
    n_tasks: int = 1
    """Tasks that this process works on at once."""
    encoder: Encoder = field(default_factory=lambda: Encoder(CodeIdentities()))
    """Knows the code that it has met, until everything is forgotten; all threads must agree on it."""
    encoding: threading.RLock = field(default_factory=threading.RLock)


KEPT = 1024
"""Fitted steps and what they made of data, at most; the bound in bytes is usually met first."""

SMALL = 64 * 2**20
"""Bytes up to which more is kept than the chain of steps that is worked on."""

CHAIN = 8
"""Steps of one chain and what they made of the test data; kept though they are not small."""

Key = bytes


@dataclass(frozen=True, slots=True)
class Kept:
    """What one call came to."""

    output: Any
    state: Mapping[str, Any] | None
    """Attributes of the fitted transformer; None for what only transforms."""
    seconds: float
    """How long it takes, with everything inside it that was taken from elsewhere."""
    said: Said
    error: Exception | None = None
    traceback: TracebackType | None = None
    """Where the error was raised: another task that has it raises it anew."""
    by: Hashable = None
    """The task that made the call, or for which it was made."""


Made = tuple[Key, Kept | None]
"""A call and what it came to; None where nobody may be given that."""

NOT_SHARED = Kept(None, None, 0.0, Said())
"""Stands for a call whose result may not be given to others."""

store: Cache[Kept] = Cache(KEPT, None, SMALL)
unshareable: set[Key] = set()
"""Calls that draw from global generators, and fits of transformers that change when they transform."""
settings = _Settings()


def set_steps_limit(nbytes: int, n_tasks: int) -> None:
    """Set how many bytes this process keeps, and how many tasks it works on at once."""
    store.resize(nbytes, CHAIN * n_tasks)
    settings.n_tasks = n_tasks


def forget_steps() -> None:
    """Keep nothing of what was fitted so far."""
    store.drop(lambda key, value: True)
    unshareable.clear()
    settings.encoder = Encoder(CodeIdentities())


def take_made(made: list[Made]) -> None:
    """Keep what another process has fitted."""
    for key, kept in made:
        if kept is None:
            refuse(key)
        elif store.peek(key) is None and key not in unshareable:
            store.get(key, lambda kept=kept: (kept, size_of(kept)))  # type: ignore[misc]


def refuse(*keys: Key) -> None:
    """Let nobody be given what these calls came to."""
    unshareable.update(keys)
    store.drop(lambda key, value: key in keys)


def size_of(kept: Kept) -> int:
    attributes = sum(array.nbytes for value in (kept.state or {}).values() for array in arrays_of(value))
    return nbytes_of(kept.output) + attributes


def _unlock_in_child() -> None:
    settings.encoding = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock_in_child)
