"""Category ``data``: promise 3, data is shared once and is read-only."""

from __future__ import annotations

import gc
import hashlib
import threading
import warnings
from typing import Any

import cloudpickle
import numpy as np
from sklearn.base import BaseEstimator

from anyfold.errors import DataChangedWarning, SharedLost
from anyfold.executors.base import isolation_of
from anyfold.testing._base import ROOT, ContractBase, oracle
from anyfold.testing._case import contract_test
from anyfold.testing._data_kinds import GRID, KINDS, N, describe
from anyfold.testing._limits import PATIENCE, wait_until
from anyfold.testing._processes import descriptors
from anyfold.testing._wrappers import Recording
from anyfold.testing.probes import Probe, probe_data

__all__ = ["DataTests"]


class _Looks(BaseEstimator):  # type: ignore[misc]
    """Keeps a digest of what it was given."""

    def fit(self, X: Any, y: Any = None) -> _Looks:
        self.seen_ = (*describe(X)[:4], hashlib.sha256(repr(describe(X)).encode()).hexdigest())
        self.target_ = describe(y)
        return self

    def score(self, X: Any, y: Any = None) -> float:
        return 0.0


class _Writes(BaseEstimator):  # type: ignore[misc]
    """Writes to everything that it is given, and scores the share of it that was as it should be."""

    def fit(self, X: Any, y: Any) -> _Writes:
        self.sum_ = float(X.sum())
        X[:] = 0
        y[:] = 0
        return self

    def score(self, X: Any, y: Any) -> float:
        seen = float(X.sum())
        X *= 0
        return seen + self.sum_


class _IsAllowed(BaseEstimator):  # type: ignore[misc]
    """Scores 1 where its data can be written to without a word."""

    def fit(self, X: Any, y: Any) -> _IsAllowed:
        return self

    def score(self, X: Any, y: Any) -> float:
        try:
            (X.data if hasattr(X, "indptr") else X)[0] = 0
        except ValueError:
            return 0.0
        return 1.0


