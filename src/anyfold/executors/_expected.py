"""How many workers a run would find, asked before any are started.

A cluster that runs is asked; nothing is imported to find out whether there is one.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

from anyfold.executors._warm import borrow, is_warm
from anyfold.settings import effective_n_jobs

__all__ = ["DASK_VARIABLE", "RAY_VARIABLES", "ExpectedWorkers"]

DASK_VARIABLE = "ANYFOLD_DASK_ADDRESS"
RAY_VARIABLES = ("ANYFOLD_RAY_ADDRESS", "RAY_ADDRESS")


class ExpectedWorkers:
    """What `borrow` would lend; takes the same arguments."""

    def __init__(
        self, name: str, n_jobs: int | None, options: Mapping[str, Any], start_method: str | None
    ) -> None:
        self._name = name
        self._n_jobs = n_jobs
        self._options = options
        self._how = name, n_jobs, options, start_method

    @property
    def is_elsewhere(self) -> bool:
        """Whether the width is that of a cluster, so that `count` connects to it."""
        return self._n_jobs is None and (self._is_connected() or self._is_named())

    def count(self) -> int:
        """Return how many there would be."""
        if self._name == "serial":
            return 1
        if self._name == "joblib":
            return _n_of_joblib(self._n_jobs)
        if self.is_elsewhere:
            with borrow(*self._how) as executor:
                width: int | None = executor.max_workers  # type: ignore[attr-defined]
                return effective_n_jobs(width)
        return effective_n_jobs(self._n_jobs)

    def are_there(self) -> bool:
        """Return whether they have been started already; takes some milliseconds."""
        if self._name in ("serial", "threads") or self._is_connected():
            return True
        # Dask's workers run whoever uses them, Ray starts others for each program.
        return (self._name == "dask" and self._is_named()) or is_warm(*self._how)

    def _is_connected(self) -> bool:
        """Return whether this process uses a cluster that the run would use too."""
        if self._name == "ray":
            ray: Any = sys.modules.get("ray")
            return ray is not None and bool(ray.is_initialized())
        if self._name != "dask" or self._is_named():
            return False
        distributed: Any = sys.modules.get("distributed")
        try:
            return distributed is not None and distributed.Client.current() is not None
        except ValueError:
            return False

    def _is_named(self) -> bool:
        """Return whether an option or a variable says which cluster."""
        if self._name == "ray":
            address = self._options.get("address") or _first(RAY_VARIABLES)
            return bool(address) and address != "local"
        if self._name != "dask":
            return False
        return any(self._options.get(name) for name in ("client", "address")) or bool(
            _first((DASK_VARIABLE,))
        )


def _first(variables: tuple[str, ...]) -> str | None:
    return next((value for name in variables if (value := os.environ.get(name))), None)


def _n_of_joblib(n_jobs: int | None) -> int:
    import joblib
    from joblib.parallel import get_active_backend

    active = get_active_backend()[1] if n_jobs is None else effective_n_jobs(n_jobs)
    return int(joblib.effective_n_jobs(-1 if active is None else active))
