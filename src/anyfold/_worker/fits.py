"""Fits one model on all of its data: what a leaf of `fit_models` does.

The model comes with its leaf, so that one that cannot be sent, or read where it arrives, fails alone.
"""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NoReturn

from sklearn.base import clone

from anyfold._data.kinds import guard, is_guardable, private_copy
from anyfold._plan.seeds import seed_open_states
from anyfold._plan.task import FitCost, Leaf
from anyfold._worker.alone import alone_if_needed
from anyfold._worker.execute import Produced, in_stage
from anyfold._worker.memory import PeakMemory
from anyfold.errors import InvalidInputError, UnpicklableModelError
from anyfold.executors.base import Shared

__all__ = ["Fits", "NotSent", "TrainingData", "taken_apart"]


@dataclass(frozen=True, slots=True)
class TrainingData:
    """What one model is fitted on, as it is sent: handles on data, or what makes it."""

    X: Shared[Any] | None = None
    y: Shared[Any] | None = None
    params: Shared[Mapping[str, Any]] | None = None
    """Passed to ``fit``."""
    make: Callable[[], Any] | None = None
    """Returns X and y, on the worker."""


@dataclass(frozen=True, slots=True)
class NotSent:
    """Stands for a model or data that could not be sent: a failure of that model, and of no other."""

    why: str

    def get(self) -> NoReturn:
        """Raise `UnpicklableModelError`."""
        raise UnpicklableModelError(self.why)

    def release(self) -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True)
class Fits:
    """The work of `fit_models`."""

    root_seed: int
    caller: int | None
    """Process id of the caller, where workers have processes of their own; None elsewhere."""

    def run(self, leaf: Leaf, *, writable: bool) -> Produced:
        """Clone, seed and fit one model."""
        assert leaf.parameters is not None
        with in_stage("worker"):
            estimator = clone(leaf.parameters["model"].get())
        parts = seed_open_states(estimator, self.root_seed, leaf.key.fold)
        with PeakMemory() if self._is_alone() else nullcontext() as memory:
            begun = time.perf_counter()
            with in_stage("data"):
                X, y, params = _data(leaf.parameters["data"], writable=writable)
            there = time.perf_counter()
            with in_stage("fit"), alone_if_needed(estimator, *parts):
                if y is None:
                    estimator.fit(X, **params)
                else:
                    estimator.fit(X, y, **params)
            fitted = time.perf_counter()
        peak = math.nan if memory is None else memory.nbytes
        return Produced(FitCost(there - begun, fitted - there, peak), {"estimator": estimator})

    def _is_alone(self) -> bool:
        """Return whether this process has no other work, so that what it takes is the task's."""
        return self.caller is not None and self.caller != os.getpid()


def taken_apart(data: Any, whose: str) -> tuple[Any, Any, Mapping[str, Any]]:
    """Return X, y and parameters of ``fit`` from what a user gives as (X, y) or (X, y, params)."""
    if not isinstance(data, tuple) or len(data) not in (2, 3):
        size = f" of {len(data)}" if isinstance(data, tuple) else ""
        raise InvalidInputError(
            f"{whose} is {type(data).__name__}{size}, not (X, y) or (X, y, params): "
            "write (X, None) where there is no target"
        )
    X, y, params = (*data, {})[:3]
    if not isinstance(params, Mapping):
        raise InvalidInputError(
            f"the params in {whose} are {type(params).__name__}, not a mapping from names of parameters"
        )
    return X, y, params


def _data(data: TrainingData, *, writable: bool) -> tuple[Any, Any, dict[str, Any]]:
    given = {} if data.params is None else data.params.get()
    params = {name: copy.deepcopy(value) for name, value in given.items()}
    if data.make is not None:
        X, y, own = taken_apart(data.make(), f"what {data.make!r} returned")
        return X, y, {**params, **own}
    return _of_own(data.X, writable=writable), _of_own(data.y, writable=writable), params


def _of_own(shared: Shared[Any] | None, *, writable: bool) -> Any:
    """Return what this task may hold: its own wrapper of shared read-only data, or a copy."""
    if shared is None:
        return None
    obj = shared.get()
    return private_copy(obj) if writable or not is_guardable(obj) else guard(obj)
