"""Estimators and functions whose behaviour is scripted and whose every invocation can be seen from outside.

They write a file for each invocation, so that what ran, and how often, is known even of workers that died.
All of them can be pickled. Data made by `probe_data` lets a probe know the fold that it trains on, so that
what it does can depend on the fold and on how often it was there before.

Third parties may use them for tests of their own; what is here keeps its name and its meaning.
"""

from __future__ import annotations

import logging
import random
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin

from anyfold.testing._calls import (
    ProbeError,
    UnpicklableError,
    UnpicklableObject,
    UnreadableObject,
    add,
    count_invocations,
    end_worker,
    hold,
    note_invocation,
    raise_error,
    read_pid,
    started_pids,
)

__all__ = [
    "Dies",
    "Fails",
    "Hangs",
    "Logs",
    "Noisy",
    "Prints",
    "Probe",
    "ProbeError",
    "Sleeps",
    "UnpicklableError",
    "UnpicklableObject",
    "UnreadableObject",
    "Warns",
    "add",
    "count_invocations",
    "end_worker",
    "first_held_out",
    "hold",
    "note_invocation",
    "probe_data",
    "raise_error",
    "read_pid",
    "started_pids",
]


def probe_data(n_samples: int = 60) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return data whose first column numbers the samples, and labels that alternate."""
    rows = np.arange(n_samples)
    noise = np.random.default_rng(0).normal(size=(n_samples, 3))
    return np.column_stack([rows, noise]).astype(np.float64), rows % 2


def first_held_out(X: Any) -> int:
    """Return the number of the first sample that is not in some training data made from `probe_data`.

    With consecutive test sets (``KFold`` without shuffling) it identifies the fold.
    """
    present = set(np.asarray(X)[:, 0].astype(int).tolist())
    return next(row for row in range(len(present) + 1) if row not in present)


# ---- estimators ---------------------------------------------------------------------------------


class Probe(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Fits nothing, leaves a file for each fit, and predicts the first label.

    Parameters
    ----------
    folder : str or None
        Where files are left, named ``{name}-{first sample held out}``; None leaves none.
    name : str
        Tells several probes apart.
    on : sequence of int or None
        First held-out samples of the folds on which to act; None is all of them.
    """

    _estimator_type: ClassVar[str] = "classifier"

    def __init__(
        self, folder: str | None = None, name: str = "probe", on: Sequence[int] | None = None
    ) -> None:
        self.folder = folder
        self.name = name
        self.on = on

    def fit(self, X: Any, y: Any = None, **params: Any) -> Probe:
        """Leave a file, and act where the script says so."""
        self.classes_ = np.unique(y) if y is not None else np.zeros(1)
        self.n_samples_ = len(X)
        held_out = first_held_out(X)
        earlier = 0
        if self.folder is not None:
            earlier = note_invocation(self.folder, f"{self.name}-{held_out}")
        if self.on is None or held_out in self.on:
            self._act(held_out, earlier)
        return self

    def predict(self, X: Any) -> Any:
        """Predict the first label."""
        return np.full(len(X), self.classes_[0])

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Return 1."""
        return 1.0

    def _act(self, held_out: int, earlier: int) -> None:
        """Do what the probe is for."""


class Dies(Probe):
    """Ends its worker the first ``deaths`` times on each fold that it acts on; see `end_worker`."""

    def __init__(
        self,
        folder: str | None = None,
        name: str = "dies",
        on: Sequence[int] | None = None,
        how: str = "SIGKILL",
        deaths: int = 1,
    ) -> None:
        super().__init__(folder, name, on)
        self.how = how
        self.deaths = deaths

    def _act(self, held_out: int, earlier: int) -> None:
        if earlier < self.deaths:
            end_worker(self.how)


class Fails(Probe):
    """Raises `ProbeError`."""

    def _act(self, held_out: int, earlier: int) -> None:
        raise ProbeError(f"{self.name} cannot be fitted without sample {held_out}", held_out)


class Hangs(Probe):
    """Does not end until a file ``go`` appears in its folder, or the folder is removed."""

    def _act(self, held_out: int, earlier: int) -> None:
        assert self.folder is not None, "a probe that hangs needs a folder"
        hold(self.folder, f"{self.name}-hangs")


class Sleeps(Probe):
    """Takes some time, and says for how many of its kind that was the same time.

    Files ``running.*`` stand for fits that run; the attribute ``at_once_`` is the largest number seen.
    """

    def _act(self, held_out: int, earlier: int) -> None:
        assert self.folder is not None, "a probe that counts its kind needs a folder"
        mark = Path(self.folder) / f"running.{self.name}-{held_out}"
        mark.touch()
        self.at_once_ = 0
        for _ in range(10):
            self.at_once_ = max(self.at_once_, count_invocations(self.folder, "running"))
            time.sleep(0.002)
        mark.unlink()


class Noisy(Probe):
    """Draws from both global generators, as careless models do."""

    def _act(self, held_out: int, earlier: int) -> None:
        self.noise_ = [random.random(), *np.random.random(3).tolist()]

    def predict(self, X: Any) -> Any:
        """Predict labels at random."""
        return self.classes_[(np.random.random(len(X)) * len(self.classes_)).astype(int)]

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Return what was drawn while fitting."""
        return float(np.sum(self.noise_))


class Warns(Probe):
    """Issues a `UserWarning` that names the probe and the fold, ``times`` times."""

    def __init__(
        self,
        folder: str | None = None,
        name: str = "warns",
        on: Sequence[int] | None = None,
        times: int = 1,
    ) -> None:
        super().__init__(folder, name, on)
        self.times = times

    def _act(self, held_out: int, earlier: int) -> None:
        for number in range(self.times):
            warnings.warn(f"{self.name} warns without sample {held_out}, {number}", UserWarning, stacklevel=1)


class Logs(Probe):
    """Logs a line that names the probe and the fold to the logger ``anyfold.testing.probe``."""

    def _act(self, held_out: int, earlier: int) -> None:
        logging.getLogger("anyfold.testing.probe").warning("%s logs without %d", self.name, held_out)


class Prints(Probe):
    """Prints a line that names the probe and the fold."""

    def _act(self, held_out: int, earlier: int) -> None:
        sys.stdout.write(f"{self.name} prints without {held_out}\n")
        sys.stdout.flush()
