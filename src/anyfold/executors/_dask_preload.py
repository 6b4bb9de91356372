"""Imported by the fork server of a local Dask cluster, once, so that its workers need not import the same."""

from __future__ import annotations

import distributed.nanny  # noqa: F401

import anyfold.executors._dask_worker  # noqa: F401
from anyfold._worker.boot import warm_imports

__all__: list[str] = []

warm_imports()
