"""Makes ``joblib.parallel_config(backend="anyfold")`` work without importing joblib.

joblib knows a backend by name when its ``register_parallel_backend`` was called, for which joblib must be
there, and has no way to announce one before. So this waits until joblib is imported.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.abc import Loader
    from importlib.machinery import ModuleSpec
    from types import ModuleType

__all__ = ["register_with_joblib"]

PLACE = "joblib.parallel"


def register_with_joblib() -> None:
    """Register the backend now if joblib is there, or else as soon as somebody imports it."""
    module = sys.modules.get(PLACE)
    if module is not None:
        _register(module)
    elif not any(isinstance(finder, _Waiting) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Waiting())


def _register(module: ModuleType) -> None:
    module.register_parallel_backend("anyfold", _make)


def _make(**options: Any) -> Any:
    from anyfold._joblib_backend import AnyfoldBackend

    return AnyfoldBackend(**options)


class _Waiting:
    """Finds one module the way that it is found anyway, once, and registers when that was imported."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != PLACE:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(name)
        if spec is not None and spec.loader is not None:
            spec.loader = cast("Loader", _Registering(spec.loader))
        return spec


class _Registering:
    """Loads a module as its own loader does, and registers."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # From here on the module is what it would be without this.
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        _register(module)
