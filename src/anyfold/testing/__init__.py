"""The contract suite: anyone can prove a backend.

`ExecutorContract` holds everything that anyfold promises of an executor as tests, for pytest or for
`run_contract`; `python -m anyfold check BACKEND` runs them from the command line. `anyfold.testing.probes`
holds estimators and functions whose behaviour is scripted and can be watched from outside.
"""

from __future__ import annotations

from anyfold.testing._case import CATEGORIES, Result
from anyfold.testing._runner import contract_for, run_contract
from anyfold.testing.contract import ExecutorContract

__all__ = ["CATEGORIES", "ExecutorContract", "Result", "contract_for", "run_contract"]
