"""What the engine costs: tasks that do nothing, that sleep, that are unequal, and many cheap fits."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from contest import Contender, Contest, main
from joblib import Parallel, delayed
from sklearn.base import BaseEstimator
from sklearn.datasets import make_classification
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import StratifiedKFold, cross_validate

import anyfold as af

BACKENDS = ("threads", "multiprocessing", "processes", "loky", "ray", "dask")
TINY = np.zeros((10, 1)), np.arange(10)


_open: list[Any] = []
"""Executors of the contest that is held now."""


def _alone() -> None:
    """End the workers of the contest before: a Ray or a pool of another size would be used again."""
    while _open:
        _open.pop().shutdown()
    af.shutdown()


class Idle(BaseEstimator):
    """Takes so many seconds, and does nothing."""

    def __init__(self, seconds: float = 0.0, name: str = "") -> None:
        self.seconds = seconds
        self.name = name

    def fit(self, X: Any, y: Any) -> Idle:
        if self.seconds:
            time.sleep(self.seconds)
        return self

    def score(self, X: Any, y: Any) -> float:
        return 0.5


def idle_run(backend: Any, models: dict[str, Any], n_folds: int, **settings: Any) -> Callable[[], Any]:
    """Return what runs models on as many folds on a backend, whose workers stay warm."""
    folds = af.Folds(*TINY, cv=[(range(1, 10), range(1))] * n_folds)
    executors: list[Any] = []

    def run() -> int:
        if not executors:
            named = isinstance(backend, str) and backend not in ("auto", "serial")
            n_jobs = settings.get("n_jobs")
            executors.append(af.get_executor(backend, n_jobs) if named else backend)
            _open.extend(executors if named else [])
        given = settings if isinstance(executors[0], str) else {}
        result = af.run_cv(models, folds, backend=executors[0], random_state=0, progress=False, **given)
        assert not result.failures
        assert not result.missing
        return len(result.to_frame())

    return run


def nothing() -> Contest:
    _alone()
    models = {f"idle {number}": Idle(name=str(number)) for number in range(400)}
    ours = [
        Contender(f"run_cv on {name}", idle_run(name, models, 5, n_jobs=2), ours=True) for name in BACKENDS
    ]
    serial = Contender("run_cv on serial", idle_run("serial", models, 5))
    return Contest(
        "2,000 tasks that do nothing (150 us above serial locally, 300 on ray, 1,000 on dask)",
        [serial, *ours],
    )


def sleep(backend: str, target: float) -> Contest:
    _alone()  # eighty workers that wait would take the processors from those that are measured
    models = {f"sleeps {number}": Idle(0.25, str(number)) for number in range(16)}
    ideal = Contender("the ideal: one second", lambda: time.sleep(1.0) or 64)
    run = Contender(f"run_cv on {backend}", idle_run(backend, models, 4, n_jobs=16), ours=True)
    return Contest(f"64 tasks of 0.25 s on 16 workers of {backend}", [ideal, run], target)


def unequal() -> Contest:
    _alone()
    models: dict[str, Any] = {f"short {number}": Idle(0.5, str(number)) for number in range(30)}
    models["long"] = Idle(8.0)
    # The best schedule of 30 x 0.5 s and 8 s on four workers takes as long as the long one.
    ideal = Contender("the best schedule: 8 s", lambda: time.sleep(8.0) or 31)
    run = idle_run("multiprocessing", models, 1, n_jobs=4)
    return Contest(
        "one task of 8 s, last of thirty of 0.5 s, on 4 workers",
        [ideal, Contender("run_cv", run, ours=True)],
        1.1,
    )


def _ridge(n_models: int) -> tuple[dict[str, Any], Any, Any, Any]:
    X, y = make_classification(1000, 20, random_state=0)
    models = {
        f"ridge {i}": RidgeClassifier(alpha=alpha) for i, alpha in enumerate(np.logspace(-3, 3, n_models))
    }
    return models, X, y, StratifiedKFold(5, shuffle=True, random_state=0)


def ridge(n_models: int = 200, target: float = 0.55) -> Contest:
    models, X, y, cv = _ridge(n_models)
    folds = af.Folds(X, y, cv=cv)

    def peer(model: Any, **options: Any) -> Any:
        return cross_validate(model, X, y, cv=cv, **options)["test_score"]

    def ours(backend: str) -> Callable[[], Any]:
        return lambda: af.run_cv(
            models, folds, backend=backend, n_jobs=2, random_state=0, progress=False
        ).scores()

    contenders = [
        Contender("cross_validate, one after another", lambda: np.array([peer(m) for m in models.values()])),
        Contender(
            "Parallel over models, loky",
            lambda: np.array(Parallel(2)(delayed(peer)(model) for model in models.values())),
        ),
        Contender(
            "Parallel over models, threads",
            lambda: np.array(Parallel(2, prefer="threads")(delayed(peer)(m) for m in models.values())),
        ),
        *(
            Contender(f"run_cv on {name}", ours(name), ours=True)
            for name in ("serial", "auto", "multiprocessing")
        ),
    ]
    return Contest(
        f"{n_models} RidgeClassifier x 5 folds, 1,000 x 20",
        contenders,
        target,
        np.array_equal,
        remark="Parallel over models is a loop of one's own, which nothing watches over; of what "
        "scikit-learn offers by itself, one cross_validate after another is the fastest.",
    )


def many() -> Contest:
    """Ten and a hundred thousand tasks; the ratio is that of time per run."""
    models = {f"idle {number}": Idle(name=str(number)) for number in range(20)}

    def run(n_folds: int) -> Callable[[], Any]:
        inner = idle_run("multiprocessing", models, n_folds, n_jobs=2)

        def measured() -> None:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            inner()
            after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            print(
                f"  {20 * n_folds} tasks: peak memory of the caller grew by {after - before} kB", flush=True
            )

        return measured

    return Contest(
        "100,000 tasks against 10,000 (10 would be linear)",
        [Contender("10,000 tasks", run(500)), Contender("100,000 tasks", run(5000), ours=True)],
        10.0,
    )


def imports() -> Contest:
    def run(module: str) -> Callable[[], Any]:
        return lambda: subprocess.run([sys.executable, "-c", f"import {module}"], check=True)

    return Contest(
        "importing (both with the interpreter's own start)",
        [
            Contender("python -c pass", run("sys")),
            Contender("sklearn.model_selection", run("sklearn.model_selection")),
            Contender("anyfold", run("anyfold"), ours=True),
        ],
    )


WORKLOADS: dict[str, Callable[[], Contest]] = {
    "imports": imports,
    "nothing": nothing,
    **{f"sleep-{name}": partial(sleep, name, 1.1) for name in ("multiprocessing", "processes", "loky")},
    **{f"sleep-{name}": partial(sleep, name, 1.25) for name in ("ray", "dask")},
    "unequal": unequal,
    "ridge": ridge,
    "ridges": lambda: ridge(2000, 0.65),
    "many": many,
}

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(WORKLOADS, __doc__)
