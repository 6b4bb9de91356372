"""What `backend="auto"` costs against the best backend chosen by hand: each in a fresh interpreter, cold."""

from __future__ import annotations

import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from contest import Contender, Contest, main
from sklearn.base import BaseEstimator
from sklearn.datasets import load_iris, make_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, RidgeClassifier

import anyfold as af
from anyfold.model_selection import GridSearchCV

BACKENDS = ("serial", "threads", "multiprocessing", "loky")
"""What somebody could have chosen on this machine."""


class Sleeps(BaseEstimator):
    """Waits for something else than a processor, for half a second."""

    def __init__(self, number: int = 0) -> None:
        self.number = number

    def fit(self, X: Any, y: Any) -> Sleeps:
        time.sleep(0.5)
        return self

    def score(self, X: Any, y: Any) -> float:
        return float(self.number)


def small(backend: str) -> None:
    """Too little to share: a linear model on iris."""
    X, y = load_iris(return_X_y=True)
    af.run_cv(LogisticRegression(max_iter=200), af.Folds(X, y, cv=5), backend=backend)


def cheap(backend: str) -> None:
    """Two hundred ridge models, a millisecond each."""
    X, y = make_classification(1000, 20, random_state=0)
    models = {f"ridge {i}": RidgeClassifier(alpha=a) for i, a in enumerate(np.logspace(-3, 3, 200))}
    af.run_cv(models, af.Folds(X, y, cv=5), backend=backend, n_jobs=2)


def forests(backend: str) -> None:
    """Six forests of a second."""
    X, y = make_classification(4000, 20, random_state=0)
    models = {f"forest {i}": RandomForestClassifier(150, max_depth=4 + i, random_state=0) for i in range(6)}
    af.run_cv(models, af.Folds(X, y, cv=3), backend=backend, n_jobs=2)


def sleeps(backend: str) -> None:
    """Twenty waits of half a second on eight workers."""
    X, y = load_iris(return_X_y=True)
    models = {f"sleeps {i}": Sleeps(i) for i in range(10)}
    af.run_cv(models, af.Folds(X, y, cv=2), backend=backend, n_jobs=8)


def search(backend: str) -> None:
    """Search a grid of 100 candidates."""
    X, y = make_classification(2000, 40, random_state=0)
    grid = {"C": list(np.logspace(-4, 4, 100))}
    model = LogisticRegression(solver="liblinear", random_state=0)
    GridSearchCV(model, grid, cv=5, backend=backend, n_jobs=2).fit(X, y)


REMARKS = {
    "sleeps": "Tasks that only wait are best done by threads. `auto` starts processes for them too: "
    "threads share the global generators of random numbers, and numbers must not depend on what was chosen.",
}
RUNS = {run.__name__: run for run in (small, cheap, forests, sleeps, search)}


def cold(workload: str, backend: str) -> float:
    """Return how many seconds a workload takes as the first one of an interpreter."""
    command = [sys.executable, __file__, "--in-here", workload, backend]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def contest(workload: str) -> Contest:
    """Return the contest of one workload; what is measured is the time inside the interpreters."""
    told = (RUNS[workload].__doc__ or "").rstrip(".")
    return Contest(
        f"auto, cold: {told[0].lower()}{told[1:]}",
        [
            *(Contender(f"run on {name}", partial(cold, workload, name)) for name in BACKENDS),
            Contender("run on auto", partial(cold, workload, "auto"), ours=True),
        ],
        target=1.25,
        tells_seconds=True,
        remark=REMARKS.get(workload, ""),
    )


WORKLOADS: dict[str, Callable[[], Contest]] = {name: partial(contest, name) for name in RUNS}

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    if sys.argv[1:2] == ["--in-here"]:
        begun = time.perf_counter()
        RUNS[sys.argv[2]](sys.argv[3])
        print(time.perf_counter() - begun)
    else:
        main(WORKLOADS, __doc__)