class DataTests(ContractBase):
    """Whether models see the data that the caller has, and only they do."""

    @contract_test("data")
    def test_every_kind_of_data_arrives_as_it_is(self) -> None:
        """Arrays of any order and type, sparse matrices, frames and lists arrive as they do serially."""
        from anyfold import Folds

        y = np.arange(N) % 2
        for kind, make in KINDS.items():
            if "polars" in kind and getattr(self._shared_executor(), "start_method", None) == "fork":
                self.note("polars frames: polars hangs in a forked process whose parent has used it")
                continue
            folds = Folds(make(), y, cv=2, stratify=False)
            with warnings.catch_warnings(record=True):
                expected = oracle(_Looks(), folds, return_estimator=True)
                found = self.run_cv(_Looks(), folds, return_estimator=True)
            for name in ("seen_", "target_"):
                want = [getattr(model, name) for model in expected.estimators("_looks")]
                have = [getattr(model, name) for model in found.estimators("_looks")]
                assert have == want, (
                    f"{kind}: {name[:-1]} on the workers {have}, on the serial backend {want}"
                )

    @contract_test("data")
    def test_data_is_read_only(self) -> None:
        """A model cannot write to what it shares with others: NumPy refuses."""
        from anyfold import Folds

        y = np.arange(N) % 2
        for kind in ("C-ordered floats", "Fortran-ordered floats", "a CSR matrix"):
            scores = self.run_cv(_IsAllowed(), Folds(KINDS[kind](), y, cv=2))["_isallowed"]["test_score"]
            assert scores.tolist() == [0, 0], f"{kind}: a model wrote to shared data"

    @contract_test("data")
    def test_models_that_write_get_copies_of_their_own(self) -> None:
        """A model that must write is run on private copies; others and the caller see the data as it was."""
        from anyfold import Folds

        X, y = np.ascontiguousarray(GRID), (np.arange(N) % 2).astype(np.int64)
        before = X.tobytes(), y.tobytes()
        folds = Folds(X, y, cv=3)
        models = {"one": _Writes(), "two": _Writes(), "three": _Writes()}
        expected = oracle(models, folds)
        found = self.run_cv(models, folds)
        assert not found.failures, f"a model that writes to its data failed: {found.failures[0]!r}"
        for name in models:
            have, want = found[name]["test_score"], expected[name]["test_score"]
            assert have.tobytes() == want.tobytes(), f"{name} saw what others had written: {have}, not {want}"
        assert (X.tobytes(), y.tobytes()) == before, "the caller's data was changed"
        assert X.flags.writeable, "the caller's array was made read-only"

    @contract_test("data")
    def test_data_is_not_sent_with_every_task(self) -> None:
        """Tasks carry handles: what is submitted stays small, however large the data is."""
        from anyfold import Folds

        with self.executor() as executor:
            if isolation_of(executor) != "process":
                self._sees_the_callers_memory()
                return
            recording = Recording(
                executor, lambda fn, args, kwargs: len(cloudpickle.dumps((fn, args, kwargs)))
            )
            X, y = probe_data(100_000)
            result = self.run_cv({"a": Probe(), "b": Probe()}, Folds(X, y, cv=4), recording)
            assert not result.failures, result.failures
            largest = max(recording.recorded)
            assert largest < 50_000, f"data has {X.nbytes} bytes, and a task that was submitted {largest}"

    def _sees_the_callers_memory(self) -> None:
        from anyfold._data.views import view

        X, _ = probe_data(1000)
        with self.executor() as executor:
            shared = view(X)
            seen = executor.submit(shared.get).result(PATIENCE)
            assert np.shares_memory(seen, X), "tasks in the caller's process see a copy of the data"
            assert not seen.flags.writeable, "tasks in the caller's process can write to its data"

    @contract_test("data")
    def test_shared_data_is_released(self) -> None:
        """When `Folds` and results are gone, so is the published copy."""
        from anyfold import Folds

        X, y = probe_data(1000)

        def run() -> None:
            self.run_cv(Probe(), Folds(X, y, cv=2))

        def published() -> int:
            gc.collect()
            return sum("memfd:" in entry or "(deleted)" in entry for entry in descriptors())

        run()
        before = published()
        for _ in range(3):
            run()
        wait_until(lambda: published() <= before, "the release of what three runs had published")

    @contract_test("data")
    def test_an_executor_shares_objects_by_itself_or_says_that_it_does_not(self) -> None:
        """``share`` publishes once, workers read, nobody writes, and what is released is lost."""
        if self.lacks("share", "sharing objects by means of its own"):
            return
        X, _ = probe_data(1000)
        with self.executor() as executor:
            for shared in (executor.share(X), executor.submit_shared(np.copy, X).result(PATIENCE)):
                seen, writeable = executor.submit(_read, shared).result(PATIENCE)
                assert seen == X.tobytes(), "workers read something else than what was shared"
                assert not writeable, "workers can write to what is shared"
                assert shared.get().tobytes() == X.tobytes()
                shared.release()
                try:
                    shared.get()
                except SharedLost:
                    continue
                raise AssertionError("get() of a released object did not raise SharedLost")

    @contract_test("data")
    def test_changed_data_is_noticed(self) -> None:
        """Data that its owner changes between two runs is sent again, with a warning."""
        from anyfold import Folds, run_cv

        X, y = probe_data(N)
        folds = Folds(X, y, cv=2)
        with self.executor() as executor:
            self.run_cv(_Mean(), folds, executor)
            X[:, 1] += 1
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                found = run_cv(_Mean(), folds, backend=executor, random_state=ROOT, progress=False)
        expected = oracle(_Mean(), Folds(X, y, cv=2))
        assert found["_mean"]["test_score"].tobytes() == expected["_mean"]["test_score"].tobytes(), (
            "workers computed with data from before the change"
        )
        assert any(issubclass(w.category, DataChangedWarning) for w in told), "nobody was told of the change"

    @contract_test("data")
    def test_two_runs_at_once_keep_their_data_apart(self) -> None:
        """Two threads that run on one executor get the numbers of their own data."""
        from anyfold import Folds

        X, y = probe_data(N)
        cases = {shift: Folds(X + shift, y, cv=3) for shift in (0.0, 100.0)}
        expected = {shift: oracle(_Mean(), folds)["_mean"]["test_score"] for shift, folds in cases.items()}
        found: dict[float, Any] = {}

        def work(shift: float) -> None:
            found[shift] = self.run_cv(_Mean(), cases[shift], executor)["_mean"]["test_score"]

        with self.executor() as executor:
            if isolation_of(executor) == "none":
                for shift in cases:
                    work(shift)
            else:
                threads = [threading.Thread(target=work, args=(shift,), daemon=True) for shift in cases]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join(PATIENCE)
        for shift in cases:
            assert shift in found, "one of two runs at once did not end"
            assert found[shift].tobytes() == expected[shift].tobytes(), (
                f"{found[shift]}, not {expected[shift]}"
            )


class _Mean(BaseEstimator):  # type: ignore[misc]
    """Scores the mean of its test data."""

    def fit(self, X: Any, y: Any = None) -> _Mean:
        return self

    def score(self, X: Any, y: Any = None) -> float:
        return float(X.mean())


def _read(shared: Any) -> tuple[bytes, bool]:
    data = shared.get()
    return data.tobytes(), data.flags.writeable
