"""The contract suite: anyone can prove a backend.

`ExecutorContract` holds everything that anyfold promises of an executor as tests, for pytest or for
`run_contract`; `python -m anyfold check BACKEND` runs them from the command line. `anyfold.testing.probes`
holds estimators and functions whose behaviour is scripted and can be watched from outside.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anyfold.testing._case import CATEGORIES, Result
    from anyfold.testing._runner import contract_for, run_contract
    from anyfold.testing.contract import ExecutorContract

__all__ = ["CATEGORIES", "ExecutorContract", "Result", "contract_for", "run_contract"]

_HOMES = {
    "CATEGORIES": "anyfold.testing._case",
    "ExecutorContract": "anyfold.testing.contract",
    "Result": "anyfold.testing._case",
    "contract_for": "anyfold.testing._runner",
    "run_contract": "anyfold.testing._runner",
}


def __getattr__(name: str) -> Any:
    # A worker that is given a function of a probe needs neither the contract nor scikit-learn.
    if name not in _HOMES:
        raise AttributeError(f"module 'anyfold.testing' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
