"""Category ``threads``: promise 10, threads and tasks keep to their budget."""

from __future__ import annotations

import os
import threading
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator

from anyfold.errors import UnsupportedFeatureError
from anyfold.testing._base import MAX_WORKERS, ContractBase
from anyfold.testing._case import contract_test
from anyfold.testing._limits import PATIENCE, wait_until
from anyfold.testing.probes import Probe, Sleeps, count_invocations, hold, probe_data

__all__ = ["ThreadTests"]


class _Counts(BaseEstimator):  # type: ignore[misc]
    """Counts the threads that its libraries and its own ``n_jobs`` would use."""

    def fit(self, X: Any, y: Any = None) -> _Counts:
        from joblib import Parallel, delayed
        from sklearn.utils._openmp_helpers import _openmp_effective_n_threads
        from threadpoolctl import threadpool_info

        _where()
        self.counts_ = {
            "BLAS": max(
                (lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"), default=1
            ),
            "OpenMP": int(_openmp_effective_n_threads()),
            "n_jobs=-1": len(set(Parallel(n_jobs=-1)(delayed(_where)() for _ in range(12)))),
            "n_jobs=8 in threads": len(
                set(Parallel(n_jobs=8, prefer="threads")(delayed(_where)() for _ in range(12)))
            ),
        }
        return self

    def score(self, X: Any, y: Any = None) -> float:
        return 0.0


class _Nests(Probe):
    """Runs models inside a task, and keeps where."""

    def _act(self, held_out: int, earlier: int) -> None:
        from anyfold import Folds, run_cv

        inner = run_cv(_Where(), Folds(*probe_data(), cv=2), progress=False)
        self.backend_ = inner.backend
        self.elsewhere_ = sorted({int(score) for score in inner["_where"]["test_score"]} - {os.getpid()})


class _Where(BaseEstimator):  # type: ignore[misc]
    def fit(self, X: Any, y: Any = None) -> _Where:
        return self

    def score(self, X: Any, y: Any = None) -> float:
        return float(os.getpid())


def _where() -> tuple[int, int]:
    np.linalg.svd(np.ones((40, 40)))
    return os.getpid(), threading.get_ident()


def _folds() -> Any:
    from anyfold import Folds

    return Folds(*probe_data(), cv=3)


class ThreadTests(ContractBase):
    """Whether the machine is not asked for more than it was given leave to."""

    @contract_test("threads")
    def test_inner_threads_bound_what_a_task_uses(self) -> None:
        """``inner_threads`` bounds BLAS, OpenMP and a model's own ``n_jobs`` inside a task."""
        for limit in (1, 2):
            with self.executor() as executor:
                if limit > 1 and getattr(executor, "start_method", None) == "fork":
                    self._is_refused_after_fork(executor)
                    continue
                result = self.run_cv(
                    _Counts(), _folds(), executor, inner_threads=limit, return_estimator=True
                )
            assert not result.failures, result.failures[0].traceback
            for model in result.estimators("_counts"):
                over = {what: n for what, n in model.counts_.items() if n > limit}
                assert not over, f"with inner_threads={limit} tasks use {over}"

    def _is_refused_after_fork(self, executor: Any) -> None:
        self.note("inner_threads above 1: OpenMP hangs in forked processes")
        try:
            self.run_cv(_Counts(), _folds(), executor, inner_threads=2)
        except UnsupportedFeatureError:
            return
        raise AssertionError("inner_threads=2 with start method 'fork' was not refused")

    @contract_test("threads")
    def test_the_callers_limits_are_restored(self) -> None:
        """After a run the caller's libraries may use as many threads as before."""
        from threadpoolctl import threadpool_info

        def limits() -> list[tuple[str, int]]:
            return sorted((lib["filepath"], lib["num_threads"]) for lib in threadpool_info())

        self.run_cv(_Counts(), _folds())  # loads what it loads
        before = limits()
        self.run_cv(_Counts(), _folds())
        assert limits() == before, f"limits were {before} and are {limits()}"

    @contract_test("threads")
    def test_a_run_inside_a_task_is_serial(self) -> None:
        """A run inside a task starts no workers of its own unless it is told to."""
        result = self.run_cv({"nests": _Nests()}, _folds(), return_estimator=True)
        assert not result.failures, result.failures[0].traceback
        for model in result.estimators("nests"):
            assert model.backend_ == "serial", f"a run inside a task used the backend {model.backend_!r}"
            assert not model.elsewhere_, f"a run inside a task used the processes {model.elsewhere_}"

    @contract_test("threads")
    def test_no_more_tasks_run_at_once_than_there_are_workers(self) -> None:
        """``max_workers`` bounds how many tasks run at once."""
        for n_workers in (1, MAX_WORKERS):
            folder = str(self.new_folder(f"{n_workers} workers"))
            models = {f"model {i}": Sleeps(folder, f"model {i}") for i in range(4)}
            with self.executor(n_workers) as executor:
                result = self.run_cv(models, _folds(), executor, return_estimator=True)
            at_once = max(model.at_once_ for name in models for model in result.estimators(name))
            assert at_once <= n_workers, f"{at_once} tasks ran at once on {n_workers} workers"

    @contract_test("threads")
    def test_all_workers_work_at_once(self) -> None:
        """As many tasks run at once as there are workers."""
        with self.executor() as executor:
            if self.isolation == "none":
                assert getattr(executor, "max_workers", 1) == 1, (
                    "one task at a time, and more than one worker"
                )
                self.note("running several tasks at once: tasks run in the caller")
                return
            futures = [executor.submit(hold, str(self.folder), "busy") for _ in range(MAX_WORKERS)]
            wait_until(
                lambda: count_invocations(self.folder, "busy") == MAX_WORKERS,
                lambda: f"{MAX_WORKERS} tasks to run at once; {count_invocations(self.folder, 'busy')} do",
                PATIENCE,
            )
            (self.folder / "go").touch()
            assert all(future.result(PATIENCE) for future in futures)
