"""Where work runs: the protocol, and one small file per backend."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anyfold.executors._warm import shutdown
    from anyfold.executors.adapter import as_executor
    from anyfold.executors.base import Executor
    from anyfold.executors.registry import available_backends, get_executor, register_backend

__all__ = [
    "Executor",
    "as_executor",
    "available_backends",
    "get_executor",
    "register_backend",
    "shutdown",
]

# Imported when first used: a worker needs only the protocol.
_HOMES = {
    "Executor": "base",
    "as_executor": "adapter",
    "available_backends": "registry",
    "get_executor": "registry",
    "register_backend": "registry",
    "shutdown": "_warm",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'anyfold.executors' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"anyfold.executors.{_HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
