"""Cross-validation on any execution backend, with the same numbers bit for bit.

    result = anyfold.run_cv(models, anyfold.Folds(X, y))        # backend="loky", or ANYFOLD_BACKEND=loky

Names are imported when they are first used, so that ``import anyfold`` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from anyfold._joblib_registration import register_with_joblib
from anyfold._version import __version__

if TYPE_CHECKING:
    from anyfold import errors
    from anyfold.cross_validation import Folds, run_cv
    from anyfold.executors import available_backends, get_executor, register_backend, shutdown
    from anyfold.fitting import fit_models
    from anyfold.parallel import parallel_map, parallel_starmap
    from anyfold.prediction import predict_models, predict_partitions
    from anyfold.results import CVResult, FittedModels
    from anyfold.settings import config_context, get_config, set_config

__all__ = [
    "CVResult",
    "FittedModels",
    "Folds",
    "__version__",
    "available_backends",
    "config_context",
    "errors",
    "fit_models",
    "get_config",
    "get_executor",
    "parallel_map",
    "parallel_starmap",
    "predict_models",
    "predict_partitions",
    "register_backend",
    "run_cv",
    "set_config",
    "shutdown",
]

register_with_joblib()

_HOMES = {
    "CVResult": "anyfold.results",
    "FittedModels": "anyfold.results",
    "Folds": "anyfold.cross_validation",
    "available_backends": "anyfold.executors",
    "config_context": "anyfold.settings",
    "fit_models": "anyfold.fitting",
    "get_config": "anyfold.settings",
    "get_executor": "anyfold.executors",
    "parallel_map": "anyfold.parallel",
    "parallel_starmap": "anyfold.parallel",
    "predict_models": "anyfold.prediction",
    "predict_partitions": "anyfold.prediction",
    "register_backend": "anyfold.executors",
    "run_cv": "anyfold.cross_validation",
    "set_config": "anyfold.settings",
    "shutdown": "anyfold.executors",
}


def __getattr__(name: str) -> Any:
    if name == "errors":
        return import_module("anyfold.errors")
    try:
        home = _HOMES[name]
    except KeyError:
        raise AttributeError(f"module 'anyfold' has no attribute {name!r}") from None
    value = globals()[name] = getattr(import_module(home), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
